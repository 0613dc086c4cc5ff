"""A compressed week of a store with sixteen readers: each day the broker is cut, readers are switched off and on and
the clock is set; each night the service is restarted. Memory and descriptors stay flat, the database within its quota,
and the CRM has every event once.

`make soak`: a week in an hour. `make soak ARGS="--hours 0.1 --days 0.7"` is a short one; with `--one-run` nothing is
restarted, to see whether what rises levels off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import MosquittoBroker, need_mosquitto
from busy_store import PORTS, READERS, BusyStore, Calendar, started_at
from faketime import FakeTime
from gateways import Gateway, member_card
from slopes import slope

from edge.store.clock import Clock

MEMBERS = 20_000
PER_HOUR = 45.0
QUOTA_MB = 48
SAMPLE_S = 2.0
BEGIN_HOUR = 8
OUTAGE_S, REBOOT_S = 12.0, 6.0
"""Real seconds: half an hour and a quarter of an hour of the store in a week of one hour."""
STEP_S = 2
"""Real seconds by which the clock is set: more than five minutes of the store."""
SETTLES = 0.25
"""Share of a run that is left out of the slopes: caches fill."""
LATER = 0.5
"""… and that is left out to see whether a slope goes on."""


class Soak:
    """The gateway, what is around it, and what is sampled of its processes."""

    def __init__(
        self, gateway: Gateway, broker: MosquittoBroker, folder: Path, hours: float, days: float, *, restarts: bool
    ) -> None:
        self.speed = days * 24 / hours
        now = time.time_ns() // 1000
        # The store's day begins now at eight.
        self.clock = Clock(self.speed, round((self.speed * now - started_at(BEGIN_HOUR)) / (self.speed - 1)))
        self._hours, self._restarts = hours, restarts
        self.store = BusyStore(self.clock, PER_HOUR, MEMBERS)
        self.counts: dict[str, int] = defaultdict(int)
        self.samples: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        self.largest_mb = 0.0
        self.here_then = 0
        """Members in the store when the clock was set: their journeys begin anew."""
        self.lengths_s: dict[int, float] = {}
        self._gateway = gateway
        self._broker = broker
        self._folder = folder
        self._tasks: set[asyncio.Task[None]] = set()
        self._crm: subprocess.Popen[bytes] | None = None
        self._fake = _fake_time(folder)
        self._run = 0
        self._began_s = 0.0
        self._busy = asyncio.Lock()

    @property
    def clock_options(self) -> tuple[str, ...]:
        return "--clock-speed", str(self.speed), "--clock-origin-us", str(self.clock.origin_us)

    async def begin(self) -> None:
        """Start everything."""
        addresses = await self.store.start()
        self._gateway.configure(**store_values(self._broker.url, addresses, self._gateway.database))
        cards = "".join(f"{member_card(n).hex()},M{n:06},A,1,\n" for n in range(MEMBERS))
        (self._folder / "members.csv").write_text(f"epc,member,tier,consent,hint\n{cards}")
        done = self._gateway.run(
            "directory", "import", str(self._folder / "members.csv"), "-c", str(self._gateway.file)
        )
        assert done.returncode == 0, done.stderr
        command = ("crm", "--url", self._broker.url, "--database", str(self._folder / "crm.db"), *self.clock_options)
        with (self._folder / "crm.out").open("wb") as out:
            self._crm = subprocess.Popen([sys.executable, "-m", "edge", *command], stdout=out, stderr=out)
        await self._start()

    async def live_through(self) -> None:
        """Let the days pass."""
        calendar = Calendar(self.clock)
        calendar.daily(12.0, lambda day: self._do(self._cut_broker()))
        for number, hour in enumerate((11.0, 14.5, 18.0)):
            calendar.daily(hour, lambda day, n=number: self._do(self._reboot((5 * day + 3 * n + 1) % READERS)))
        calendar.daily(16.0, lambda day: self._set_clock(STEP_S if day % 2 == 0 else 0))
        calendar.daily(20.0, lambda day: self._do(self._cut_cables(day)))
        if self._restarts:
            calendar.daily(3.0, lambda day: self._do(self._restart()) if day else None)
        walking = asyncio.create_task(self.store.run())
        sampled_s, until_s = 0.0, time.monotonic() + self._hours * 3600
        try:
            while time.monotonic() < until_s:
                await asyncio.sleep(0.1)
                calendar.look()
                assert not walking.done(), walking.result()
                for task in [task for task in self._tasks if task.done()]:
                    task.result()
                    self._tasks.discard(task)
                if time.monotonic() - sampled_s >= SAMPLE_S:
                    sampled_s = time.monotonic()
                    await self._sample()
        finally:
            walking.cancel()
            await asyncio.gather(walking, *self._tasks, return_exceptions=True)

    async def end(self) -> None:
        """Let everything arrive, then stop."""
        self._set_clock(0)
        for _ in range(5):
            await self._gateway.until(self._delivered, within_s=300)
            await self._stop()
            waiting = self._gateway.rows("SELECT sum(next_seq - 1 - acked) FROM outbox_class")
            if waiting == [(0,)]:
                break
            await self._start()
        assert self._crm is not None
        self._crm.send_signal(signal.SIGTERM)
        self._crm.wait(60)
        await self.store.stop()

    def crm(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(f"file:{self._folder}/crm.db?mode=ro", uri=True)) as conn:
            return conn.execute(sql).fetchall()

    def kill(self) -> None:
        if self._crm is not None and self._crm.poll() is None:
            self._crm.kill()

    def _do(self, work: Any) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _cut_broker(self) -> None:
        self.counts["broker cuts"] += 1
        await self._broker.stop()
        await asyncio.sleep(OUTAGE_S)
        await self._broker.start()

    async def _reboot(self, reader: int) -> None:
        self.counts["reader reboots"] += 1
        await self.store.reboot(reader, REBOOT_S)

    async def _cut_cables(self, day: int) -> None:
        self.counts["switch restarts"] += 1
        for reader in self.store.readers:
            reader.cut()

    def _set_clock(self, off_s: int) -> None:
        if self._fake is not None:
            self.counts["clock corrections"] += 1
            self.here_then += len(self.store.here)
            self._fake.set(off_s)

    async def _restart(self) -> None:
        self.counts["restarts"] += 1
        async with self._busy:
            await self._stop()
            await self._start()

    async def _start(self) -> None:
        self._run += 1
        self._began_s = time.monotonic()
        self._gateway.start(*self.clock_options, cold=True, environment=self._fake.environment if self._fake else {})
        await self._gateway.until(lambda state: state["broker"]["connected"] or state["as_of_us"] > 0, within_s=120)

    async def _stop(self) -> None:
        self.lengths_s[self._run] = time.monotonic() - self._began_s
        process = self._gateway.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0, self._gateway.log()

    async def _sample(self) -> None:
        if self._busy.locked():
            return
        process = self._gateway.process
        assert process is not None
        assert process.poll() is None, self._gateway.log()
        second = time.monotonic() - self._began_s
        pids = {"service": process.pid}
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                if b"edge.web" in Path(f"/proc/{child}/cmdline").read_bytes():
                    pids["page"] = int(child)
        for name, pid in pids.items():
            with contextlib.suppress(OSError, IndexError):
                self.samples[f"{name}, MiB"][self._run].append((second, _rss_mib(pid)))
                self.samples[f"{name}, files"][self._run].append((second, len(os.listdir(f"/proc/{pid}/fd"))))
                self.samples[f"{name}, threads"][self._run].append((second, len(os.listdir(f"/proc/{pid}/task"))))
        self.largest_mb = max(self.largest_mb, self._gateway.database.stat().st_size / 2**20)

    @staticmethod
    def _delivered(state: dict[str, Any]) -> bool:
        return bool(state["outbox"]) and not any(depth["pending"] for depth in state["outbox"].values())


async def test_a_week(
    gateway: Gateway, tmp_path: Path, request: pytest.FixtureRequest, tell: Callable[[str], None]
) -> None:
    need_mosquitto()
    hours, days = request.config.getoption("--hours"), request.config.getoption("--days")
    assert days * 24 / hours >= 10, "at least ten times as fast as real time"
    broker = MosquittoBroker(tmp_path / "mosquitto")
    await broker.start()
    assert gateway.run("warmup", within_s=1200).returncode == 0
    soak = Soak(gateway, broker, tmp_path, hours, days, restarts=not request.config.getoption("--one-run"))
    try:
        await soak.begin()
        await soak.live_through()
        await soak.end()
    finally:
        soak.kill()
        await soak.store.stop()
        await broker.stop()

    names = ("member", "journey", "agg", "health")
    given = {names[n]: seq for n, seq in gateway.rows("SELECT class, next_seq - 1 FROM outbox_class")}
    there = {
        class_: (low, high, count)
        for class_, low, high, count in soak.crm("SELECT class, min(seq), max(seq), count(*) FROM event GROUP BY class")
    }
    recognised = soak.crm("SELECT count(*) FROM event WHERE json_extract(payload, '$.type') = 'recognised'")[0][0]
    stored = sum(count for _, _, count in there.values())
    tell(f"{days:g} days in {hours:g} h ({soak.speed:.0f} × real time), {READERS} readers")
    tell(f"{soak.store.came:,} members came, {soak.store.pushed:,} reads")
    tell(", ".join(f"{n} {what}" for what, n in sorted(soak.counts.items())))
    tell(f"events: {sum(given.values()):,} numbered, {stored:,} at the CRM; {recognised:,} recognitions")
    tell(f"database: {soak.largest_mb:.1f} MB at most, quota {QUOTA_MB} MB; {len(gateway_log(gateway))} lines of log")
    rises = []
    for what, runs in sorted(soak.samples.items()):
        found = slope(runs, SETTLES * max(soak.lengths_s.values()))
        later = slope(runs, LATER * max(soak.lengths_s.values()))
        tell(
            f"{what}: {found.per_hour:+.2f} ± {found.within:.2f} an hour, in the second half "
            f"{later.per_hour:+.2f} ± {later.within:.2f}; {found.first:.1f} → {found.last:.1f} in a run"
        )
        # What settles rises in the first half of a run, what leaks in the second as well.
        if later.rises and later.last - later.first > (5 if what.endswith("MiB") else 3):
            rises.append(what)
    assert there == {class_: (1, n, n) for class_, n in given.items() if n}
    assert soak.largest_mb <= QUOTA_MB
    # Where the clock is set by minutes, journeys begin anew; who comes just then counts, too.
    assert 0.97 * soak.store.came <= recognised <= soak.store.came + 3 * soak.here_then
    assert not rises


def gateway_log(gateway: Gateway) -> list[str]:
    return (gateway.folder / "service.log").read_text(errors="replace").splitlines()


def store_values(url: str, addresses: list[str], database: Path) -> dict[str, Any]:
    """Thirty counters in a row, and a door at either side; each antenna has its own zone."""
    count = READERS * PORTS
    zones: list[dict[str, Any]] = [
        {
            "id": f"z{n:02}", "name": f"z{n:02}", "floor": "F1",
            "kind": "entrance" if n == 0 else "exit" if n == 1 else "counter",
            "polygon": [[8 * (n % 8), 8 * (n // 8)], [8 * (n % 8) + 6, 8 * (n // 8)],
                        [8 * (n % 8) + 6, 8 * (n // 8) + 6], [8 * (n % 8), 8 * (n // 8) + 6]],
        }
        for n in range(count)
    ]  # fmt: skip
    readers = [
        {
            "id": f"r{n:02}", "driver": "llrp", "address": address,
            "antennas": [
                {"port": port, "zone": f"z{PORTS * n + port - 1:02}",
                 "position": [value + 3 for value in zones[PORTS * n + port - 1]["polygon"][0]]}
                for port in range(1, PORTS + 1)
            ],
        }
        for n, address in enumerate(addresses)
    ]  # fmt: skip
    return {
        "mqtt": {"url": url},
        "zones": zones,
        "readers": readers,
        "database": {"path": str(database), "quota_mb": QUOTA_MB},
        "thresholds": {"lateness_s": 60, "journey_end_after_exit_s": 900, "journey_end_silence_s": 5400},
    }


def _fake_time(folder: Path) -> FakeTime | None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return FakeTime(found[0], folder, 0) if found else None


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
