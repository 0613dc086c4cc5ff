"""Every table of the page as rows and columns: what CSV, XLSX and the JSON API give, and what OpenAPI says of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config import StoreConfig
from edge.access.users import Entry, Role
from edge.reports.summary import tables
from edge.store.live_state import Now
from edge.web.answers import Answers
from edge.web.exports import service_tables
from edge.words.languages import named
from edge.words.numbers import local
from edge.words.tables import Cell

if TYPE_CHECKING:
    from edge.days.occupancy import Occupancy
    from edge.days.scope import Rate
    from edge.days.summary import Summary

EVERYBODY = (Role.VIEWER, Role.MANAGER, Role.IT)
INTEGER, NUMBER, SHARE, TEXT, MOMENT = "integer", "number", "share", "text", "moment"
_RATES = {
    "draw": "visitors ÷ journeys",
    "engaged_share": "Journeys engaged here ÷ journeys",
    "bounce": "touch ÷ (touch + visit + engaged)",
    "first_stop": "Journeys that stopped here before any other counter ÷ journeys that stopped at any",
    "returning": "Members seen before ÷ members seen",
    "met": "Visits that met staff ÷ visits that wanted service",
    "contact": "Journeys with a staff contact ÷ journeys",
    "repeat": "Members who came near and were in the store before ÷ members who came near",
    "door_share": "Journeys seen at the door ÷ those seen at any",
    "wait_kept": "Visits that met staff within the target ÷ visits that wanted service",
    "assist_kept": "Visits assisted as long as the target ÷ visits that met staff",
}
COLUMNS: Mapping[str, tuple[str, str]] = {
    **service_tables.COLUMNS,
    **{name: (SHARE, f"{about}; null: too few to say.") for name, about in _RATES.items()},
    **{f"{name}_low": (SHARE, f"Lower end of the 95 % interval of {name}.") for name in _RATES},
    **{f"{name}_high": (SHARE, f"Upper end of the 95 % interval of {name}.") for name in _RATES},
    "floor": (TEXT, "Floor, by its id in the store file."),
    "floor_name": (TEXT, "The floor's name in the language asked for."),
    "hour": (MOMENT, "Beginning of the hour, ISO 8601 in the store's time."),
    "state": (TEXT, "measured, unknown (no reader was up: not zero) or future; of trials planned, running or over."),
    "members": (INTEGER, "Members; of floors and hours: times that one came to the floor."),
    "other_tags": (INTEGER, "Times that a carrier of a tag of no known class came to the floor."),
    "carts": (INTEGER, "Times that a cart came to the floor; carts are not people."),
    "coverage": (SHARE, "Share of the time so far in which the readers were up, 0 to 1."),
    "zone": (TEXT, "Zone, by its id in the store file."),
    "zone_name": (TEXT, "The zone's name in the language asked for."),
    "kind": (TEXT, "Kind of the zone: counter, aisle, entrance …"),
    "n": (INTEGER, "How many the row's numbers are of; of flows: transitions."),
    "median_s": (NUMBER, "Median dwell, seconds."),
    "p75_s": (NUMBER, "Third quartile of dwell, seconds."),
    "pass_by": (INTEGER, "Visits shorter than a touch."),
    "touch": (INTEGER, "Visits that were a touch."),
    "visit": (INTEGER, "Visits of the band visit."),
    "engaged": (INTEGER, "Visits that were engaged."),
    "censored": (INTEGER, "Visits not fully seen: in no band and no median."),
    "cart_visits": (INTEGER, "Visits of carts."),
    "from_zone": (TEXT, "Where they came from; `suppressed` sums the flows of too few carriers."),
    "from_name": (TEXT, "Its name."),
    "to_zone": (TEXT, "Where they went."),
    "to_name": (TEXT, "Its name."),
    "journeys": (INTEGER, "Journeys of people that began in the time, as far as it was known."),
    "visitors": (INTEGER, "Of them, those that stayed here for a touch or longer."),
    "conversion": (NUMBER, "engaged ÷ (pass_by + touch + visit); null: too few to say."),
    "conversion_low": (NUMBER, "Lower end of the 95 % interval of conversion."),
    "conversion_high": (NUMBER, "Upper end of it; null: without end."),
    "rank_best": (INTEGER, "Best place by engaged_share that the intervals allow."),
    "rank_worst": (INTEGER, "Worst place that they allow."),
    "path": (TEXT, "Zones by id in the order of first stops."),
    "path_names": (TEXT, "Their names."),
    "share": (SHARE, "Share of all journeys with a path."),
    "visits": (INTEGER, "Visits to zones."),
    "visit_share": (SHARE, "Of all visits of people."),
    "dwell_share": (SHARE, "Of all presence of people."),
    "wait_median_s": (NUMBER, "Median wait until the first staff badge, seconds, of the visits that met staff."),
    "wait_p75_s": (NUMBER, "Third quartile of the same."),
    "assist_mean_s": (NUMBER, "How long a badge was there too, mean of the visits that met staff, seconds."),
    "assist_median_s": (NUMBER, "Median of how long a badge was there too, of the visits that met staff, seconds."),
    "wait_target_s": (NUMBER, "Target of the store file for the wait of this tier, seconds."),
    "assist_target_s": (NUMBER, "Target for assistance, seconds."),
    "visits_per_staff_hour": (NUMBER, "Visits and engaged visits per hour of one member of staff."),
    "staff_s": (NUMBER, "Presence of staff badges, summed, seconds."),
    "place": (TEXT, "store, floor or zone: what the row is of."),
    "id": (TEXT, "Its id in the store file."),
    "name": (TEXT, "Its name in the language asked for."),
    "window": (MOMENT, "Beginning of the 15 minutes, ISO 8601 in the store's time."),
    "mean": (NUMBER, "People at once, on average over the window."),
    "peak": (INTEGER, "Most people at once."),
    "provisional": (TEXT, "yes: visits under way are not in it yet."),
    "measure": (TEXT, "What is counted."),
    "now": (INTEGER, "This day's number, up to its as_of."),
    "last_week": (INTEGER, "The same weekday's of last week, over the same hours."),
    "last_week_change": (NUMBER, "Relative change against it: 0.1 is ten per cent more."),
    "median_4w": (NUMBER, "Median of the last four such weekdays."),
    "median_change": (NUMBER, "Median of the changes against each of them."),
    "holiday": (INTEGER, "The same day of the same holiday a year before."),
    "holiday_change": (NUMBER, "Relative change against it."),
    "trial": (TEXT, "Promotion or change of the layout, by its id in the store file."),
    "first_day": (TEXT, "Its first business day."),
    "last_day": (TEXT, "Its last business day; of a change of the layout the last one looked at."),
    "controls": (TEXT, "Zones that it is held against."),
    "phase": (TEXT, "during or after; of a change of the layout during is since."),
    "change": (NUMBER, "Relative change beyond that of the controls; null: not enough data."),
    "change_low": (NUMBER, "Lower end of its 95 % interval."),
    "change_high": (NUMBER, "Upper end of its 95 % interval."),
    "days_before": (INTEGER, "Days before that were compared."),
    "days_after": (INTEGER, "Days during or after that were compared."),
    "days_used": (INTEGER, "Days that could be used."),
    "days_left_out": (INTEGER, "Days that could not: closed, not covered, or no such day before."),
    "n_before": (INTEGER, "Counted in the zones on the days before."),
    "n_after": (INTEGER, "Counted on the days after."),
    "tag": (TEXT, "Beginning of the tag's pseudonym; of most tags it is of the day."),
    "tag_class": (TEXT, "Class of the tag."),
    "reasons": (TEXT, "stuck, long (in the store), back_room."),
    "present_s": (NUMBER, "Time in zones, seconds."),
    "back_room_s": (NUMBER, "Of it in back rooms, seconds."),
    "different_zones": (INTEGER, "Different zones that it was in."),
    "verdict": (TEXT, "confirmed (no customer), cleared (counted), or empty: nothing was said."),
    "first_seen": (MOMENT, "Beginning of its first visit."),
    "last_seen": (MOMENT, "End of its last."),
    "staffed": (SHARE, "Share of the known opening time with at least one badge in the zone."),
    "wanted": (INTEGER, "Visits that were long enough to want service."),
    "visits_per_staffed_hour": (NUMBER, "Visits and engaged visits per hour with staff."),
    "way": (TEXT, "in or out."),
    "tier": (TEXT, "Tier of the chain's membership."),
    "reader": (TEXT, "Reader, by its id in the store file."),
    "driver": (TEXT, "The reader's protocol."),
    "link": (TEXT, "up, connecting, down, or unknown while the service does not answer."),
    "reason": (TEXT, "Why it is not up."),
    "since": (MOMENT, "Since when the link is so, ISO 8601 in the store's time."),
    "zones": (TEXT, "Zones that its antennas watch; of a trial, in which it was."),
    "reads": (INTEGER, "Reads since the service started."),
    "reads_per_s": (NUMBER, "Reads a second."),
    "clock_offset_ms": (NUMBER, "The reader's clock against the store's, milliseconds."),
    "line": (INTEGER, "Number of the line; they rise."),
    "at": (MOMENT, "When, ISO 8601 in the store's time."),
    "user": (TEXT, "Who."),
    "role": (TEXT, "In which role."),
    "address": (TEXT, "From which address."),
    "action": (TEXT, "What was done."),
    "object": (TEXT, "To what."),
}
"""Type and meaning of columns, by id: the same id means the same everywhere."""
ABOUT: Mapping[str, str] = {
    "cues": "Calls to go to a member, made on the business day, and what became of each.",
    "cases": "Service cases opened on the business day.",
    "traffic": "Comings to each floor by hour of the business day.",
    "dwell": "Dwell of people in each zone on the business day.",
    "flows": "Steps of people from zone to zone on the business day; those of too few carriers are only summed.",
    "counters": "Scorecard of each zone over one business day or more.",
    "paths": "The ways most taken through the store.",
    "doors": "By which doors people came in and went out; without a zone: journeys first or last seen elsewhere.",
    "tiers": "Members by tier: visits, dwell, service. Small numbers are withheld.",
    "service": "Staff, waiting and assistance by zone. Being in one place is a sign of service, not its proof.",
    "occupancy": "People at once in each floor and zone, by 15 minutes.",
    "hours": "Each zone by hour: dwell and visits for each member of staff.",
    "comparison": "The day against last week, four weeks and the same holiday.",
    "promotions": "What promotions changed, against zones where nothing was tried.",
    "layout": "What changes of the layout changed, against zones that were not moved.",
    "suspects": "Tags in no number of the day: suspected staff and stuck ones, with reasons.",
    "members": "Members seen on the business day by tier; small numbers are withheld.",
    "quality": "Coverage of each zone on the business day.",
    "readers": "Readers as they are now.",
    "audit": "Who logged in, looked at individuals and took data out: all that is kept, the newest first.",
}


Rows = tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Source:
    """What tables are made of. `summary` is None for tables of now."""

    config: StoreConfig
    lang: str
    date: dt.date
    summary: Summary | None
    now: Now | None
    audit: Callable[[], Iterable[Entry]]
    answers: Answers
    days: int = 1
    """Business days that end with `date`, for tables that can be of several."""


@dataclass(frozen=True)
class Kind:
    """A table that can be asked for."""

    name: str
    roles: tuple[Role, ...]
    of_day: bool
    """Is it of a business day (or more of them), or of now?"""
    columns: tuple[str, ...]
    make: Callable[[Source], Iterable[tuple[Cell, ...]]]
    bounded: bool = True
    """Is it no longer than memory bears?"""


def iso(config: StoreConfig, at_us: int | None) -> str:
    """A moment in the store's time; empty for none."""
    at = local(config, at_us)
    return "" if at is None else at.isoformat(timespec="seconds")


def _of_summary(name: str) -> Callable[[Source], Rows]:
    def make(source: Source) -> Rows:
        return () if source.summary is None else tables(source.summary, source.config, source.lang)[name].rows

    return make


def _quality(source: Source) -> Rows:
    names = {zone.id: named(zone.name, source.lang) for zone in source.config.zones}
    return tuple(
        (z.floor, z.zone, names[z.zone], z.kind, None if z.coverage is None else round(z.coverage, 3), z.n, z.censored)
        for z in (source.summary.zones if source.summary else ())
    )


def _counters(source: Source) -> Rows:
    found = source.answers.counters(source.date, source.days)
    names = {zone.id: named(zone.name, source.lang) for zone in source.config.zones}
    return tuple(
        (
            *(z.floor, z.zone, names[z.zone], z.kind, z.n, z.censored),
            *(z.pass_by, z.touch, z.visit, z.engaged, z.cart_visits),
            *(_round(z.median_s, 1), _round(z.p75_s, 1), z.journeys, z.visitors, *_rate(z.draw)),
            *(_round(z.conversion), _round(z.conversion_low), _round(z.conversion_high)),
            *(*_rate(z.engaged_share), *_rate(z.bounce), *_rate(z.first_stop), *_rate(z.repeat), *_rate(z.met)),
            *(_round(z.wait_median_s, 1), *(z.rank or (None, None)), _round(z.coverage)),
        )
        for z in (found.zones if found else ())
    )


def _paths(source: Source) -> Rows:
    found = source.answers.flows(source.date, source.days)
    names = {zone.id: named(zone.name, source.lang) for zone in source.config.zones}
    return tuple(
        (" > ".join(path.zones), " > ".join(names[zone] for zone in path.zones), path.n, _round(path.share))
        for path in (found.paths if found else ())
    )


def _doors(source: Source) -> Rows:
    found = source.answers.flows(source.date, source.days)
    names = {zone.id: named(zone.name, source.lang) for zone in source.config.zones}
    return tuple(
        row
        for way, ways in ((("in", found.ways_in), ("out", found.ways_out)) if found else ())
        for row in (
            *((way, door.zone, names[door.zone], door.n, *_rate(door.share)) for door in ways.doors),
            (way, "", "", ways.elsewhere, None, None, None),
        )
    )


def _tiers(source: Source) -> Rows:
    found = source.answers.tiers(source.date, source.days)
    return tuple(
        (
            *(t.tier, t.members, t.journeys, t.visits, _round(t.visit_share), _round(t.dwell_share)),
            *(*_rate(t.returning), *_rate(t.met), _round(t.wait_median_s, 1), _round(t.wait_p75_s, 1)),
            *(*_rate(t.contact), _round(t.assist_median_s, 1), t.wait_target_s, *_rate(t.wait_kept)),
            *(t.assist_target_s, *_rate(t.assist_kept)),
        )
        for t in (found.tiers if found else ())
    )


def _service(source: Source) -> Rows:
    found = source.answers.service(source.date, source.days)
    names = {zone.id: named(zone.name, source.lang) for zone in source.config.zones}
    return tuple(
        (
            *(z.floor, z.zone, names[z.zone], z.kind, _round(z.staffed), z.wanted, *_rate(z.met)),
            *(_round(z.wait_median_s, 1), _round(z.wait_p75_s, 1), _round(z.assist_mean_s, 1)),
            *(_round(z.assist_median_s, 1), _round(z.visits_per_staffed_hour, 2)),
            *(_round(z.visits_per_staff_hour, 2), _round(z.coverage)),
        )
        for z in (found.zones if found else ())
    )


def _names(source: Source) -> dict[tuple[str, str], str]:
    """(store, floor or zone; id) → name."""
    config = source.config
    return {
        ("store", config.store.id): named(config.store.name, source.lang),
        **{("floor", floor.id): named(floor.name, source.lang) for floor in config.floors},
        **{("zone", zone.id): named(zone.name, source.lang) for zone in config.zones},
    }


def _kind_of(place: Occupancy) -> str:
    return "floor" if place.floor else "zone"


def _occupancy(source: Source) -> Rows:
    found = source.answers.occupancy(source.date)
    names = _names(source)
    return tuple(
        (
            *(_kind_of(place), place.place, names[_kind_of(place), place.place], iso(source.config, cell.start_us)),
            *(cell.state, _round(cell.mean, 2), cell.peak, "yes" if cell.provisional else "no"),
        )
        for place in ((*found.floors, *found.zones) if found else ())
        for cell in place.windows
        if cell.state != "future"
    )


def _hours(source: Source) -> Rows:
    found = source.answers.hours(source.date)
    names = {zone.id: named(zone.name, source.lang) for zone in source.config.zones}
    return tuple(
        (
            *(
                zone.floor,
                zone.zone,
                names[zone.zone],
                zone.kind,
                iso(source.config, cell.start_us),
                cell.state,
                cell.n,
            ),
            *(_round(cell.median_s, 1), _round(cell.p75_s, 1), cell.pass_by, cell.touch, cell.visit, cell.engaged),
            *(_round(cell.staff_s, 1), _round(cell.visits_per_staff_hour, 2)),
        )
        for zone in (found.zones if found else ())
        for cell in zone.hours
        if cell.state != "future"
    )


def _comparison(source: Source) -> Rows:
    found = source.answers.comparison(source.date)
    names = _names(source)
    return tuple(
        (
            *(row.scope, row.id, names[row.scope, row.id], row.measure, row.now),
            *((row.last_week.before, _round(row.last_week.change)) if row.last_week else (None, None)),
            *(row.median_4w, _round(row.median_change)),
            *((row.holiday.before, _round(row.holiday.change)) if row.holiday else (None, None)),
        )
        for row in (found.rows if found else ())
    )


def _trials(kind: str) -> Callable[[Source], Rows]:
    def make(source: Source) -> Rows:
        names = {one.id: named(one.name, source.lang) for one in getattr(source.config, kind)}
        rows: list[tuple[Cell, ...]] = []
        for trial in source.answers.trials(kind, source.date):
            head = (trial.id, names[trial.id], trial.state, trial.first_day, trial.last_day)
            places = (" ".join(trial.zones), " ".join(trial.controls))
            for effect in trial.effects:
                for phase, told in (("during", effect.during), ("after", effect.after)):
                    if told is None:
                        continue
                    found = told.change
                    numbers: tuple[Cell, ...] = (None,) * 7
                    if found is not None:
                        numbers = (
                            *(_round(found.change), _round(found.low), _round(found.high)),
                            *(found.days_before, found.days_after, found.zones_before, found.zones_after),
                        )
                    rows.append((*head, *places, effect.measure, phase, *numbers, told.days_used, told.days_left_out))
        return tuple(rows)

    return make


def _suspects(source: Source) -> Rows:
    said = {None: "", True: "confirmed", False: "cleared"}
    return tuple(
        (
            *(one.tag[:8], one.tag_class, " ".join(one.reasons), round(one.present_s, 1), round(one.back_room_s, 1)),
            *(one.different_zones, one.zone, iso(source.config, one.first_us), iso(source.config, one.last_us)),
            said[one.confirmed],
        )
        for one in source.answers.suspects(source.date)
    )


def _round(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def _rate(rate: Rate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if rate is None else (round(rate.value, 4), round(rate.low, 4), round(rate.high, 4))


def _rates(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _readers(source: Source) -> Rows:
    told = {reader.id: reader for reader in (source.now.readers if source.now else ())}
    rows: list[tuple[Cell, ...]] = []
    for reader in source.config.readers:
        zones = " ".join(dict.fromkeys(antenna.zone for antenna in reader.antennas))
        now = told.get(reader.id)
        if now is None:
            rows.append((reader.id, reader.driver, "unknown", None, None, zones, None, None, None))
            continue
        offset_ms = None if now.clock_offset_us is None else round(now.clock_offset_us / 1e3, 1)
        rows.append(
            (
                *(reader.id, reader.driver, now.link, now.reason, iso(source.config, now.since_us), zones),
                *(now.reads, round(now.reads_per_s, 1), offset_ms),
            )
        )
    return tuple(rows)


def _audit(source: Source) -> Iterator[tuple[Cell, ...]]:
    for line in source.audit():
        at = iso(source.config, round(line.at_s * 1e6))
        yield line.id, at, line.name, line.role, line.address, line.action, line.object


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "cues", (Role.MANAGER,), True, service_tables.CUES, lambda s: service_tables.cues(s.config, s.date, s.lang)
        ),
        Kind("cases", EVERYBODY, True, service_tables.CASES, lambda s: service_tables.cases(s.config, s.date, s.lang)),
        Kind(
            *("traffic", EVERYBODY, True),
            ("floor", "floor_name", "hour", "state", "members", "other_tags", "carts", "coverage"),
            _of_summary("traffic"),
        ),
        Kind(
            *("dwell", EVERYBODY, True),
            (
                *("floor", "zone", "zone_name", "kind", "n", "median_s", "p75_s"),
                *("pass_by", "touch", "visit", "engaged", "censored", "cart_visits", "coverage"),
            ),
            _of_summary("dwell"),
        ),
        Kind(
            *("flows", EVERYBODY, True),
            ("from_zone", "from_name", "to_zone", "to_name", "n"),
            _of_summary("flows"),
        ),
        Kind(
            *("counters", EVERYBODY, True),
            (
                *("floor", "zone", "zone_name", "kind", "n", "censored"),
                *("pass_by", "touch", "visit", "engaged", "cart_visits"),
                *("median_s", "p75_s", "journeys", "visitors", *_rates("draw"), *_rates("conversion")),
                *(*_rates("engaged_share"), *_rates("bounce"), *_rates("first_stop"), *_rates("repeat")),
                *(*_rates("met"), "wait_median_s", "rank_best", "rank_worst", "coverage"),
            ),
            _counters,
        ),
        Kind("paths", EVERYBODY, True, ("path", "path_names", "n", "share"), _paths),
        Kind("doors", EVERYBODY, True, ("way", "zone", "zone_name", "n", *_rates("door_share")), _doors),
        Kind(
            *("tiers", EVERYBODY, True),
            (
                *("tier", "members", "journeys", "visits", "visit_share", "dwell_share"),
                *(*_rates("returning"), *_rates("met"), "wait_median_s", "wait_p75_s", *_rates("contact")),
                *("assist_median_s", "wait_target_s", *_rates("wait_kept"), "assist_target_s"),
                *_rates("assist_kept"),
            ),
            _tiers,
        ),
        Kind(
            *("service", EVERYBODY, True),
            (
                *("floor", "zone", "zone_name", "kind", "staffed", "wanted", *_rates("met")),
                *("wait_median_s", "wait_p75_s", "assist_mean_s", "assist_median_s"),
                *("visits_per_staffed_hour", "visits_per_staff_hour", "coverage"),
            ),
            _service,
        ),
        Kind(
            *("occupancy", EVERYBODY, True),
            ("place", "id", "name", "window", "state", "mean", "peak", "provisional"),
            _occupancy,
        ),
        Kind(
            *("hours", EVERYBODY, True),
            (
                *("floor", "zone", "zone_name", "kind", "hour", "state", "n", "median_s", "p75_s"),
                *("pass_by", "touch", "visit", "engaged", "staff_s", "visits_per_staff_hour"),
            ),
            _hours,
        ),
        Kind(
            *("comparison", EVERYBODY, True),
            (
                *("place", "id", "name", "measure", "now", "last_week", "last_week_change"),
                *("median_4w", "median_change", "holiday", "holiday_change"),
            ),
            _comparison,
        ),
        *(
            Kind(
                *(name, EVERYBODY, True),
                (
                    *("trial", "name", "state", "first_day", "last_day", "zones", "controls", "measure", "phase"),
                    *("change", "change_low", "change_high", "days_before", "days_after", "n_before", "n_after"),
                    *("days_used", "days_left_out"),
                ),
                _trials(kind),
            )
            for name, kind in (("promotions", "promotions"), ("layout", "layout_changes"))
        ),
        Kind(
            *("suspects", (Role.MANAGER, Role.IT), True),
            (
                *("tag", "tag_class", "reasons", "present_s", "back_room_s", "different_zones", "zone"),
                *("first_seen", "last_seen", "verdict"),
            ),
            _suspects,
        ),
        Kind("members", EVERYBODY, True, ("tier", "members"), _of_summary("members")),
        Kind(
            *("quality", EVERYBODY, True),
            ("floor", "zone", "zone_name", "kind", "coverage", "n", "censored"),
            _quality,
        ),
        Kind(
            *("readers", EVERYBODY, False),
            ("reader", "driver", "link", "reason", "since", "zones", "reads", "reads_per_s", "clock_offset_ms"),
            _readers,
        ),
        Kind(
            *("audit", (Role.IT,), False, ("line", "at", "user", "role", "address", "action", "object"), _audit),
            bounded=False,
        ),
    )
}
"""Every table, by its name."""
