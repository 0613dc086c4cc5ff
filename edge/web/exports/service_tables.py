"""Cues and service cases as tables. Of zones and tiers: no member and no employee stands in them."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing

from config import StoreConfig
from edge.database.reader import NoDatabase, connect
from edge.store.business_days import business_days
from edge.store.errors import Trouble
from edge.words.languages import named
from edge.words.numbers import local
from edge.words.tables import Cell

COLUMNS: Mapping[str, tuple[str, str]] = {
    "case": ("integer", "Number of the service case."),
    "opened": ("moment", "When it was opened, ISO 8601 in the store's time."),
    "about": ("text", "arrival or waiting: the cue that nobody followed; hand: written down by a manager."),
    "case_state": ("text", "open, acknowledged, done or reviewed."),
    "note": ("text", "Its newest note."),
    "made": ("moment", "When the cue was made, ISO 8601 in the store's time."),
    "outcome": ("text", "done, attended (a badge stayed), expired; or open, acknowledged, snoozed."),
    "rule": ("text", "Rule that made it."),
    "rules_version": ("integer", "Version of the rules."),
    "answered_s": ("number", "From the cue until it was first acknowledged or done, seconds."),
    "took_ms": ("number", "From the read, or the end of the target, to the cue, milliseconds."),
}
CASES = ("case", "opened", "about", "zone", "zone_name", "tier", "case_state", "note")
CUES = (*("made", "about", "zone", "zone_name", "tier", "outcome", "rule", "rules_version", "answered_s", "took_ms"),)
Rows = tuple[tuple[Cell, ...], ...]


def cases(config: StoreConfig, date: dt.date, lang: str) -> Rows:
    """Service cases opened on a business day."""
    name, iso = _words(config, lang)
    rows = _ask(
        config,
        date,
        "SELECT id, at_us, kind, zone, tier, state, (SELECT note FROM case_step WHERE case_id = service_case.id"
        " AND note <> '' ORDER BY id DESC LIMIT 1) FROM service_case WHERE at_us >= ? AND at_us < ? ORDER BY id",
    )
    return tuple((number, iso(at), kind, zone, name(zone), *rest) for number, at, kind, zone, *rest in rows)


def cues(config: StoreConfig, date: dt.date, lang: str) -> Rows:
    """Cues made on a business day."""
    name, iso = _words(config, lang)
    rows = _ask(
        config,
        date,
        "SELECT made_us, kind, zone, tier, state, rule, version, (answered_us - made_us) / 1e6, latency_ms FROM cue"
        " WHERE made_us >= ? AND made_us < ? ORDER BY id",
    )
    return tuple((iso(at), kind, zone, name(zone), *rest) for at, kind, zone, *rest in rows)


def _words(config: StoreConfig, lang: str) -> tuple[Callable[[str], str], Callable[[int], str]]:
    names = {zone.id: named(zone.name, lang) for zone in config.zones}

    def iso(at_us: int) -> str:
        at = local(config, at_us)
        return "" if at is None else at.isoformat(timespec="seconds")

    return lambda zone: names.get(zone, zone), iso


def _ask(config: StoreConfig, date: dt.date, query: str) -> list[tuple]:  # type: ignore[type-arg]
    try:
        with closing(connect(config.database.path)) as conn:
            return conn.execute(query, business_days(config).bounds_us(date)).fetchall()
    except NoDatabase:
        return []
    except sqlite3.Error as error:
        raise Trouble(f"cannot read the database: {error}") from error
