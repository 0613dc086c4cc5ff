"""Addresses of readers."""

import pytest

from drivers.llrp_wire import Address


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
def test_addresses(text, host, port):
    assert Address.parse(text) == Address(host, port)
    assert Address.parse(str(Address.parse(text))) == Address(host, port)


@pytest.mark.parametrize("text", ["", "host:", "host:0", "host:65536", "host:x", "[::1", "a b", ":5084", "[::1]:x"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="host:port"):
        Address.parse(text)
