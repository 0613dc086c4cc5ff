"""A forwarder as store IT runs it: processes, TLS, a real reader's wire, and kill -9."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import forked
import pytest
from certificates import Authority
from forked import Forked
from gateways import Gateway, antennas, member_card

from simulators.headquarters.broker import free_port
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation


def now_us() -> int:
    return time.time_ns() // 1000


class Second:
    """The second gateway of a store: its own folder, with the same store file but for the database's place."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        text = gateway.file.read_text().replace(str(gateway.database), str(folder / "store.db"))
        self.file = folder / "store.toml"
        self.file.write_text(text)
        self.process: Forked | None = None

    def start(self, *arguments: str) -> None:
        with (self.folder / "forwarder.log").open("ab") as log:
            self.process = Forked("forward", "--config", str(self.file), *arguments, out=log, err=log)

    async def told(self, command: str) -> str:
        """What a command says to the person at this gateway."""
        return (await asyncio.to_thread(forked.run, command, "--config", str(self.file))).stdout

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def log(self) -> str:
        return (self.folder / "forwarder.log").read_text()


@pytest.fixture
def secured(gateway: Gateway) -> tuple[Gateway, dict[str, Any]]:
    authority = Authority(gateway.folder / "ca")
    cert = authority.issue("service")
    token = gateway.folder / "g2.token"
    token.write_text("0123456789abcdef" * 4)
    return (
        gateway,
        {
            "forwarding": {
                "address": f"127.0.0.1:{free_port()}",
                "cert": str(cert),
                "key": str(cert.with_suffix(".key")),
                "ca": str(authority.folder / "ca.pem"),
            },
            "forwarders": [{"id": "g2", "token_file": str(token)}],
        },
    )


async def test_reads_of_a_forwarder_reach_the_service_over_kills_of_both(
    secured: tuple[Gateway, dict[str, Any]], tmp_path: Path
) -> None:
    gateway, parts = secured
    reader = LlrpReader(now_us, name="far", tcp_port=0)
    address = await reader.start()
    readers = [
        {"id": "near", "driver": "llrp", "address": "127.0.0.1:1", "antennas": antennas("door")},
        {"id": "far", "driver": "llrp", "address": address, "via": "g2", "antennas": antennas("door", "shoes")},
    ]
    gateway.configure(readers=readers, **parts)
    second = Second(gateway, tmp_path / "second")
    pushed = 0

    async def push(seconds: float) -> None:
        nonlocal pushed
        for _ in range(round(seconds * 20)):
            reader.push([Observation(now_us(), 2, member_card(1), -5200)])
            pushed += 1
            await asyncio.sleep(0.05)

    def far(state: dict[str, Any]) -> dict[str, Any]:
        return next(one for one in state["readers"] if one["id"] == "far")

    try:
        gateway.start()
        second.start()
        await gateway.until(lambda state: far(state)["link"] == "up")
        await push(1)
        state = await gateway.until(lambda state: far(state)["reads"] == pushed)
        assert state["forwarders"][0]["link"] == "up"
        assert far(state)["via"] == "g2"
        assert ": forwards, and keeps 0.0 MB of reads\n" in await second.told("status")
        assert "this gateway forwards, and keeps 0.0 MB of reads" in await second.told("doctor")
        # The service is killed, and comes back: nothing of what was read meanwhile is missing.
        gateway.end(signal.SIGKILL)
        await push(1)
        gateway.start()
        await gateway.until(lambda state: far(state)["link"] == "up" and far(state)["reads"] >= 20)
        # The forwarder is killed: its zones are unknown until it is back.
        second.end(signal.SIGKILL)
        state = await gateway.until(lambda state: far(state)["link"] == "down")
        assert "g2" in far(state)["reason"]
        assert {zone["id"]: zone["state"] for zone in state["zones"]}["shoes"] == "unknown"
        told = await second.told("doctor")
        assert "this gateway is a forwarder, which does not run" in told
        assert "the service is not running" not in told
        reads = second.folder / "as another instance of the unit"
        second.start("--state", str(reads))
        await gateway.until(lambda state: far(state)["link"] == "up")
        assert (reads / "lock").exists()
        await push(1)
        assert second.end(signal.SIGTERM) == 0
        await gateway.until(lambda state: state["forwarders"][0]["link"] == "down")
        assert gateway.end() == 0
    finally:
        if second.process is not None and second.process.poll() is None:
            second.process.kill()
        await reader.stop()
    assert "Traceback" not in second.log() + gateway.log()
    [(reads,)] = gateway.rows("SELECT sum(reads) FROM visit") or [(0,)]
    assert (reads or 0) <= pushed


async def test_mistakes_are_said_in_a_line(secured: tuple[Gateway, dict[str, Any]]) -> None:
    gateway, parts = secured
    near = {"id": "near", "driver": "llrp", "address": "r1", "antennas": antennas("door")}
    gateway.configure(readers=[near], **parts)
    done = await asyncio.to_thread(forked.run, "forward", "--config", gateway.file)
    assert (done.returncode, done.stderr) == (1, "tagtrail: no reader of the store file has via = 'g2'\n")
    done = await asyncio.to_thread(forked.run, "forward", "--config", gateway.file, "--as", "g3")
    assert done.stderr == "tagtrail: there is no forwarder 'g3': --as g2\n"
    Path(parts["forwarders"][0]["token_file"]).write_text("short")
    gateway.configure(readers=[near | {"via": "g2"}], **parts)
    done = await asyncio.to_thread(forked.run, "forward", "--config", gateway.file)
    assert "is too short; make one with: openssl rand -hex 32" in done.stderr
    gateway.configure(readers=[near | {"via": "g4"}], **parts)
    done = await asyncio.to_thread(forked.run, "check", gateway.file)
    assert 'readers[0].via: no forwarder "g4"; forwarders are: g2' in done.stderr
