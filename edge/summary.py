"""A business day in numbers, from the database: what `tagtrail summary` prints and the page "Today" shows.

Everything is a pure function of a read-only connection and the store file. People are carriers of member tags and of
tags of no known class; carts are counted apart, staff and merchandise not at all, nor suspected staff and stuck tags.
A number that nobody measured is None, never zero: `coverage` says which share of the opening time that has passed the
readers of a place were up.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from config import StoreConfig
from edge.errors import Trouble
from edge.people import business_days
from edge.reading import connect

WINDOW_US = 900_000_000
"""Windows of the table `aggregate`, which knows the coverage."""
TAG_CLASSES = ("unknown", "member", "cart", "staff", "merchandise")
"""Names of the numbers in `tag_class`: dwell.layout.TagClass, without its NumPy, which the page can do without."""
COUNTED = ("member", "unknown", "cart")


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of a floor; `entered` is None where nothing was measured: not yet come, or no reader up."""

    start_us: int
    entered: Mapping[str, int] | None
    """Class → times that a carrier came to the floor, from outside or from another floor."""
    coverage: float | None
    """0..1 of the windows that ended; None while none of the hour's windows has."""
    state: str
    """measured · unknown (no reader was up) · future."""


@dataclass(frozen=True)
class FloorTraffic:
    """Comings to one floor."""

    floor: str
    entered: Mapping[str, int] | None
    coverage: float | None
    hours: tuple[Hour, ...]


@dataclass(frozen=True)
class ZoneDwell:
    """People's visits to one zone that began on the day, in windows in which it was known; None where it never was."""

    zone: str
    floor: str
    kind: str
    n: int | None
    """Visits whose both ends were seen: the ones in bands, median and p75."""
    censored: int
    """Visits not fully seen."""
    cart_visits: int | None
    median_s: float | None
    """Of small_cell visits or more; from a histogram, off by 4.9 % at most."""
    p75_s: float | None
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    coverage: float | None


@dataclass(frozen=True, slots=True)
class Flow:
    """Journeys of people that went straight from one zone to another, `n` times."""

    from_zone: str
    to_zone: str
    n: int


@dataclass(frozen=True)
class Flows:
    """Transitions between consecutive visits of people's journeys."""

    links: tuple[Flow, ...]
    """Most walked first; only those that at least `small_cell` journeys walked."""
    n: int
    """All transitions, the suppressed ones included."""
    suppressed_links: int
    suppressed_n: int
    unseen: int
    """Transitions left out because the visit before or after was not fully seen."""


@dataclass(frozen=True)
class DoorCount:
    """What a door counter counted: passages in either direction, of anybody, tag or not."""

    zone: str
    reader: str
    port: int
    passages: int | None
    """None where it was never watched."""
    coverage: float | None
    """Share of the day so far in which it was watched; None before the first window is over."""


@dataclass(frozen=True)
class Tier:
    """Members of a tier seen; None when fewer than `small_cell` or when it would give such a number away."""

    tier: str
    members: int | None


@dataclass(frozen=True)
class Summary:
    """One business day of one store."""

    store: str
    date: str
    start_us: int
    end_us: int
    as_of_us: int | None
    """Everything before is counted; None when the database holds nothing yet. Open visits count when they end."""
    complete: bool
    """The day is over, and long enough for its last visits to have ended."""
    def_version: int
    small_cell: int
    coverage: float | None
    journeys: Mapping[str, int]
    """Class → journeys that began on the day."""
    members_seen: int
    visits: int
    """People's zone visits that began on the day, however short."""
    floors: tuple[FloorTraffic, ...]
    zones: tuple[ZoneDwell, ...]
    flows: Flows
    suspected: int
    """Tags left out of all of this: suspected staff and stuck ones."""
    tiers: tuple[Tier, ...]
    doors: tuple[DoorCount, ...]
    outbox: Mapping[str, Mapping[str, int]]
    """Class → `sent`, events ever committed for the CRM, and `pending`, those that it has not acknowledged."""


def parse_date(text: str) -> dt.date:
    """A business date as people type it; Trouble for what is none."""
    try:
        date = dt.date.fromisoformat(text)
    except ValueError as error:
        raise Trouble(f"not a date: {text!r}; write YYYY-MM-DD") from error
    if not 2000 <= date.year < 2100:
        raise Trouble(f"no store has records of {text}")
    return date


def render(config: StoreConfig, date: str | None, form: str, lang: str) -> str:
    """A business day (YYYY-MM-DD; None: the present one) as `text`, `json` or `csv`, in `zh` or `en`.

    With the state of the service, if one runs. Raises Trouble for what the caller can mend.
    """
    from edge.live import read_once, socket_path
    from edge.summary_forms import as_csv, as_json, as_text
    from edge.summary_insights import as_text as insights_as_text
    from edge.summary_insights import as_values, insights
    from edge.web.i18n import LANGUAGES
    from edge.web.live_client import Now

    if lang not in LANGUAGES:
        raise Trouble(f"no language {lang!r}; there are {', '.join(LANGUAGES)}")
    chosen = None if date is None else parse_date(date)
    line = asyncio.run(read_once(socket_path(config)))
    now = None if line is None else Now.model_validate(line)
    present_us = time.time_ns() // 1000 if now is None else now.as_of_us
    with closing(connect(config.database.path)) as conn:
        day = chosen or business_days(config).date(present_us)
        summary = today(conn, config, day)
        if form == "csv":
            return as_csv(summary, config, lang)
        found = insights(conn, config, day)
    if form == "json":
        return as_json(summary, now, as_values(found))
    return as_text(summary, config, lang, now) + insights_as_text(found, config, lang)


def today(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Summary:
    """The summary of one business day, from one snapshot of the database."""
    from edge.summary_facts import summary  # and NumPy with it

    conn.execute("BEGIN")
    try:
        return summary(conn, config, date)
    finally:
        conn.execute("ROLLBACK")
