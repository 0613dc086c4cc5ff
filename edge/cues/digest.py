"""Digest of cues and service cases for a day or a week: for the page, print, terminal and CRM."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from config import StoreConfig
from edge.cues.waits import p95
from edge.database.reader import Past
from edge.store.business_days import business_days

if TYPE_CHECKING:  # see edge.cues.book
    from sync.contract import ServiceDigest

DAY = dt.timedelta(days=1)
ENDS = ("done", "attended", "expired", "open")
CASES = ("opened", "open", "acknowledged", "done", "reviewed")
TELL_DAYS = 35
"""Days not yet reported to the CRM are reported later if they are at most this old."""


@dataclass(frozen=True)
class Line:
    """Cues of one tier or zone."""

    name: str
    arrivals: int
    waits: int
    expired: int
    answer_median_s: float | None


@dataclass(frozen=True)
class CaseLine:
    """A service case of the period: by zone and tier, never by employee."""

    number: int
    at_us: int
    kind: str
    zone: str
    tier: str | None
    state: str
    note: str
    """Latest note."""


@dataclass(frozen=True)
class Digest:
    """Digest of the business days from first_date to last_date."""

    first_date: str
    last_date: str
    as_of_us: int
    complete: bool
    cues: Mapping[str, int]
    outcomes: Mapping[str, int]
    answered: int
    """Number of cues that were acknowledged or done, which answer_median_s is based on."""
    answer_median_s: float | None
    cue_p95_ms: float | None
    """Real time from due to committed over all kinds; None without cues."""
    tiers: tuple[Line, ...]
    zones: tuple[Line, ...]
    cases: Mapping[str, int]
    case_lines: tuple[CaseLine, ...]
    rules_versions: tuple[int, ...]


def digest(past: Past, last: dt.date, days: int, now_us: int) -> Digest:
    """Compute the digest of the `days` business days ending with `last`."""
    span = (past.bounds_us(last - (days - 1) * DAY)[0], past.bounds_us(last)[1])
    rows = past.conn.execute(
        "SELECT kind, tier, zone, state, made_us, answered_us, latency_ms, version FROM cue"
        " WHERE made_us >= ? AND made_us < ?",
        span,
    ).fetchall()
    outcomes = dict.fromkeys(ENDS, 0)
    for row in rows:
        outcomes[row[3] if row[3] in outcomes else "open"] += 1
    answers = [(row[5] - row[4]) / 1e6 for row in rows if row[5] is not None]
    cases = _cases(past.conn, span)
    by_state = dict.fromkeys(CASES, 0) | {"opened": len(cases)}
    for case in cases:
        by_state[case.state] += 1
    return Digest(
        first_date=(last - (days - 1) * DAY).isoformat(),
        last_date=last.isoformat(),
        as_of_us=min(now_us, span[1]),
        complete=now_us >= span[1],
        cues={kind: sum(row[0] == kind for row in rows) for kind in ("arrival", "waiting")},
        outcomes=outcomes,
        answered=len(answers),
        answer_median_s=round(median(answers), 1) if answers else None,
        cue_p95_ms=p95([row[6] for row in rows if row[6] is not None]),
        tiers=_lines(rows, 1),
        zones=_lines(rows, 2),
        cases=by_state,
        case_lines=cases,
        rules_versions=tuple(sorted({row[7] for row in rows})),
    )


def tell(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> int:
    """Report completed business days and weeks to the CRM, each once, in the caller's transaction; return their number.

    A week ends on Sunday. Days without cues and cases are reported too, starting with the first day that had one.
    """
    from sync import outbox

    past = Past(conn, config)
    oldest = conn.execute(
        "SELECT min(at) FROM (SELECT min(made_us) AS at FROM cue UNION ALL SELECT min(at_us) FROM service_case)"
    ).fetchone()[0]
    if oldest is None:
        return 0
    days = business_days(config)
    today = days.date(now_us)
    told = set(conn.execute("SELECT last_date, days FROM digest").fetchall())
    date = max(days.date(oldest), today - TELL_DAYS * DAY)
    events = []
    while date < today:
        for length in (1, 7) if date.weekday() == 6 else (1,):
            if (date.isoformat(), length) not in told:
                events.append(_event(digest(past, date, length, now_us)))
                conn.execute("INSERT INTO digest VALUES (?, ?)", (date.isoformat(), length))
        date += DAY
    conn.execute("DELETE FROM digest WHERE last_date < ?", ((today - 2 * TELL_DAYS * DAY).isoformat(),))
    outbox.append(conn, "health", events)
    return len(events)


def _cases(conn: sqlite3.Connection, span: tuple[int, int]) -> tuple[CaseLine, ...]:
    rows = conn.execute(
        "SELECT id, at_us, kind, zone, tier, state, coalesce((SELECT note FROM case_step"
        " WHERE case_id = service_case.id AND note <> '' ORDER BY id DESC LIMIT 1), '') FROM service_case"
        " WHERE at_us >= ? AND at_us < ? ORDER BY id",
        span,
    )
    return tuple(CaseLine(*row) for row in rows)


def _lines(rows: list[tuple], column: int) -> tuple[Line, ...]:  # type: ignore[type-arg]
    groups: dict[str, list[tuple]] = defaultdict(list)  # type: ignore[type-arg]
    for row in rows:
        groups[row[column]].append(row)
    lines = []
    for name, own in groups.items():
        answers = [(row[5] - row[4]) / 1e6 for row in own if row[5] is not None]
        waits = sum(row[0] == "waiting" for row in own)
        lines.append(
            Line(
                name=name,
                arrivals=len(own) - waits,
                waits=waits,
                expired=sum(row[3] == "expired" for row in own),
                answer_median_s=round(median(answers), 1) if answers else None,
            )
        )
    return tuple(sorted(lines, key=lambda line: (-line.arrivals - line.waits, line.name)))


def _event(found: Digest) -> ServiceDigest:
    from sync.contract import ServiceDigest

    return ServiceDigest(
        first_date=found.first_date,
        last_date=found.last_date,
        cues=dict(found.cues),
        outcomes=dict(found.outcomes),
        answer_median_s=found.answer_median_s,
        cue_p95_ms=found.cue_p95_ms,
        cases=dict(found.cases),
    )
