"""What is held when the service is stopped before the time is known: a row of the database for the next start.

The monotonic clock counts from the machine's start, so the row is of use to a service on the same boot only.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from drivers.read import READ
from drivers.session import Contact, Gap, Link, Notice, ReaderStatus
from edge.forwarding.relay import Mark
from edge.intake.inbox import Item

LEVEL = 1
HeldItem = tuple[int, int, Item]
"""Monotonic time and store time of the arrival, and what arrived."""
_KINDS = {kind.__name__: kind for kind in (Contact, Gap, Mark, Notice, ReaderStatus)}


def save(conn: sqlite3.Connection, boot: str, items: Iterable[HeldItem]) -> None:
    """Keep items for the next start, in the caller's transaction."""
    events: list[tuple[int, int, str, Any]] = []
    packer, packed = zlib.compressobj(LEVEL), []
    for mono_us, store_us, item in items:
        if isinstance(item, tuple):
            reader, batch = item
            events.append((mono_us, store_us, "reads", [reader, len(batch)]))
            packed.append(packer.compress(np.ascontiguousarray(batch).tobytes()))
        else:
            told = {name: _plain(value) for name, value in asdict(item).items()}
            events.append((mono_us, store_us, type(item).__name__, told))
    packed.append(packer.flush())
    conn.execute("DELETE FROM held")
    conn.execute("INSERT INTO held VALUES (?, ?, ?)", (boot, json.dumps(events), b"".join(packed)))


def take(conn: sqlite3.Connection, boot: str) -> tuple[list[HeldItem], int]:
    """Take what was kept out of the database: the items, and the number of reads that can't be placed any more."""
    row = conn.execute("SELECT boot, events, reads FROM held").fetchone()
    if row is None:
        return [], 0
    conn.execute("DELETE FROM held")
    events = json.loads(row[1])
    if row[0] != boot:
        return [], sum(told[1] for _, _, kind, told in events if kind == "reads")
    return list(_items(events, np.frombuffer(zlib.decompress(row[2]), READ))), 0


def _items(events: list[Any], reads: Any) -> Iterator[HeldItem]:
    at = 0
    for mono_us, store_us, kind, told in events:
        if kind == "reads":
            reader, n = told
            yield mono_us, store_us, (reader, reads[at : at + n].copy())
            at += n
        else:
            if kind == ReaderStatus.__name__:
                told |= {"link": Link(told["link"]), "inputs": frozenset(told["inputs"])}
            yield mono_us, store_us, _KINDS[kind](**told)


def _plain(value: Any) -> Any:
    if isinstance(value, Link):
        return value.value
    return sorted(value) if isinstance(value, frozenset) else value
