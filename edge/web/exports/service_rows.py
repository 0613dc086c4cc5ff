"""Rows for the cues and service cases of business days, by zone and tier, without members or employees."""

from __future__ import annotations

from typing import NamedTuple

from edge.database.reader import Past
from edge.days.period import Days


class CaseRow(NamedTuple):
    """A service case with its latest note."""

    number: int
    at_us: int
    kind: str
    zone: str
    tier: str | None
    state: str
    note: str | None


class CueRow(NamedTuple):
    """A cue and its outcome."""

    made_us: int
    kind: str
    zone: str
    tier: str
    state: str
    rule: str
    version: int
    answered_s: float | None
    latency_ms: float | None


def cases(past: Past, period: Days) -> list[CaseRow]:
    """Return the service cases opened on business days."""
    rows = past.conn.execute(
        "SELECT id, at_us, kind, zone, tier, state, (SELECT note FROM case_step WHERE case_id = service_case.id"
        " AND note <> '' ORDER BY id DESC LIMIT 1) FROM service_case WHERE at_us >= ? AND at_us < ? ORDER BY id",
        (past.bounds_us(period.first)[0], past.bounds_us(period.last)[1]),
    )
    return [CaseRow(*row) for row in rows]


def cues(past: Past, period: Days) -> list[CueRow]:
    """Return the cues created on business days."""
    rows = past.conn.execute(
        "SELECT made_us, kind, zone, tier, state, rule, version, (answered_us - made_us) / 1e6, latency_ms FROM cue"
        " WHERE made_us >= ? AND made_us < ? ORDER BY id",
        (past.bounds_us(period.first)[0], past.bounds_us(period.last)[1]),
    )
    return [CueRow(*row) for row in rows]
