"""Promotions and layout changes day by day: the zones' line beside that of their control zones, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from edge.words.languages import catalogue
from edge.words.numbers import number, percent

if TYPE_CHECKING:  # NumPy is imported with the first day
    from edge.days.changes import Trial, TrialDay

PHASES = ("before", "during", "after")
TOP = 5.0
"""Per cent of the height above the highest value."""
APART = 12.0
"""Least distance between two dates on the axis, per cent of the width."""
ROOM = 1.2
"""The scale has a second label if it reaches beyond this."""
ENOUGH_DAYS = 3
"""A mean of fewer days before is no base to draw against."""


@dataclass(frozen=True)
class PhaseMean:
    """Means per known day of a phase; of the control zones None if there are none."""

    phase: str
    days: int
    zones: float
    controls: float | None


@dataclass(frozen=True)
class TrialLine:
    """One measure of a promotion or layout change."""

    measure: str
    svg: Markup
    """Empty if too few days before are known to draw it."""
    means: tuple[PhaseMean, ...]
    """Of the phases of which any day is known."""


def trial_lines(trial: Trial, lang: str) -> tuple[TrialLine, ...]:
    """Draw every measure of a promotion or layout change, each in per cent of its mean before."""
    return tuple(
        TrialLine(effect.measure, _svg(trial, effect.measure, means, lang), means)
        for effect in trial.effects
        for means in [_means(trial.days, effect.measure)]
        if trial.days
    )


def _means(days: Sequence[TrialDay], measure: str) -> tuple[PhaseMean, ...]:
    found = []
    for phase in PHASES:
        counts = [day.counts[measure] for day in days if day.phase == phase and measure in day.counts]
        if counts:
            others = [controls for _, controls in counts if controls is not None]
            own = sum(zones for zones, _ in counts) / len(counts)
            found.append(PhaseMean(phase, len(counts), own, sum(others) / len(others) if others else None))
    return tuple(found)


def _svg(trial: Trial, measure: str, means: Sequence[PhaseMean], lang: str) -> Markup:
    base = next((mean for mean in means if mean.phase == "before"), None)
    if base is None or base.days < ENOUGH_DAYS or not base.zones:
        return Markup()
    lines = [[_share(day, measure, 0, base.zones) for day in trial.days]]
    if base.controls:
        lines.append([_share(day, measure, 1, base.controls) for day in trial.days])
    most = max((share for line in lines for share in line if share is not None), default=1.0)
    most = max(most, 1.0)
    step = 100 / len(trial.days)

    def x(place: float) -> float:
        return round(step * place, 2)

    def y(share: float) -> float:
        return round(100 - (100 - TOP) * share / most, 2)

    _ = catalogue(lang).gettext
    parts = _ground(trial, lang)
    parts.append(f'<line class="base" x1="0" y1="{y(1)}%" x2="100%" y2="{y(1)}%"/>')
    parts.append(f'<text class="scale" x="0" y="{y(1)}%" dy="-3">100 %</text>')
    if most > ROOM:
        parts.append(f'<text class="scale" x="0" y="{y(most)}%" dy="3">{percent(most)}</text>')
    for line, name in reversed(list(zip(lines, ("own", "control"), strict=False))):
        middles = [(x(place + 0.5), share) for place, share in enumerate(line)]
        parts += [
            f'<line class="{name}" x1="{x1}%" y1="{y(one)}%" x2="{x2}%" y2="{y(two)}%"/>'
            for (x1, one), (x2, two) in pairwise(middles)
            if one is not None and two is not None
        ]
        for (at, share), day in zip(middles, trial.days, strict=True):
            if share is not None:
                title = f"<title>{_title(day, measure, lang)}</title>"
                parts.append(f'<circle class="{name}" cx="{at}%" cy="{y(share)}%" r="2.5">{title}</circle>')
    label = _("Day by day, in per cent of the mean before; also shown as a list below")
    head = f'<svg class="bars course" role="img" aria-label="{label}">'
    dates: list[str] = []
    last = -APART
    for place, day in enumerate(trial.days):
        if (place == 0 or day.phase != trial.days[place - 1].phase) and x(place) >= last + APART:
            last = x(place)
            dates.append(f'<text x="{last}%" y="13">{day.date:%m-%d}</text>')
    axis = '</svg><svg class="hours course" aria-hidden="true" focusable="false">'
    return Markup("".join((head, *parts, axis, *dates, "</svg>")))


def _ground(trial: Trial, lang: str) -> list[str]:
    """Return the phases as bands with their names, and hatched days that are unknown."""
    _ = catalogue(lang).gettext
    step = 100 / len(trial.days)
    names = {"before": _("before"), "during": _("during"), "after": _("afterwards")}
    if trial.kind == "layout":
        names["during"] = _("since then")
    parts = []
    for phase in PHASES:
        places = [place for place, day in enumerate(trial.days) if day.phase == phase]
        if not places:
            continue
        left, width = round(step * places[0], 2), round(step * len(places), 2)
        if phase == "during":
            parts.append(f'<rect class="during" x="{left}%" y="0" width="{width}%" height="100%"/>')
        parts.append(f'<text class="phase" x="{round(left + width / 2, 2)}%" y="-5">{names[phase]}</text>')
    unknown, closed = _("unknown: not all zones were covered"), _("closed")
    for place, day in enumerate(trial.days):
        if day.state == "unknown":
            size = f'x="{round(step * place, 2)}%" y="{TOP}%" width="{round(step, 2)}%" height="{100 - TOP}%"'
            parts.append(f'<rect {size} fill="url(#hatch)"><title>{day.date}: {unknown}</title></rect>')
        elif day.state == "closed":
            at = round(step * (place + 0.5), 2)
            parts.append(f'<text class="shut" x="{at}%" y="98%">×<title>{day.date}: {closed}</title></text>')
    return parts


def _share(day: TrialDay, measure: str, side: int, base: float) -> float | None:
    count = day.counts[measure][side] if measure in day.counts else None
    return None if count is None else count / base


def _title(day: TrialDay, measure: str, lang: str) -> str:
    zones, controls = day.counts[measure]
    _ = catalogue(lang).gettext
    text = f"{day.date}: {number(zones)}"
    return text if controls is None else f"{text} · {_('control zones')} {number(controls)}"
