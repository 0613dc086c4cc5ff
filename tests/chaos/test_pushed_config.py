"""Configurations from the CRM that fail their trial, on services that are processes: what ran before is back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
from gateways import STORE, Gateway, antennas
from headquarters import Headquarters, headquarters

from simulators.headquarters.broker import NatsBroker
from simulators.readers.llrp import LlrpReader

SECTIONS = ("store", "floors", "zones", "tag_classes")
TRIAL_S = 150
"""The self-test's minute, and what a busy machine needs besides."""


NOWHERE = 60
"""A port that the reader doesn't have: with a pushed configuration that uses it the reader is not reached."""


def push_of(generation: int, zones: int, port: int = 1) -> dict[str, Any]:
    ports = [antenna | {"port": antenna["port"] + port - 1} for antenna in antennas("door", "shoes")]
    readers = [{"id": "r1", "antennas": ports}]
    text = tomli_w.dumps(
        {name: STORE[name] for name in SECTIONS} | {"readers": readers, "zones": STORE["zones"][:zones]}
    )
    return {"generation": generation, "sha256": hashlib.sha256(text.encode()).hexdigest(), "toml": text}


class ConfigTrial:
    """A gateway with a broker of its own and a first pushed configuration that was applied: three zones."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.gateway = Gateway(folder)
        self.broker = NatsBroker(folder / "broker")
        self._reader = LlrpReader(lambda: time.time_ns() // 1000)

    async def __aenter__(self) -> ConfigTrial:
        await self.broker.start()
        address = await self._reader.start()
        readers = [{"id": "r1", "driver": "llrp", "address": address, "antennas": antennas("door", "shoes")}]
        self.gateway.configure(mqtt={"url": self.broker.url}, readers=readers)
        self.gateway.start("--no-web")
        await self.gateway.until(lambda state: state["readers"][0]["link"] == "up" and state["broker"]["connected"])
        async with headquarters(self.broker.url) as hq:
            await hq.send("down/config", push_of(1, 3), retain=True)
            await said(hq, 1, "applied")
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self.gateway.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        await self._reader.stop()
        await self.broker.stop()

    async def back(self) -> None:
        """Three zones, and a reader that is up."""
        await self.gateway.until(
            lambda state: len(state["zones"]) == 3 and state["readers"][0]["link"] == "up", TRIAL_S
        )
        with contextlib.suppress(TimeoutError):
            assert self.gateway.end() == 0, self.gateway.log()


async def said(hq: Headquarters, generation: int, state: str) -> dict[str, Any]:
    return await hq.first("up/config", lambda told: (told["generation"], told["state"]) == (generation, state), TRIAL_S)


async def no_reader(folder: Path) -> str:
    """The pushed configuration uses a port that the reader doesn't have."""
    async with ConfigTrial(folder) as trial, headquarters(trial.broker.url) as hq:
        await hq.send("down/config", push_of(2, 2, NOWHERE), retain=True)
        await said(hq, 2, "trying")
        told = await said(hq, 2, "rolled_back")
        assert told["running"] == 1
        await trial.back()
    return str(told["reason"])


async def no_broker(folder: Path) -> str:
    """The broker dies while the pushed configuration is tried, and comes back too late."""
    async with ConfigTrial(folder) as trial:
        async with headquarters(trial.broker.url) as hq:
            # A reader that isn't reached, lest the trial be over before the broker is dead.
            await hq.send("down/config", push_of(2, 2, NOWHERE), retain=True)
            await said(hq, 2, "trying")
        await trial.gateway.until(lambda state: len(state["zones"]) == 2)
        await trial.broker.kill()
        await trial.gateway.until(lambda state: len(state["zones"]) == 3, TRIAL_S)
        await trial.broker.start()
        async with headquarters(trial.broker.url) as hq:
            told = await said(hq, 2, "rolled_back")
        assert told["running"] == 1
        await trial.back()
    return str(told["reason"])


async def killed(folder: Path) -> str:
    """The service is killed while it tries the pushed configuration: it does not try it a second time."""
    async with ConfigTrial(folder) as trial, headquarters(trial.broker.url) as hq:
        await hq.send("down/config", push_of(2, 2, NOWHERE), retain=True)
        await said(hq, 2, "trying")
        await trial.gateway.until(lambda state: len(state["zones"]) == 2)
        trial.gateway.end(signal.SIGKILL)
        trial.gateway.start("--no-web")
        told = await said(hq, 2, "rolled_back")
        assert told["running"] == 1
        await trial.back()
    return str(told["reason"])


async def test_pushed_configurations_that_fail_are_rolled_back(tmp_path: Path, tell: Callable[[str], None]) -> None:
    reasons = await asyncio.gather(no_reader(tmp_path / "a"), no_broker(tmp_path / "b"), killed(tmp_path / "c"))
    assert "no reader" in reasons[0]
    assert "the broker" in reasons[1]
    assert "ended during the trial" in reasons[2]
    tell(f"rolled back to what ran before, 3 of 3: {'; '.join(reasons)}")
