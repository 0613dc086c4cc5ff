"""Store cues, cue rules and service cases. All functions run within the caller's transaction.

Life of a cue; the labels of the arrows are the outcomes sent to the CRM.

    open ──acknowledged──► acknowledged ──done──► done
      ├──snoozed──► snoozed (open again by itself) │
      ├──done──► done                              │
      ├──attended, from each of the three──► attended: a staff badge stayed in the member's zone
      └──expired,  from each of the three──► expired, and a service case is opened
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from config.model import CueKind, CueRule, Cues

if TYPE_CHECKING:  # the page only reads cues and does not need the contract, which takes several MiB
    from sync.contract import Cue

State = Literal["open", "snoozed", "acknowledged", "done", "attended", "expired"]
STATES: tuple[State, ...] = ("open", "acknowledged", "snoozed", "done", "attended", "expired")
GOING: tuple[State, ...] = STATES[:3]
CaseState = Literal["open", "acknowledged", "done", "reviewed"]
CASE_STEPS: dict[CaseState, tuple[CaseState, ...]] = {
    "open": ("acknowledged", "done"),
    "acknowledged": ("done",),
    "done": ("reviewed", "open"),
    "reviewed": (),
}
"""Allowed transitions of a case. A case that was closed too early can be reopened."""
MAX_NOTE = 300


class Refused(Exception):
    """Raised when a request can no longer be carried out; `why` is gone, stale or unknown."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Wanted:
    """A cue to be created."""

    kind: CueKind
    tag: bytes
    greeted_us: int
    member: str
    tier: str
    zone: str
    floor: str
    since_us: int
    due_us: int
    rule: CueRule


@dataclass(frozen=True)
class Going:
    """A cue that has not ended."""

    id: int
    kind: CueKind
    tag: bytes
    greeted_us: int
    member: str
    tier: str
    zone: str
    since_us: int
    due_us: int
    made_us: int
    expires_us: int
    rule: str
    version: int
    action: str | None
    ttl_us: int
    state: State
    until_us: int | None
    who: str | None


@dataclass(frozen=True)
class Rules:
    """A version of the cue rules."""

    version: int
    cues: Cues
    at_us: int
    who: str
    what: str


_GOING = ", ".join(Going.__dataclass_fields__)


def going(conn: sqlite3.Connection) -> tuple[Going, ...]:
    """Return all cues that have not ended, oldest first."""
    query = f"SELECT {_GOING} FROM cue WHERE state IN ('open', 'snoozed', 'acknowledged') ORDER BY id"
    return tuple(Going(*row) for row in conn.execute(query))


def make(conn: sqlite3.Connection, wanted: Iterable[Wanted], version: int, now_us: int) -> list[int]:
    """Create cues, except those already created in the same journey or already expired; return the new ids."""
    fresh: dict[tuple[bytes, int, str], Wanted] = {}
    for one in wanted:
        key = (one.tag, one.greeted_us, one.kind)
        there = conn.execute("SELECT 1 FROM cue WHERE tag = ? AND greeted_us = ? AND kind = ?", key).fetchone()
        if there is None and _expires_us(one) > now_us:
            fresh.setdefault(key, one)
    if not fresh:
        return []
    from sync import outbox

    numbers = outbox.append(conn, "member", [_event(one, version, now_us) for one in fresh.values()])
    conn.executemany(
        "INSERT INTO cue (id, kind, tag, greeted_us, member, tier, zone, since_us, due_us, made_us, expires_us, rule,"
        " version, action, ttl_us, state, changed_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', ?)",
        [
            (
                *(number, one.kind, one.tag, one.greeted_us, one.member, one.tier, one.zone),
                *(one.since_us, one.due_us, now_us, _expires_us(one), one.rule.id, version),
                *(_action(one.rule), round(one.rule.expires_s * 1e6), now_us),
            )
            for number, one in zip(numbers, fresh.values(), strict=True)
        ],
    )
    return list(numbers)


def acknowledge(conn: sqlite3.Connection, id_: int, who: str, within_us: int, now_us: int) -> None:
    """Acknowledge a cue: someone will be there within `within_us`; the cue then stays open for the rule's lifetime."""
    cue = _get(conn, id_)
    if cue.state == "acknowledged":
        raise Refused("gone")
    _move(conn, cue, "acknowledged", now_us, who, now_us + within_us, now_us + within_us + cue.ttl_us)


def snooze(conn: sqlite3.Connection, id_: int, who: str, for_us: int, now_us: int) -> None:
    """Snooze a cue for `for_us`; its lifetime is extended by the same time."""
    cue = _get(conn, id_)
    if cue.state != "open":
        raise Refused("gone")
    _move(conn, cue, "snoozed", now_us, who, now_us + for_us, cue.expires_us + for_us)


def done(conn: sqlite3.Connection, id_: int, who: str, now_us: int) -> None:
    """Mark a cue as done: someone has attended to the member."""
    _move(conn, _get(conn, id_), "done", now_us, who)


def attended(conn: sqlite3.Connection, ids: Sequence[int], now_us: int) -> None:
    """Mark cues as attended because a staff badge stayed with the member; cues that have ended are not changed."""
    for cue in _still(conn, ids):
        _move(conn, cue, "attended", now_us, None)


def expire(conn: sqlite3.Connection, ids: Sequence[int], now_us: int) -> None:
    """Mark cues as expired and open a service case for each."""
    for cue in _still(conn, ids):
        if cue.expires_us <= now_us:
            _move(conn, cue, "expired", now_us, None)
            open_case(conn, cue.kind, cue.zone, cue.tier, cue.id, "", "", now_us)


def wake(conn: sqlite3.Connection, ids: Sequence[int], now_us: int) -> None:
    """Reopen cues whose snooze time is over."""
    conn.executemany(
        "UPDATE cue SET state = 'open', changed_us = ?, until_us = NULL WHERE id = ? AND state = 'snoozed'"
        " AND until_us <= ?",
        [(now_us, id_, now_us) for id_ in ids],
    )


def withdraw(conn: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete cues of members who were removed from the directory or withdrew their consent."""
    conn.executemany("DELETE FROM cue WHERE id = ?", [(id_,) for id_ in ids])


def note_latencies(conn: sqlite3.Connection, latencies_ms: Iterable[tuple[int, float]]) -> None:
    """Store the latencies of cues as (id, milliseconds)."""
    conn.executemany("UPDATE cue SET latency_ms = ? WHERE id = ?", [(round(ms, 1), id_) for id_, ms in latencies_ms])


# Service cases.


def open_case(
    conn: sqlite3.Connection,
    kind: str,
    zone: str,
    tier: str | None,
    cue: int | None,
    who: str,
    note: str,
    now_us: int,
) -> int:
    """Open a case and return its number."""
    query = (
        "INSERT INTO service_case (at_us, kind, cue, zone, tier, state, changed_us) VALUES (?, ?, ?, ?, ?, 'open', ?)"
    )
    number = conn.execute(query, (now_us, kind, cue, zone, tier, now_us)).lastrowid
    assert number is not None
    _step(conn, number, "open", who, note, now_us)
    return number


def move_case(conn: sqlite3.Connection, number: int, to: CaseState, who: str, note: str, now_us: int) -> None:
    """Move a case to its next state."""
    row = conn.execute("SELECT state FROM service_case WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise Refused("unknown")
    if to not in CASE_STEPS[row[0]]:
        raise Refused("gone")
    conn.execute("UPDATE service_case SET state = ?, changed_us = ? WHERE id = ?", (to, now_us, number))
    _step(conn, number, to, who, note, now_us)


# Rules.


def newest(conn: sqlite3.Connection) -> Rules:
    """Return the current version of the rules; version 0 has no rules."""
    return next(iter(versions(conn, 1)), Rules(0, Cues(), 0, "", ""))


def versions(conn: sqlite3.Connection, limit: int = 50) -> tuple[Rules, ...]:
    """Return the latest versions, newest first."""
    rows = conn.execute(
        "SELECT version, rules, at_us, who, what FROM cue_rules ORDER BY version DESC LIMIT ?", (limit,)
    )
    return tuple(Rules(version, Cues.model_validate_json(text), *rest) for version, text, *rest in rows)


def version(conn: sqlite3.Connection, number: int) -> Rules:
    row = conn.execute("SELECT version, rules, at_us, who, what FROM cue_rules WHERE version = ?", (number,)).fetchone()
    if row is None:
        raise Refused("unknown")
    return Rules(row[0], Cues.model_validate_json(row[1]), *row[2:])


def adopt(conn: sqlite3.Connection, cues: Cues, now_us: int) -> Rules:
    """Adopt the store file's rules as the newest version if they have changed there since the last start."""
    text = cues.model_dump_json()
    # Without defaults, so that a later release with more keys does not mistake the same file for a changed one.
    mark = sha256(cues.model_dump_json(exclude_defaults=True).encode()).hexdigest()
    last = conn.execute("SELECT file FROM cue_rules WHERE file IS NOT NULL ORDER BY version DESC LIMIT 1").fetchone()
    if (last is None and cues != Cues()) or (last is not None and last[0] != mark):
        return _add(conn, text, "", "", now_us, mark)
    return newest(conn)


def change(conn: sqlite3.Connection, cues: Cues, base: int, who: str, what: str, now_us: int) -> Rules:
    """Save new rules based on version `base`; refused if there is a newer version."""
    if newest(conn).version != base:
        raise Refused("stale")
    return _add(conn, cues.model_dump_json(), who, what, now_us, None)


def _add(conn: sqlite3.Connection, text: str, who: str, what: str, now_us: int, mark: str | None) -> Rules:
    conn.execute(
        "INSERT INTO cue_rules (at_us, who, what, rules, file) VALUES (?, ?, ?, ?, ?)", (now_us, who, what, text, mark)
    )
    return newest(conn)


def _get(conn: sqlite3.Connection, id_: int) -> Going:
    row = conn.execute(f"SELECT {_GOING} FROM cue WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise Refused("unknown")
    cue = Going(*row)
    if cue.state not in GOING:
        raise Refused("gone")
    return cue


def _still(conn: sqlite3.Connection, ids: Sequence[int]) -> list[Going]:
    wanted = set(ids)
    return [cue for cue in going(conn) if cue.id in wanted]


def _move(
    conn: sqlite3.Connection,
    cue: Going,
    to: State,
    now_us: int,
    who: str | None,
    until_us: int | None = None,
    expires_us: int | None = None,
) -> None:
    from sync import outbox
    from sync.contract import CueOutcome, event_id

    answered = now_us if to in ("acknowledged", "done") else None
    conn.execute(
        "UPDATE cue SET state = ?, changed_us = ?, who = coalesce(?, who), until_us = ?, expires_us = ?,"
        " answered_us = coalesce(answered_us, ?) WHERE id = ?",
        (to, now_us, who, until_us, expires_us or cue.expires_us, answered, cue.id),
    )
    facts = dict(conn.execute("SELECT name, value FROM fact WHERE name IN ('store', 'epoch')"))
    outcome = CueOutcome.model_validate(
        {
            "cue": event_id(facts["store"], facts["epoch"], "member", cue.id),
            "member": cue.member,
            "outcome": to,
            "at_us": now_us,
            "until_us": until_us,
        }
    )
    outbox.append(conn, "member", [outcome])


def _step(conn: sqlite3.Connection, number: int, state: str, who: str, note: str, now_us: int) -> None:
    conn.execute(
        "INSERT INTO case_step (case_id, at_us, state, who, note) VALUES (?, ?, ?, ?, ?)",
        (number, now_us, state, who, note[:MAX_NOTE]),
    )


def _event(one: Wanted, version: int, now_us: int) -> Cue:
    from sync.contract import Cue, Words

    action = _action(one.rule)
    return Cue(
        kind=one.kind,
        member=one.member,
        tier=one.tier,
        zone=one.zone,
        floor=one.floor,
        since_us=one.since_us,
        due_us=one.due_us,
        made_us=now_us,
        expires_us=_expires_us(one),
        action=None if action is None else Words.model_validate_json(action),
        rule=one.rule.id,
        rules_version=version,
    )


def _expires_us(one: Wanted) -> int:
    return one.due_us + round(one.rule.expires_s * 1e6)


def _action(rule: CueRule) -> str | None:
    if rule.action is None:
        return None
    zh, en = (rule.action, rule.action) if isinstance(rule.action, str) else (rule.action.zh, rule.action.en)
    return json.dumps({"zh": zh[:300], "en": en[:300]}, ensure_ascii=False)
