"""Addresses of readers, and when connections go on receiving."""

from __future__ import annotations

import asyncio

import pytest

from drivers.llrp.wire import Address, Wire


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5", "10.0.0.5", 5084),
        ("reader-3.shop.lan:5085", "reader-3.shop.lan", 5085),
        ("[fd00::5]:6000", "fd00::5", 6000),
        ("[fd00::5]", "fd00::5", 5084),
        ("fd00::5", "fd00::5", 5084),
        ("fe80::1%eth0", "fe80::1%eth0", 5084),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert Address.parse(str(Address.parse(text))) == Address(host, port)


@pytest.mark.parametrize("text", ["", "host:", "host:0", "host:65536", "host:x", "[::1", "a b", ":5084", "[::1]:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        Address.parse(text)


async def test_all_wires_go_on_at_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    moments = []
    for now_s in (1000.001, 1000.05, 1000.099, 1000.12, 1000.15):
        wire = Wire(lambda: 0, "a reader")
        monkeypatch.setattr(loop, "time", lambda now_s=now_s: now_s)
        wire.resume(0.1)
        monkeypatch.undo()
        moments.append(wire._resuming.when() - now_s)
        wire._resuming.cancel()
    assert moments == pytest.approx([0.099, 0.05, 0.001, 0.08, 0.05])
