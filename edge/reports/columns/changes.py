"""Columns of tables that hold days against days."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.reports.columns.shared import joined
from edge.words.languages import message as _
from edge.words.tables import INTEGER, NUMBER, RATIO, TEXT, Column, Interval, Words

if TYPE_CHECKING:  # the page does without NumPy until somebody asks for a day
    from edge.days.changes import Effect, Phase, Trial


@dataclass(frozen=True)
class Measured:
    """One phase of a trial, `during` or `after`, by one measure."""

    trial: Trial
    effect: Effect
    name: str
    phase: Phase


def trial_rows(trials: Iterable[Trial]) -> Iterator[Measured]:
    """Phases of trials, measure by measure."""
    for trial in trials:
        for effect in trial.effects:
            for name, phase in (("during", effect.during), ("after", effect.after)):
                if phase is not None:
                    yield Measured(trial, effect, name, phase)


def _change(row: Any, _: Words) -> Interval | None:
    found = row.phase.change
    return None if found is None else Interval(found.change, found.low, found.high)


# One number of a day beside what it was on others.
COMPARISON = (
    Column("place", TEXT, _("Floor or zone"), "store, floor or zone: what the row is of.", "scope"),
    Column("id", TEXT, _("Id"), "Its id in the store file."),
    Column(
        "name",
        TEXT,
        _("Place"),
        "Its name in the language asked for.",
        lambda row, words: words.place(row.scope, row.id),
    ),
    Column("measure", TEXT, _("Measure"), "What is counted."),
    Column("now", INTEGER, _("This day"), "This day's number, up to its as_of."),
    Column(
        "last_week",
        INTEGER,
        _("Same weekday last week"),
        "The same weekday's of last week, over the same hours.",
        "last_week.before",
    ),
    Column(
        "last_week_change",
        RATIO,
        _("Change against last week"),
        "Relative change against it: 0.1 is ten per cent more.",
        "last_week.change",
    ),
    Column("median_4w", NUMBER, _("Median of four weeks"), "Median of the last four such weekdays."),
    Column(
        "median_change",
        RATIO,
        _("Change against four weeks"),
        "Median of the changes against each of them.",
    ),
    Column(
        "holiday",
        INTEGER,
        _("Same holiday last year"),
        "The same day of the same holiday a year before.",
        "holiday.before",
    ),
    Column(
        "holiday_change",
        RATIO,
        _("Change against the holiday"),
        "Relative change against it.",
        "holiday.change",
    ),
)

# A Measured, of a promotion or of a layout change.
TRIALS = (
    Column("trial", TEXT, _("Id"), "Promotion or layout change, by its id in the store file.", "trial.id"),
    Column(
        "name",
        TEXT,
        _("What"),
        "Its name in the language asked for.",
        lambda row, words: words.trial(row.trial.kind, row.trial.id),
    ),
    Column("state", TEXT, _("State"), "planned, running or over.", "trial.state"),
    Column("first_day", TEXT, _("First day"), "Its first business day.", "trial.first_day"),
    Column(
        "last_day",
        TEXT,
        _("Last day"),
        "Its last business day; of a layout change the last one that is looked at.",
        "trial.last_day",
    ),
    Column("zones", TEXT, _("Zones"), "Zones in which it was.", joined("trial.zones")),
    Column("controls", TEXT, _("compared with"), "Zones that it is held against.", joined("trial.controls")),
    Column("measure", TEXT, _("Measure"), "What is counted.", "effect.measure"),
    Column("phase", TEXT, _("Phase"), "during or after; of a layout change during means since.", "name"),
    Column(
        "change",
        RATIO,
        _("Change"),
        "Relative change beyond that of the controls.",
        _change,
        interval=True,
    ),
    Column("days_before", INTEGER, _("Days before"), "Days before that were compared.", "phase.change.days_before"),
    Column("days_after", INTEGER, _("Days after"), "Later days that were compared.", "phase.change.days_after"),
    Column("n_before", INTEGER, _("n before"), "Counted in the zones on the days before.", "phase.change.zones_before"),
    Column("n_after", INTEGER, _("n after"), "Counted in the zones on the later days.", "phase.change.zones_after"),
    Column("days_used", INTEGER, _("Days used"), "Days that could be used.", "phase.days_used"),
    Column(
        "days_left_out",
        INTEGER,
        _("Days left out"),
        "Days that could not: closed, not covered, or no such day before.",
        "phase.days_left_out",
    ),
)
