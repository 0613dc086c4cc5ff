"""Columns of tables that compare days."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.reports.columns.shared import joined
from edge.words.languages import message as _
from edge.words.tables import DATE, INTEGER, NUMBER, RATIO, TEXT, Column, Interval, Words, follow

if TYPE_CHECKING:  # keeps NumPy out of the page process until a day is requested
    from edge.days.changes import Effect, Phase, Trial, TrialDay


@dataclass(frozen=True)
class Measured:
    """Result of one trial phase, `during` or `after`, for one measure."""

    trial: Trial
    effect: Effect
    name: str
    phase: Phase


def trial_rows(trials: Iterable[Trial]) -> Iterator[Measured]:
    """Yield the phases of all trials, measure by measure."""
    for trial in trials:
        for effect in trial.effects:
            for name, phase in (("during", effect.during), ("after", effect.after)):
                if phase is not None:
                    yield Measured(trial, effect, name, phase)


def _change(path: str) -> Callable[[Any, Words], Interval | None]:
    def of(row: Any, _: Words) -> Interval | None:
        found = follow(row, path)
        return None if found is None or found.change is None else Interval(found.change, found.low, found.high)

    return of


# One figure of a day, compared with other days.
COMPARISON = (
    Column("place", TEXT, _("Floor or zone"), "store, floor or zone: type of the place in this row.", "scope"),
    Column("id", TEXT, _("Id"), "Id of the place in the store file."),
    Column(
        "name",
        TEXT,
        _("Place"),
        "Name in the requested language.",
        lambda row, words: words.place(row.scope, row.id),
    ),
    Column("measure", TEXT, _("Measure"), "Quantity that is counted."),
    Column("now", INTEGER, _("This day"), "Value of this day, up to its as_of."),
    Column(
        "last_week",
        INTEGER,
        _("Same weekday last week"),
        "Value of the same weekday last week, over the same hours.",
        "last_week.before",
    ),
    Column(
        "last_week_change",
        RATIO,
        _("Change from last week"),
        "Relative change from last week; 0.1 means ten per cent more. Its interval is made of how much days usually"
        " differ.",
        _change("last_week"),
        interval=True,
    ),
    Column(
        "median_4w",
        NUMBER,
        _("Median of four like days"),
        "Median of the last four days of the same weekday and kind, up to twelve weeks back.",
    ),
    Column(
        "median_days",
        INTEGER,
        _("Comparable days"),
        "Number of comparable days among these; the median needs two.",
    ),
    Column("median_from", DATE, _("Earliest like day"), "The earliest of these days."),
    Column(
        "median_change",
        RATIO,
        _("Change from like days"),
        "Median of the relative changes from each of these days.",
    ),
    Column(
        "holiday",
        INTEGER,
        _("Same holiday last year"),
        "Value of the same day of the same holiday in the previous year.",
        "holiday.before",
    ),
    Column(
        "holiday_change",
        RATIO,
        _("Change from the holiday"),
        "Relative change from that day.",
        _change("holiday"),
        interval=True,
    ),
)


def _beside(row: Any, _: Words) -> Interval | None:
    found = row.change
    return None if found is None else Interval(found.value, found.low, found.high)


# One figure of days, compared with other days.
AGAINST = (
    Column("place", TEXT, _("Floor or zone"), "store, floor or zone: type of the place in this row.", "scope"),
    Column("id", TEXT, _("Id"), "Id of the place in the store file."),
    Column(
        "name", TEXT, _("Place"), "Name in the requested language.", lambda row, words: words.place(row.scope, row.id)
    ),
    Column("measure", TEXT, _("Measure"), "Quantity that is counted; engaged_share is a share."),
    Column("value", NUMBER, _("Value"), "Value of these days, over the hours known on both days of a pair.", "now", 4),
    Column("value_before", NUMBER, _("Value before"), "Value of the other days, over the same hours.", "before", 4),
    Column(
        "change",
        RATIO,
        _("Change"),
        "Relative change; of shares, the difference. With fewer than three pairs of days, its interval is made of how"
        " much days usually differ.",
        _beside,
        interval=True,
    ),
    Column("pairs", INTEGER, _("Pairs of days"), "Number of pairs of days that were comparable."),
)


_TRIAL = (
    Column("trial", TEXT, _("Id"), "Id of the promotion or layout change in the store file.", "trial.id"),
    Column(
        "name",
        TEXT,
        _("What"),
        "Name in the requested language.",
        lambda row, words: words.trial(row.trial.kind, row.trial.id),
    ),
)


@dataclass(frozen=True)
class Counted:
    """One measure on one day of a trial; the counts are None if it is unknown."""

    trial: Trial
    day: TrialDay
    measure: str
    zones: int | None
    controls: int | None


def line_rows(trials: Iterable[Trial]) -> Iterator[Counted]:
    """Yield the days of all trials that are not in the future, measure by measure."""
    for trial in trials:
        for effect in trial.effects:
            for day in trial.days:
                if day.state != "future":
                    yield Counted(trial, day, effect.measure, *day.counts.get(effect.measure, (None, None)))


# A Counted.
LINES = (
    Column("trial_kind", TEXT, _("Kind"), "promotion or layout.", "trial.kind"),
    *_TRIAL,
    Column("measure", TEXT, _("Measure"), "Quantity that is counted.", "measure"),
    Column("day", DATE, _("Day"), "Business day.", lambda row, _: row.day.date.isoformat(), key=True),
    Column(
        "phase", TEXT, _("Phase"), "before, during or after; for a layout change, during means since then.", "day.phase"
    ),
    Column("state", TEXT, _("State"), "measured, unknown (not all zones were covered) or closed.", "day.state"),
    Column("in_zones", INTEGER, _("in the zones"), "Count in the zones affected.", "zones"),
    Column("in_controls", INTEGER, _("in the control zones"), "Count in the control zones.", "controls"),
)

# A Measured for a promotion or a layout change.
TRIALS = (
    *_TRIAL,
    Column("state", TEXT, _("State"), "planned, running or over.", "trial.state"),
    Column("first_day", DATE, _("First day"), "First business day.", "trial.first_day"),
    Column(
        "last_day",
        DATE,
        _("Last day"),
        "Last business day; for a layout change, the last day included.",
        "trial.last_day",
    ),
    Column("zones", TEXT, _("Zones"), "Zones affected.", joined("trial.zones")),
    Column("controls", TEXT, _("compared with"), "Control zones used for comparison.", joined("trial.controls")),
    Column("measure", TEXT, _("Measure"), "Quantity that is counted.", "effect.measure"),
    Column("phase", TEXT, _("Phase"), "during or after; for a layout change, during means since the change.", "name"),
    Column(
        "change",
        RATIO,
        _("Change"),
        "Relative change compared with the control zones.",
        _change("phase.change"),
        interval=True,
    ),
    Column(
        "days_before",
        INTEGER,
        _("Days before"),
        "Number of days before that were compared.",
        "phase.change.days_before",
    ),
    Column(
        "days_after", INTEGER, _("Days after"), "Number of later days that were compared.", "phase.change.days_after"
    ),
    Column("n_before", INTEGER, _("n before"), "Count in the zones on the days before.", "phase.change.zones_before"),
    Column("n_after", INTEGER, _("n after"), "Count in the zones on the later days.", "phase.change.zones_after"),
    Column("days_used", INTEGER, _("Days used"), "Number of usable days.", "phase.days_used"),
    Column(
        "days_left_out",
        INTEGER,
        _("Days excluded"),
        "Number of excluded days: closed, not covered, or no comparable day before.",
        "phase.days_left_out",
    ),
)
