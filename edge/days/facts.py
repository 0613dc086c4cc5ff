"""Facts of a business day, computed from its visits and windows in the database.

Facts contain counts but no tags, so they can be kept long after the visits without identifying anyone.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from config.facts import COUNTED, PEOPLE
from dwell.aggregates import BINS, histogram
from dwell.facts import Facts, Table, facts, total
from dwell.layout import TagClass, ZoneKind
from dwell.paths import Flows
from dwell.service import Contacts, contacts
from dwell.stays import STAY, Place, Span, Stays, distinct, in_order, people
from dwell.suspects import Limits, Suspicion, suspicions
from edge.access.verdicts import stamps, verdicts
from edge.database.reader import Past
from edge.days.hourly import FLOOR_HOUR, ZONE_HOUR, Hours, added, hour_of, summed
from edge.store.business_days import business_days
from edge.store.calendar import hours

LOOK_US = 12 * 3_600_000_000
"""Margin around a day for visits that belong to its journeys or extend into it."""
CHUNK_ROWS = 1_000
"""Database rows held as Python objects at a time; they take ten times the memory of the arrays made from them."""
BASE = np.dtype(
    [
        ("journeys", "<i8"),  # people's journeys that began while the zone was known: denominator of its rates
        ("stopped", "<i8"),  # of these, journeys that stopped at a counter
        ("open_us", "<i8"),  # opening time so far
        ("covered_us", "<f8"),  # of this, time with the zone's readers up
        ("known_us", "<i8"),  # of this, time in known windows
        ("staffed_us", "<i8"),  # of this, time with a staff badge in the zone
        ("known_windows", "<i8"),
        ("span_us", "<i8"),  # length of these windows: denominator of mean occupancy
        ("members", "<i8"),  # members with a visit of a touch or longer, each day counted separately
        ("repeaters", "<i8"),  # of these, members who had been in the store in the previous returning_days
    ]
)
Ints = NDArray[np.int64]
Tiers = tuple[dict[str, dict[str, int]], dict[str, Ints], dict[str, Ints], Ints, Ints]
TIER_COUNTS = ("members", "returning", "journeys", "visits", "dwell_us", "wanted", "met", "contacted")


@dataclass(frozen=True)
class Totals:
    """Totals of some business days, with only the known windows of each zone. Z zones and F floors."""

    zones: Table
    """(Z,) ZONE_FACTS."""
    base: Table
    """(Z,) BASE."""
    dwell: NDArray[np.int64]
    """(Z, BINS)."""
    wait: NDArray[np.int64]
    """(Z, BINS)."""
    assist: NDArray[np.int64]
    """(Z, BINS)."""
    floors: Table
    """(F,) FLOOR_FACTS."""
    store: Table
    """() STORE_FACTS."""
    flows: Flows
    tiers: Mapping[str, Mapping[str, int]]
    """Tier → TIER_COUNTS; members are distinguished within a day only."""
    people: Mapping[str, int]
    """Denominators of the tiers' shares: `visits` and `dwell_us` of all people, counted in the same way."""
    tier_wait: Mapping[str, NDArray[np.int64]]
    """Tier → (BINS,)."""
    tier_assist: Mapping[str, NDArray[np.int64]]
    """Tier → (BINS,)."""
    suspects: int
    """Number of excluded tags: suspected staff and stuck tags."""
    days: int

    def __add__(self, other: Totals) -> Totals:
        """Add two totals."""
        tiers = {
            tier: Counter(self.tiers.get(tier, {})) + Counter(other.tiers.get(tier, {}))
            for tier in {**self.tiers, **other.tiers}
        }
        arrays = {name: added(getattr(self, name), getattr(other, name)) for name in ARRAYS}
        return Totals(
            **arrays,
            flows=self.flows + other.flows,
            tiers=tiers,
            people=Counter(self.people) + Counter(other.people),
            tier_wait=_both_tiers(self.tier_wait, other.tier_wait),
            tier_assist=_both_tiers(self.tier_assist, other.tier_assist),
            suspects=self.suspects + other.suspects,
            days=self.days + other.days,
        )


ARRAYS = ("zones", "base", "dwell", "wait", "assist", "floors", "store")


@dataclass(frozen=True)
class Windows:
    """One business day by window; W windows."""

    windows_us: NDArray[np.int64]
    zones: Table
    """(W, Z) ZONE_FACTS."""
    floors: Table
    """(W, F) FLOOR_FACTS."""
    store: Table
    """(W,) STORE_FACTS."""
    coverage: NDArray[np.float64]
    """(W, Z); nan for zones without antennas and for windows that have not ended."""
    known: NDArray[np.bool_]
    """(W, Z) True if the zone is sufficiently covered."""
    open_us: NDArray[np.int64]
    """(W, Z) opening time in each window."""


@dataclass(frozen=True)
class ByHour:
    """One business day by hour."""

    hours: Hours
    dwell: NDArray[np.uint32]
    """(H, Z, BINS) of people's complete visits that began in the hour, in known windows."""
    wait: NDArray[np.uint32]
    """(H, Z, BINS) of the visits that met staff."""


@dataclass(frozen=True)
class DayFacts:
    """One business day."""

    date: dt.date
    def_version: int
    as_of_us: int | None
    """Everything before this time is counted; None if nothing is."""
    complete: bool
    rows: int
    """Number of visits used."""
    verdicts: int
    """State of the managers' verdicts on suspect tags: edge.access.verdicts.stamps."""
    totals: Totals
    windows: Windows
    by_hour: ByHour | None
    """None in stored facts: see kept.hours and kept.histograms."""


@dataclass(frozen=True)
class SuspectStatus:
    """A tag that does not move like a customer."""

    why: Suspicion | None
    """None if it is listed only because it was confirmed on an earlier day."""
    confirmed: bool | None
    """Verdict of a manager; None if there is none yet."""

    @property
    def left_out(self) -> bool:
        """True if the tag is excluded from all figures."""
        return self.confirmed is not False


def place(config: StoreConfig) -> Place:
    """Return the store as arrays, with zones and floors in the order of the store file."""
    floor = {model.id: number for number, model in enumerate(config.floors)}
    limits = config.thresholds
    return Place(
        zone_kind=np.array([ZoneKind[zone.kind.name] for zone in config.zones], np.uint8),
        zone_floor=np.array([floor[zone.floor] for zone in config.zones], np.int16),
        floors=len(config.floors),
        touch_us=round(limits.touch_s * 1e6),
        visit_us=round(limits.visit_s * 1e6),
        engaged_us=round(limits.engaged_s * 1e6),
        assist_us=round(limits.assist_s * 1e6),
    )


def of_people(table: Table) -> Ints:
    """Sum the counts of people in a table: members, and carriers of tags without a known class."""
    counts: Ints = np.sum([table[name] for name in PEOPLE], axis=0, dtype=np.int64)
    return counts


def read_stays(past: Past, span: Span) -> tuple[Stays, list[bytes]]:
    """Read the stays (without merchandise) that overlap the span or belong to its journeys, in order; and their tags.

    The result for the last span is cached, and only newer visits are read.
    """
    key = (past.file, span, tuple(zone.id for zone in past.config.zones))
    with _reading:
        kept = _kept.get(key) or _Read(0, 0, np.zeros(0, STAY), {})
        fresh = _more(past, span, kept)
        if fresh.rows != count_between(past.conn, span):  # some were deleted
            fresh = _more(past, span, _Read(0, 0, np.zeros(0, STAY), {}))
        _kept.clear()
        _kept[key] = fresh
        return in_order(fresh.stays[fresh.stays["zone"] >= 0]), list(fresh.tags)


@dataclass(frozen=True)
class _Read:
    last: int
    """Highest id that has been read."""
    rows: int
    """Number of visits that began in the span, including merchandise."""
    stays: Stays
    tags: dict[bytes, int]


_kept: dict[tuple[Any, ...], _Read] = {}
_reading = threading.Lock()


def _more(past: Past, span: Span, kept: _Read) -> _Read:
    config = past.config
    zone = {model.id: number for number, model in enumerate(config.zones)}
    last = past.conn.execute("SELECT MAX(id) FROM visit").fetchone()[0] or 0
    if last == kept.last:
        return kept
    # New visits are found by id, a full read by time.
    entered = "enter_us" if kept.last == 0 else "+enter_us"
    found = past.conn.execute(
        "SELECT enter_us, exit_us, journey_us, tag, zone, tag_class, censored FROM visit"
        f" WHERE {entered} >= ? AND {entered} < ? AND id > ? AND id <= ?"
        " AND (exit_us > ? AND enter_us < ? OR journey_us >= ? AND journey_us < ? OR enter_us >= ? AND enter_us < ?)",
        (
            *(span.start_us - LOOK_US, span.end_us + LOOK_US, kept.last, last),
            # A carrier who was on the floor just before the day does not arrive there during the day.
            *(span.start_us - round(config.thresholds.journey_end_silence_s * 1e6), span.end_us),
            *(span.start_us, span.end_us) * 2,
        ),
    )
    parts, began, tags = [kept.stays], kept.rows, dict(kept.tags)
    while rows := found.fetchmany(CHUNK_ROWS):
        stays = np.zeros(len(rows), STAY)
        enter, exit_, journey, tag, zones, tag_class, censored = zip(*rows, strict=True)
        stays["enter_us"], stays["exit_us"], stays["journey_us"] = enter, exit_, journey
        stays["carrier"] = [tags.setdefault(one, len(tags)) for one in tag]
        stays["zone"] = [zone.get(one, -1) for one in zones]
        stays["tag_class"], stays["censored"] = tag_class, censored
        began += int(span.holds(stays["enter_us"]).sum())
        parts.append(stays[stays["tag_class"] != TagClass.MERCHANDISE])
    return _Read(last, began, np.concatenate(parts), tags)


def suspects(stays: Stays, tags: list[bytes], config: StoreConfig, date: dt.date) -> dict[int, SuspectStatus]:
    """Map each suspect carrier to the reason for its exclusion, including those that have been cleared."""
    limits = config.thresholds
    span = Span(*business_days(config).bounds_us(date))
    judged = suspicions(
        stays,
        place(config),
        span,
        Limits(*(round(s * 1e6) for s in (limits.suspect_s, limits.suspect_back_room_s, limits.stuck_s))),
    )
    said = {verdict.tag: verdict.confirmed for verdict in verdicts(config) if verdict.date <= date.isoformat()}
    number = {tag: n for n, tag in enumerate(tags)} if said else {}
    there = set(distinct(stays["carrier"]).tolist()) if said else set()
    found = {carrier: SuspectStatus(one, said.get(tags[carrier])) for carrier, one in judged.items()}
    for tag, confirmed in said.items():
        if confirmed and number.get(tag) in there:
            found.setdefault(number[tag], SuspectStatus(None, confirmed))
    return found


def make(past: Past, date: dt.date) -> DayFacts:
    """Compute a day's facts from its visits and windows."""
    config = past.config
    span = Span(*past.bounds_us(date))
    store = place(config)
    now_us = past.watermark_us
    as_of_us = None if now_us is None else min(now_us, span.end_us)
    everybody, tags = read_stays(past, span)
    stamp = stamps(config).get(date.isoformat(), 0)
    left_out = [carrier for carrier, one in suspects(everybody, tags, config, date).items() if one.left_out]
    stays = everybody[~np.isin(everybody["carrier"], left_out)]
    staff = contacts(stays, store)
    made = facts(stays, store, span, staff)
    windows = _windows(past, made, span, date, as_of_us)
    silence_us = round(config.thresholds.journey_end_silence_s * 1e6)
    by_tier = _tiers(past, stays, tags, staff, span)
    return DayFacts(
        date=date,
        def_version=config.thresholds.def_version,
        as_of_us=as_of_us,
        complete=now_us is not None and now_us >= span.end_us + silence_us,
        rows=count(past, date),
        verdicts=stamp,
        totals=_totals(made, windows, by_tier, _people(stays, span), len(left_out), span),
        windows=windows,
        by_hour=_by_hour(config, made, windows, span, as_of_us),
    )


def _hours(config: StoreConfig, windows: Windows, span: Span, as_of_us: int | None) -> Hours:
    """Sum a day's windows by hour."""
    store, starts = place(config), windows.windows_us
    hour = hour_of(starts, span.start_us)
    known, ended, open_us = windows.known, ~np.isnan(windows.coverage), windows.open_us
    until_us = np.minimum(np.minimum(starts + span.window_us, span.end_us), np.maximum(as_of_us or 0, starts))
    long_us = (until_us - starts)[:, None]
    share = np.nan_to_num(windows.coverage, nan=0.0)
    zones = np.zeros(known.shape, ZONE_HOUR)
    for name in windows.zones.dtype.names or ():
        zones[name] = np.where(known, windows.zones[name], 0)
    zones["journeys"] = known * of_people(windows.store)[:, None]
    zones["stopped"] = known * windows.store["stopped"][:, None]
    zones["open_us"], zones["covered_us"] = open_us * ended, open_us * share
    zones["known_us"] = open_us * (known & ended)
    zones["staffed_open_us"] = np.minimum(windows.zones["staffed_us"], open_us) * (known & ended)
    zones["known_windows"], zones["span_us"] = known, known * long_us
    zones["ended"], zones["share"] = ended, share
    floors = np.zeros((len(starts), store.floors), FLOOR_HOUR)
    for number in range(store.floors):
        mine = store.zone_floor == number
        measured = known[:, mine].any(axis=1)
        opened = measured & (open_us[:, mine].max(axis=1, initial=0) > 0)
        facts = windows.floors[:, number]
        for name in COUNTED:
            floors[name][:, number] = facts[name]
        for name, mask in (("", measured), ("open_", opened)):
            floors[f"{name}present_us"][:, number] = facts["present_us"] * mask
            floors[f"{name}span_us"][:, number] = long_us[:, 0] * mask
        floors["peak"][:, number] = facts["peak"] * measured
    begun = np.zeros(int(hour[-1]) + 1, np.int64)
    begun[hour[np.maximum(starts, span.start_us) < (as_of_us or 0)]] = 1
    return Hours(summed(zones, hour), summed(floors, hour), summed(windows.store, hour), begun)


def _by_hour(config: StoreConfig, made: Facts, windows: Windows, span: Span, as_of_us: int | None) -> ByHour:
    hour = hour_of(made.windows_us, span.start_us)
    dwell, wait = (summed(part * windows.known[:, :, None], hour) for part in (made.dwell, made.wait))
    return ByHour(_hours(config, windows, span, as_of_us), dwell, wait)


def count(past: Past, date: dt.date) -> int:
    """Count the visits of a day, of all tag classes."""
    return count_between(past.conn, Span(*past.bounds_us(date)))


def count_between(conn: sqlite3.Connection, span: Span) -> int:
    """Count the visits that began in a span."""
    bounds_us = span.start_us, span.end_us
    return int(conn.execute("SELECT COUNT(*) FROM visit WHERE enter_us >= ? AND enter_us < ?", bounds_us).fetchone()[0])


def _windows(past: Past, made: Facts, span: Span, date: dt.date, as_of_us: int | None) -> Windows:
    config = past.config
    starts = made.windows_us
    shape = (len(starts), len(config.zones))
    number = {zone.id: n for n, zone in enumerate(config.zones)}
    coverage = np.full(shape, np.nan)
    written = np.zeros(shape, np.bool_)
    for window_us, zone, share in past.conn.execute(
        "SELECT window_us, zone, MAX(coverage) FROM aggregate WHERE window_us >= ? AND window_us < ? GROUP BY 1, 2",
        (int(starts[0]), span.end_us),
    ):
        if zone in number and (window_us - int(starts[0])) % span.window_us == 0:
            at = (window_us - int(starts[0])) // span.window_us, number[zone]
            coverage[at], written[at] = share, True
    # A window is written shortly after it ended; until then its coverage is undetermined.
    until_us = 0 if as_of_us is None else as_of_us - span.window_us
    rows = starts[written.any(axis=1)]
    ended = starts <= max(until_us - span.window_us, *(rows[rows <= until_us].tolist() or [0]), 0)
    watched = {antenna.zone for reader in config.readers for antenna in reader.antennas}
    blind = np.array([zone.id not in watched for zone in config.zones])
    coverage[ended] = np.where(written[ended], coverage[ended], 0.0)
    coverage[~ended] = np.nan
    coverage[:, blind] = np.nan
    known = np.nan_to_num(coverage, nan=0.0) >= config.thresholds.min_coverage
    # A window in progress is known if the last completed one was known.
    if ended.any() and as_of_us is not None:
        last = known[np.flatnonzero(ended)[-1]]
        known |= (~ended & (starts < as_of_us))[:, None] & last
    return Windows(starts, made.zones, made.floors, made.store, coverage, known, _open_us(config, starts, span, date))


def _open_us(config: StoreConfig, starts: NDArray[np.int64], span: Span, date: dt.date) -> NDArray[np.int64]:
    by_floor = {floor.id: hours(config, floor.id, date) for floor in config.floors}
    open_ = np.array([by_floor[zone.floor].open_us for zone in config.zones])
    close = np.array([by_floor[zone.floor].close_us for zone in config.zones])
    low = np.maximum(starts[:, None], open_)
    inside: NDArray[np.int64] = np.maximum(np.minimum(starts[:, None] + span.window_us, close) - low, 0)
    return inside


def _totals(
    made: Facts,
    windows: Windows,
    by_tier: Tiers,
    everybody: dict[str, int],
    suspects: int,
    span: Span,
) -> Totals:
    known, open_us = windows.known, windows.open_us
    base = np.zeros(made.zones.shape[1], BASE)
    journeys = of_people(made.store)
    base["journeys"] = (known * journeys[:, None]).sum(axis=0)
    base["stopped"] = (known * made.store["stopped"][:, None]).sum(axis=0)
    ended = ~np.isnan(windows.coverage)
    base["open_us"] = (open_us * ended).sum(axis=0)
    base["covered_us"] = (open_us * np.nan_to_num(windows.coverage, nan=0.0)).sum(axis=0)
    base["known_us"] = (open_us * (known & ended)).sum(axis=0)
    base["staffed_us"] = (np.minimum(made.zones["staffed_us"], open_us) * (known & ended)).sum(axis=0)
    base["members"], base["repeaters"] = by_tier[3:]
    base["known_windows"] = known.sum(axis=0)
    base["span_us"] = (known & ended).sum(axis=0) * span.window_us
    return Totals(
        zones=total(made.zones, known),
        base=base,
        dwell=(made.dwell * known[:, :, None]).sum(axis=0, dtype=np.int64),
        wait=(made.wait * known[:, :, None]).sum(axis=0, dtype=np.int64),
        assist=(made.assist * known[:, :, None]).sum(axis=0, dtype=np.int64),
        floors=total(made.floors),
        store=total(made.store[:, None])[0],
        flows=made.flows,
        tiers=by_tier[0],
        people=everybody,
        tier_wait=by_tier[1],
        tier_assist=by_tier[2],
        suspects=suspects,
        days=1,
    )


def _people(stays: Stays, span: Span) -> dict[str, int]:
    began = stays[people(stays) & span.holds(stays["enter_us"])]
    return {"visits": len(began), "dwell_us": int((began["exit_us"] - began["enter_us"]).sum())}


def _tiers(past: Past, stays: Stays, tags: list[bytes], staff: Contacts, span: Span) -> Tiers:
    """Count by tier (also waits and assistance) and by zone (members and repeaters), for members with consent.

    Tiers are those currently in the directory.
    """
    config = past.config
    number = {tag: n for n, tag in enumerate(tags)}
    ours = set(distinct(stays["carrier"][span.holds(stays["enter_us"])]).tolist())
    cards: dict[int, tuple[str, str]] = {
        number[tag]: (member, tier)
        for tag, member, tier in past.conn.execute(
            "SELECT DISTINCT visit.tag, visit.member, COALESCE(tier, '?') FROM visit LEFT JOIN directory USING (tag)"
            " WHERE enter_us >= ? AND enter_us < ? AND visit.member IS NOT NULL",
            (span.start_us, span.end_us),
        )
        if number.get(tag) in ours
    }
    before_us = span.start_us - config.thresholds.returning_days * 86_400_000_000
    members: dict[str, set[str]] = {}
    for member, tier in cards.values():
        members.setdefault(tier, set()).add(member)
    seen = {
        member
        for member in {member for member, _ in cards.values()}
        if past.conn.execute(
            "SELECT 1 FROM journey WHERE member = ? AND start_us >= ? AND start_us < ? LIMIT 1",
            (member, before_us, span.start_us),
        ).fetchone()
    }
    began_here, journeys_here = span.holds(stays["enter_us"]), span.holds(stays["journey_us"])
    long_us = stays["exit_us"] - stays["enter_us"]
    found, waits, assists = {}, {}, {}
    for tier, who in sorted(members.items()):
        mine = np.isin(stays["carrier"], [n for n, (_, t) in cards.items() if t == tier])
        began, journey_here = mine & began_here, mine & journeys_here
        wanted, met = began & staff.wanted, began & staff.wanted & staff.met
        found[tier] = {
            "members": len(who),
            "returning": len(who & seen),
            "journeys": _journeys(stays[journey_here]),
            "visits": int(began.sum()),
            "dwell_us": int(long_us[began].sum()),
            "wanted": int(wanted.sum()),
            "met": int(met.sum()),
            "contacted": _journeys(stays[journey_here & staff.met]),
        }
        waits[tier] = histogram(staff.wait_us[met]).astype(np.int64)
        assists[tier] = histogram(staff.assist_us[met]).astype(np.int64)
    came = stays[began_here & (long_us >= config.thresholds.touch_s * 1e6) & np.isin(stays["carrier"], list(cards))]
    pairs = {
        (zone, cards[carrier][0]) for zone, carrier in zip(came["zone"].tolist(), came["carrier"].tolist(), strict=True)
    }
    everybody, again = np.zeros(len(config.zones), np.int64), np.zeros(len(config.zones), np.int64)
    for zone, member in pairs:
        everybody[zone] += 1
        again[zone] += member in seen
    return found, waits, assists, everybody, again


def _journeys(stays: Stays) -> int:
    return len(distinct(stays[["carrier", "journey_us"]]))


def _both_tiers(
    one: Mapping[str, NDArray[np.int64]], two: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    none = np.zeros(BINS, np.int64)
    return {tier: one.get(tier, none) + two.get(tier, none) for tier in {**one, **two}}
