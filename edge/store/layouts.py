"""Versions of the layout (floors, zones, antennas) that numbers were measured with, recorded and sent to the CRM.

A version is a hash of the layout, so that the same layout keeps its version when a gateway is replaced. Names aren't
part of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from hashlib import blake2b

from config import StoreConfig
from config.model import Name
from sync import outbox
from sync.contract import LayoutFloor, LayoutZone, Words
from sync.contract_days import MAX_LAYOUTS, LayoutInForce

NAME_LENGTH = 300


def version(config: StoreConfig) -> str:
    """Return the version of the layout in a store file."""
    made = (
        [floor.id for floor in config.floors],
        [(zone.id, zone.floor, zone.kind, zone.polygon, zone.neighbours) for zone in config.zones],
        sorted((antenna.zone, antenna.position) for reader in config.readers for antenna in reader.antennas),
    )
    return blake2b(json.dumps(made).encode(), digest_size=6).hexdigest()


def current(conn: sqlite3.Connection) -> str:
    """Return the current layout version; empty before one was recorded."""
    row = conn.execute("SELECT version FROM layout ORDER BY from_us DESC LIMIT 1").fetchone()
    return "" if row is None else str(row[0])


def during(conn: sqlite3.Connection, start_us: int, end_us: int) -> list[LayoutInForce]:
    """Return the layouts in force during a span, in order of time; only the last MAX_LAYOUTS are known."""
    rows = conn.execute(
        "SELECT version, from_us FROM layout WHERE from_us < ? AND from_us >="
        " coalesce((SELECT max(from_us) FROM layout WHERE from_us <= ?), 0) ORDER BY from_us",
        (end_us, start_us),
    ).fetchall()
    return [LayoutInForce(version=version, from_us=from_us) for version, from_us in rows[-MAX_LAYOUTS:]]


def note(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> None:
    """Record the layout from now on; a new one is sent to the CRM."""
    made = version(config)
    if current(conn) == made:
        return
    # A clock that was set back must not put the newest layout before an older one.
    latest = conn.execute("SELECT coalesce(max(from_us) + 1, 0) FROM layout").fetchone()[0]
    from_us = max(now_us, latest)
    conn.execute("INSERT INTO layout VALUES (?, ?)", (from_us, made))
    antennas = Counter(antenna.zone for reader in config.readers for antenna in reader.antennas)
    events = [
        LayoutFloor(
            version=made,
            from_us=from_us,
            floors=len(config.floors),
            floor=floor.id,
            name=_words(floor.name),
            zones=[
                LayoutZone(zone=zone.id, name=_words(zone.name), kind=zone.kind, antennas=antennas[zone.id])
                for zone in config.zones
                if zone.floor == floor.id
            ],
        )
        for floor in config.floors
    ]
    outbox.append(conn, "agg", events)


def _words(name: Name) -> Words:
    zh, en = (name, name) if isinstance(name, str) else (name.zh, name.en)
    return Words(zh=zh[:NAME_LENGTH], en=en[:NAME_LENGTH])
