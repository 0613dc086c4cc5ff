"""A chain's headquarters as processes: sinks and a reader of the log, to be killed or cut off while herds send."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from brokers import Until
from chains import counted, in_the_log
from herds import Herd

from sync.chain.ledger import connect, feed_again
from sync.contract import EventClass

ROOT = Path(__file__).parents[2]


class Part:
    """A program that is killed and started again."""

    def __init__(self, log: Path, *command: str) -> None:
        self._log, self._command = log, command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> None:
        self.kill()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(command or self._command)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Chain:
    """Two sinks for each lane, and a reader, on the cell's broker, a database and the log's `servers`."""

    def __init__(self, folder: Path, database: str, cell: str, servers: str) -> None:
        self.database, self.cell, self.servers = database, cell, servers
        self.arguments = [
            *("chain", "sink", "--broker", cell, "--database", database),
            *("--log", servers, "--replicas", "3", "--log-gib", "1"),
        ]
        self.sinks = [
            Part(folder / f"{lane}-{n}.log", "-m", "edge", *self.arguments, "--lane", lane)
            for lane in ("member", "bulk")
            for n in (1, 2)
        ]
        self.lake = folder / "lake"
        self._read = ("-m", "edge", "chain", "read", "--log", servers, "--to", f"parquet:{self.lake}")
        self.reader = Part(folder / "reader.log", *self._read, "--every", "2")

    def start(self) -> None:
        for part in (*self.sinks, self.reader):
            part.start()

    def close(self) -> None:
        for part in (*self.sinks, self.reader):
            part.kill()

    def messages_read(self) -> int:
        """Messages of the log that the reader has dealt with, by the place that it has written."""
        place = self.lake / "_place.json"
        told = json.loads(place.read_text()) if place.exists() else {"classes": {}}
        return sum(one["sequence"] for one in told["classes"].values())

    async def everything_is_there_once(
        self, stores: int, events: Mapping[EventClass, tuple[int, int]], until: Until, fed_again: bool = False
    ) -> str:
        """Count what herds have sent, in PostgreSQL and, once the log has all of it, in the reader's files."""
        with connect(self.database) as conn:
            found = counted(conn)
            for class_, (n, _) in events.items():
                sent = stores * n
                wanted = {"rows": sent, "received": sent, "upto": sent, "lost": 0, "dead": 0}
                assert {name: found[class_][name] for name in wanted} == wanted, class_
            await until(lambda: in_the_log(conn), within_s=120)
            if fed_again:
                feed_again(conn, 0)
                await until(lambda: in_the_log(conn), within_s=120)
        self.reader.kill()
        last = [sys.executable, *self._read, "--once"]
        await asyncio.to_thread(subprocess.run, last, cwd=ROOT, check=True, timeout=120)
        held = in_files(self.lake)
        total = stores * sum(n for n, _ in events.values())
        assert set(held.values()) == {1}
        assert len(held) == total
        repeats = sum(numbers["duplicates"] for numbers in found.values())
        return (
            f"{total:,} of {total:,} events once in PostgreSQL and once at the log's reader, "
            f"{repeats:,} repetitions absorbed"
        )


def herds(url: str, stores: int, events: Mapping[EventClass, tuple[int, int]], seconds: float) -> list[Herd]:
    """Stores that send `events` of each class, so many in a batch, spread over some seconds."""
    names = [f"c{n:03}" for n in range(stores)]
    return [Herd(url, names, [class_], n, of, per_s=stores * n / of / seconds) for class_, (n, of) in events.items()]


def in_files(lake: Path) -> Counter[tuple[str, str, int]]:
    """How often a reader's files hold each event: class, store and number."""
    import pyarrow.parquet as pq

    held: Counter[tuple[str, str, int]] = Counter()
    for file in lake.glob("class=*/**/*.parquet"):
        of = file.relative_to(lake).parts[0].removeprefix("class=")
        for row in pq.read_table(file, partitioning=None).to_pylist():
            assert json.loads(row["payload"])["id"] == f"{row['store']}/{row['epoch']}/{of}/{row['seq']}"
            held[of, row["store"], row["seq"]] += 1
    return held
