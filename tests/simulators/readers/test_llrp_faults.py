"""Faults and wrong clocks of the simulated LLRP reader, by name: each is what it says, and our session survives it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest
from brokers import Until
from forked import Forked
from llrp_peers import QUICK, now_us, session
from typer.testing import CliRunner

from drivers.session import Link
from simulators.cli import Fault, simulate
from simulators.readers import llrp_faults
from simulators.readers.llrp import LlrpReader
from simulators.readers.llrp_faults import NAMES, Faults, WrongClock
from simulators.readers.observation import Observation

EPC = bytes.fromhex("2d14257bf4499602d2000000")


def test_the_faults_of_the_command_are_those_there_are() -> None:
    assert list(Fault) == list(NAMES)


@pytest.mark.parametrize(
    ("clock", "before_us", "after_us"),
    [
        (WrongClock(lambda: 0, offset_s=-1), 0, 9_000_000),
        (WrongClock(lambda: 0, offset_s=3), 3_000_000, 13_000_000),
        (WrongClock(lambda: 0, drift_ppm=100), 0, 10_001_000),
        (WrongClock(lambda: 0, from_2000=True), 946_684_800_000_000, 946_684_810_000_000),
        (WrongClock(lambda: 0, uptime=True), 0, 10_000_000),
    ],
)
def test_a_wrong_clock(clock: WrongClock, before_us: int, after_us: int) -> None:
    assert clock() == before_us
    clock.true_us = lambda: 10_000_000
    assert clock() == after_us


async def feed(reader: LlrpReader, clock: WrongClock) -> None:
    while True:
        reader.push([Observation(clock(), 1, EPC, -5500)])
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", NAMES)
async def test_a_session_reads_again_after_each_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llrp_faults, "SILENT_S", 4 * QUICK.keepalive_s)
    monkeypatch.setattr(llrp_faults, "OFF_S", 0.2)
    clock = WrongClock(now_us)
    reader = LlrpReader(clock)
    port = int((await reader.start()).rpartition(":")[2])
    feeding = asyncio.create_task(feed(reader, clock))
    try:
        async with session(port) as sink:
            await sink.until(lambda: len(sink.all) >= 5, 30)
            await NAMES[name](Faults(reader, clock))
            if name in ("cut", "silent", "half-message", "bogus-length", "reboot", "inventory-ends", "inventory-lost"):
                await sink.until(lambda: Link.DOWN in sink.links, 30)
            if name == "odd-reports":
                await sink.until(lambda: {496, 96} <= set(sink.all["epc_bits"].tolist()), 30)
                await sink.until(lambda: 5374 in sink.all["count"].tolist(), 30)
                counters = sink.session.counters
                assert counters["unknown_tv"]
                assert counters["broken_message"]
                assert Link.DOWN not in sink.links
            if name == "events":
                await sink.until(lambda: len(sink.notices) >= 2 and bool(sink.gaps), 30)
            seen = len(sink.all)
            await sink.until(lambda: len(sink.all) > seen + 20 and sink.links[-1] is Link.UP, 60)
            # Whatever the reader's clock does, what is read now is of now.
            await sink.until(lambda: abs(int(sink.batches[-1]["time_us"].max()) - now_us()) < 3_000_000, 60)
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await reader.stop()


@pytest.mark.parametrize("more", [["--uptime"], ["--from-2000", "--drift", "200"], ["--clock-offset", "-7200"]])
async def test_the_command_gives_a_reader_that_has_them(more: list[str], tmp_path: Path, until: Until) -> None:
    said = tmp_path / "out"
    with said.open("wb") as out:
        process = Forked("simulate", "reader", "--port", 0, "--rate", 100, "--gpi", 0.2, *more, out=out)
    try:
        await until(lambda: "\n" in said.read_text())
        line = said.read_text().splitlines()[0]
        async with session(int(line.rpartition(":")[2]), inputs=(1,)) as sink:
            await sink.until(lambda: len(sink.all) >= 50 and len(sink.contacts) >= 3, 30)
        assert np.abs(sink.all["time_us"] - now_us()).max() < 60_000_000
        assert abs(sink.contacts[-1].at_us - now_us()) < 60_000_000
        offset_us = [status.clock_offset_us for status in sink.statuses if status.link is Link.UP][-1]
        if "--uptime" in more:
            assert offset_us is None
        else:
            assert offset_us is not None
            assert abs(offset_us) > 7_000_000_000
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait)
    assert code == 0


@pytest.mark.parametrize(
    "options", [["--family", "r2000", "--fault", "cut"], ["--garbage", "0.1"], ["--uptime", "--from-2000"]]
)
def test_what_does_not_go_together_is_told(options: list[str]) -> None:
    done = CliRunner().invoke(simulate, ["reader", *options])
    assert done.exit_code == 2
    assert "Invalid value" in done.output
