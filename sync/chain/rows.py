"""Rows that events become beside their JSON: what a CRM team asks for first, in columns.

Tables are appended to, one row an event (a journey: one a stop, too), so that a day's revisions cost no look-up; days
and layouts, which are few, are replaced by later revisions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from sync.chain.decoding import Good

EPOCH = date(1970, 1, 1)
DAY_US = 86_400_000_000
LAST_US = 253_402_300_799_999_999
"""End of the year 9999: later times have no date."""


class Origin(NamedTuple):
    """Where and when an event came in."""

    store: str
    epoch: str
    seq: int
    received_us: int


Rows = dict[str, list[tuple[Any, ...]]]
"""Rows by table."""
Make = Callable[[Any, Origin, Rows], None]

COLUMNS: dict[str, tuple[str, ...]] = {
    "recognition": (
        *("store", "epoch", "seq", "member", "tier", "zone", "floor", "read_us", "expires_us"),
        "received_us",
    ),
    "cue": (
        *("store", "epoch", "seq", "kind", "member", "tier", "zone", "floor", "since_us", "due_us"),
        *("made_us", "expires_us", "rule", "rules_version"),
    ),
    "cue_outcome": ("store", "epoch", "seq", "cue", "member", "outcome", "at_us"),
    "journey": (
        *("business_date", "store", "epoch", "seq", "member", "tag", "tag_class", "start_us", "end_us", "censored"),
        *("def_version", "part", "parts"),
    ),
    "visit": (
        *("business_date", "store", "epoch", "seq", "stop", "member", "tag", "tag_class", "zone", "enter_us"),
        *("exit_us", "reads", "censored", "confidence"),
    ),
    "window_told": (
        *("business_date", "store", "epoch", "seq", "zone", "floor", "tag_class", "window_us", "length_us"),
        *("def_version", "revision", "layout_version", "entered", "ended", "censored", "pass_by", "touch", "visit"),
        *("engaged", "present_us", "peak", "coverage", "histogram", "door_passages", "door_coverage"),
    ),
    "floor_window": (
        *("business_date", "store", "epoch", "seq", "floor", "window_us", "length_us", "member", "unknown", "cart"),
        *("visitors", "present_us", "peak", "coverage", "def_version", "layout_version"),
    ),
}
"""Columns of the tables that are appended to. Those without a business date are partitioned by the day of receipt, by
the database's clock."""
ABOUT = ("trial", "zone", "floor", "tag_class")


def rows_of(events: list[tuple[Good, Origin]]) -> Rows:
    """Return the rows of new events by table; `day_report`, `layout` and `health` hold the latest of each only."""
    made: Rows = defaultdict(list)
    for good, origin in events:
        make = _MAKERS.get(good.type)
        if make is not None:
            make(good.event, origin, made)
        elif hasattr(good.event, "first_day"):
            made["day_report"].append(_day_report(good, origin))
    return made


def day_of(us: int) -> date:
    """Return the date of a time in UTC."""
    return EPOCH + timedelta(days=min(us, LAST_US) // DAY_US)


def date_of(text: str, instead_us: int) -> date:
    """Return a business date, or that of a time, if a store has told one that is no date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return day_of(instead_us)


def today() -> date:
    """Return today's date in UTC."""
    return datetime.now(UTC).date()


def _recognised(event: Any, at: Origin, made: Rows) -> None:
    place = (event.member, event.tier, event.zone, event.floor)
    times = (event.read_us, event.expires_us, at.received_us)
    made["recognition"].append((at.store, at.epoch, at.seq, *place, *times))


def _cue(event: Any, at: Origin, made: Rows) -> None:
    of = (event.kind, event.member, event.tier, event.zone, event.floor)
    times = (event.since_us, event.due_us, event.made_us, event.expires_us)
    made["cue"].append((at.store, at.epoch, at.seq, *of, *times, event.rule, event.rules_version))


def _cue_outcome(event: Any, at: Origin, made: Rows) -> None:
    told = (event.cue, event.member, event.outcome, event.at_us)
    made["cue_outcome"].append((at.store, at.epoch, at.seq, *told))


def _journey(event: Any, at: Origin, made: Rows) -> None:
    key = (date_of(event.business_date, event.start_us), at.store, at.epoch, at.seq)
    who = (event.member, event.tag, event.tag_class)
    when = (event.start_us, event.end_us, event.censored, event.def_version, event.part, event.parts)
    made["journey"].append((*key, *who, *when))
    for number, stop in enumerate(event.stops, 1):
        seen = (stop.enter_us, stop.exit_us, stop.reads, stop.censored, stop.confidence)
        made["visit"].append((*key, number, *who, stop.zone, *seen))


def _zone_window(event: Any, at: Origin, made: Rows) -> None:
    door = event.door
    made["window_told"].append(
        (
            *(date_of(event.business_date, event.window_us), at.store, at.epoch, at.seq),
            *(event.zone, event.floor, event.tag_class, event.window_us, event.length_us, event.def_version),
            *(event.revision, event.layout_version, event.entered, event.ended, event.censored, event.pass_by),
            *(event.touch, event.visit, event.engaged, event.present_us, event.peak, event.coverage),
            msgspec.json.encode(event.histogram).decode(),
            *((door.passages, door.coverage) if door else (None, None)),
        )
    )


def _floor_window(event: Any, at: Origin, made: Rows) -> None:
    made["floor_window"].append(
        (
            *(date_of(event.business_date, event.window_us), at.store, at.epoch, at.seq),
            *(event.floor, event.window_us, event.length_us, event.member, event.unknown, event.cart),
            *(event.visitors, event.present_us, event.peak, event.coverage, event.def_version, event.layout_version),
        )
    )


def _layout(event: Any, at: Origin, made: Rows) -> None:
    payload = msgspec.json.encode({"name": event.name, "zones": event.zones, "floors": event.floors}).decode()
    made["layout"].append((at.store, event.version, event.floor, event.from_us, payload))


def _gateway(event: Any, at: Origin, made: Rows) -> None:
    examined = None if event.findings is None else msgspec.json.encode(event.findings).decode()
    made["health"].append((at.store, event.at_us, msgspec.json.encode(event).decode(), examined))


def _day_report(good: Good, at: Origin) -> tuple[Any, ...]:
    event = good.event
    about = next((str(getattr(event, name)) for name in ABOUT if hasattr(event, name)), "")
    days = (date_of(event.first_day, event.as_of_us), date_of(event.last_day, event.as_of_us))
    key = (at.store, at.epoch, good.type, about, *days)
    return (*key, event.revision, event.as_of_us, good.raw.decode())


_MAKERS: dict[str, Make] = {
    "recognised": _recognised,
    "cue": _cue,
    "cue_outcome": _cue_outcome,
    "journey": _journey,
    "zone_window": _zone_window,
    "floor_window": _floor_window,
    "layout": _layout,
    "gateway": _gateway,
}
