"""The log as Parquet files for a data lake: by class and hour of commit, each event once. Needs the extra `parquet`.

A file is written under another name, made durable and renamed; then the reader's place is, in `_place.json`. A file
that is beyond the place, because the reader died in between, is removed at the next start, and written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from nats.aio.client import Client

from sync.chain.log import LogSettings, SilentError, connect, leave, server_of
from sync.chain.reader import LogEvent, Place, follow

COLUMNS = pa.schema(
    [
        ("store", pa.string()),
        ("epoch", pa.string()),
        ("seq", pa.int64()),
        ("type", pa.string()),
        ("committed", pa.timestamp("us", "UTC")),
        ("payload", pa.string()),
    ]
)
PLACE = "_place.json"
MOST_EVENTS = 50_000
"""Events after which files are written, whatever the time."""
HOUR_US = 3_600_000_000


class _Typed(msgspec.Struct):
    type: str


_TYPE = msgspec.json.Decoder(_Typed)


class InUseError(Exception):
    """Another process writes to this folder."""


class Lake:
    """Folder of Parquet files. Use it as a context manager; one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: Any = None
        self.places: dict[str, Place] = {}
        self._files = 0
        """Files so far, as counted in the place: the next ones get higher numbers."""

    def __enter__(self) -> Lake:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "_lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InUseError(f"another process writes to {self._folder}") from None
        told: dict[str, Any] = {"files": 0, "classes": {}}
        with contextlib.suppress(FileNotFoundError):
            told = json.loads((self._folder / PLACE).read_text("utf-8"))
        self._files = told["files"]
        self.places = {class_: Place.of_json(place) for class_, place in told["classes"].items()}
        for file in self._folder.glob("class=*/date=*/hour=*/*"):
            number = re.fullmatch(r"part-(\d+)\.parquet", file.name)
            if number is None or int(number[1]) > self._files:
                file.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def place(self, class_: str) -> Place:
        """Return the place in a class's stream, to be moved by whoever reads it."""
        return self.places.setdefault(class_, Place())

    def write(self, events: Sequence[LogEvent]) -> None:
        """Write events, and then the places: all or nothing."""
        parts: dict[tuple[str, int], list[LogEvent]] = defaultdict(list)
        for event in events:
            parts[event.class_, event.committed_us // HOUR_US].append(event)
        for (class_, hour), some in sorted(parts.items()):
            self._files += 1
            at = datetime.fromtimestamp(hour * 3600, UTC)
            folder = self._folder / f"class={class_}" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
            folder.mkdir(parents=True, exist_ok=True)
            with _durable(folder / f"part-{self._files:09}.parquet") as path:
                pq.write_table(_table(some), path, compression="zstd")
        told = {"files": self._files, "classes": {class_: one.to_json() for class_, one in self.places.items()}}
        with _durable(self._folder / PLACE) as path:
            path.write_text(json.dumps(told, separators=(",", ":")), "utf-8")


async def copy(
    settings: LogSettings,
    folder: Path,
    classes: Sequence[str],
    shards: Sequence[int] = (),
    *,
    every_s: float = 60.0,
    once: bool = False,
    tell: Callable[[str], None] = lambda error: None,
) -> int:
    """Copy the log into files until cancelled, every `every_s` seconds; `once`: what is there, and return the number of
    events. `tell` is called with what goes wrong meanwhile. Raises InUseError, OSError, nats.errors.Error, ValueError.
    """
    with Lake(folder) as lake:
        waiting: list[LogEvent] = []
        total = 0

        def flush() -> None:
            nonlocal total
            if waiting:
                lake.write(waiting)
                total += len(waiting)
                waiting.clear()

        async def one(client: Client, class_: str) -> None:
            async for messages in follow(client, class_, lake.place(class_), shards, once=once):
                waiting.extend(event for message in messages for event in message.events)
                if len(waiting) >= MOST_EVENTS:
                    flush()

        async def regularly() -> None:
            written_s = time.monotonic()
            while True:
                await asyncio.sleep(min(1.0, every_s))
                if time.monotonic() - written_s >= every_s:
                    flush()
                    written_s = time.monotonic()

        writing = asyncio.create_task(regularly())
        avoid = ""
        try:
            while True:
                client = await connect(settings, "tagtrail-parquet", tell, avoid)
                try:
                    async with asyncio.TaskGroup() as tasks:
                        for class_ in classes:
                            tasks.create_task(one(client, class_))
                    break
                except* SilentError as silent:
                    tell(str(silent.exceptions[0]))
                    avoid = server_of(client)
                finally:
                    await leave(client)
        finally:
            writing.cancel()
            flush()
        return total


def _table(events: Sequence[LogEvent]) -> pa.Table:
    return pa.table(
        {
            "store": [event.store for event in events],
            "epoch": [event.epoch for event in events],
            "seq": [event.seq for event in events],
            "type": [_TYPE.decode(event.payload).type for event in events],
            "committed": [event.committed_us for event in events],
            "payload": [event.payload.decode() for event in events],
        },
        schema=COLUMNS,
    )


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[Path]:
    """Yield a name to write to; then the file gets its own, and outlives a power cut."""
    part = path.with_name(f".{path.name}.part")
    yield part
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
