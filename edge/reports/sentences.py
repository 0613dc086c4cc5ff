"""Say what figures show, in a sentence or two for the top of a page, and what they don't show.

Rules:

1. A count is said as it is: it was counted, not estimated.
2. "Longest", "more" or "fewer" is only said without reserve if the interval says so. Otherwise the sentence itself says
   that the difference is not certain, or that there are too few days.
3. If a sentence chooses among several zones, their intervals are widened so that all of them together hold with 95 %
   (Bonferroni, dwell.compare.of_many): the more zones, the larger a difference must be. A promotion makes two claims,
   that more came and that more stayed; with sales three.
   The interval that is told is the figure's own, as in the tables; of a promotion, the widened one.
4. What is unknown is not mentioned as if it were small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edge.words.languages import catalogue
from edge.words.numbers import duration, local, number, percent
from edge.words.tables import Words

if TYPE_CHECKING:  # keeps NumPy out of the page process until a day is requested
    from dwell.compare import Share
    from edge.days.against import Against, AgainstReport
    from edge.days.changes import Comparison, Trial
    from edge.days.counters import Counters
    from edge.days.flows import FlowReport
    from edge.days.hours import HourReport
    from edge.days.need import NeedReport
    from edge.days.performance import Performance
    from edge.days.service import TierReport
    from edge.days.summary import Summary

NAMED = 3
"""Maximum number of zones named in a sentence."""
BETWEEN = {"en": ", ", "zh": "、"}
CLAUSES = {"en": ", ", "zh": "；"}
STOP = {"en": ".", "zh": "。"}
BEHIND = {"en": " ({share}, {low} … {high})", "zh": "（{share}，{low} … {high}）"}
INSIDE = {"en": ": {share}, {low} … {high}", "zh": "，{share}，{low} … {high}"}
"""A share with its interval, behind a count and inside brackets."""


def longest(words: Words, found: Counters) -> list[str]:
    """Say which counter holds people longest, and whether that is certain."""
    _ = catalogue(words.lang).gettext
    standing = sorted(found.standings, key=lambda one: (-one.median_s, one.zone))
    if not standing:
        return [_("There are too few visits to say which counter holds people longest.")]
    first, *others = standing
    own = next(((row.median_low_s, row.median_high_s) for row in found.zones if row.zone == first.zone), None)
    low_s, high_s = own or (first.low_s, first.high_s)
    told = {
        "zone": words.zone(first.zone),
        "median": duration(first.median_s, words.lang),
        "low": duration(low_s, words.lang),
        "high": duration(high_s, words.lang),
    }
    near = [one for one in others if one.high_s > first.low_s]
    if not others:
        return [_("{zone} is the only counter with enough visits: median {median} ({low} … {high}).").format(**told)]
    if not near:
        return [_("{zone} holds people longest: median {median} ({low} … {high}).").format(**told)]
    names = _listed(words, [one.zone for one in near])
    text = _(
        "{zone} has the longest median ({median}, {low} … {high}), but the difference from {others} is not certain."
    )
    return [text.format(others=names, **told)]


def busiest(words: Words, found: Summary) -> list[str]:
    """Say when and where most people came."""
    _ = catalogue(words.lang).gettext
    hours = [
        (hour.entered["member"] + hour.entered["unknown"], floor.floor, hour.start_us)
        for floor in found.floors
        for hour in floor.hours
        if hour.entered is not None
    ]
    n, floor, at_us = max(hours, key=lambda one: one[0], default=(0, "", 0))
    if not n:
        return []
    text = _("Most people came to {floor} in the hour from {hour}: {n}.")
    return [text.format(floor=words.floor(floor), hour=f"{local(words.config, at_us):%H:%M}", n=number(n))]


def changes(words: Words, beside: AgainstReport | None) -> list[str]:
    """Say whether more or fewer came than on the other days, and in which counters' visits a change is certain."""
    _ = catalogue(words.lang).gettext
    store = None if beside is None else beside.row("store", words.config.store.id, "journeys")
    if beside is None or store is None or store.change is None:
        return []
    texts = {
        "more": _("More people came than on the days compared: {change} ({low} … {high})."),
        "fewer": _("Fewer people came than on the days compared: {change} ({low} … {high})."),
        "chance": _(
            "The number of people differs by {change} from the days compared; with {low} … {high}, that may be chance."
        ),
        "few": _(
            "The number of people differs by {change} from the days compared; so few days can't show whether that is "
            "chance."
        ),
    }
    change = store.change
    said = [texts[_kind(change.sure, change.value, change.low)].format(**_told(change.value, change.low, change.high))]
    kinds = {zone.id: zone.kind.value for zone in words.config.zones}
    rows = [row for row in beside.rows if row.measure == "visits" and kinds.get(row.id) == "counter"]
    told = [row for row in rows if row.joint is not None and row.joint.low is not None]
    sure = sorted((row for row in told if row.joint and row.joint.sure), key=lambda row: -abs(_value(row)))
    if sure:
        parts = [f"{words.zone(row.id)} {_signed(_value(row))}" for row in sure[:NAMED]]
        said.append(_("Certain changes of visits: {zones}.").format(zones=_more(words, parts, len(sure))))
    elif told:
        said.append(_("No counter's visits have certainly changed."))
    return said


def like_days(words: Words, found: Comparison) -> list[str]:
    """Say whether more or fewer came than on the same weekday last week, and on the same holiday last year."""
    _ = catalogue(words.lang).gettext
    store = next(row for row in found.rows if row.scope == "store")
    beside = {_("the same weekday last week"): store.last_week, _("the same holiday last year"): store.holiday}
    texts = {
        "more": _("More people came than on {day}: {change} ({low} … {high})."),
        "fewer": _("Fewer people came than on {day}: {change} ({low} … {high})."),
        "chance": _("The number of people differs by {change} from {day}; with {low} … {high}, that may be chance."),
        "few": _(
            "The number of people differs by {change} from {day}; too few days are known to say whether that is chance."
        ),
    }
    # A holiday differs from an ordinary day, whatever else has changed.
    told = {day: one for day, one in beside.items() if one is not None and one.same_kind and one.change is not None}
    return [
        texts[_kind(one.sure, one.change, one.low)].format(day=day, **_told(one.change, one.low, one.high))
        for day, one in told.items()
    ]


def course(words: Words, found: Performance) -> list[str]:
    """Say which counters certainly fall in visits, dwell or tickets, and what isn't known."""
    _ = catalogue(words.lang).gettext
    some = [row for row in found.counters if any(one.judged for one in row.courses)]
    judged = {name: any(getattr(row, name).judged for row in some) for name in ("visits", "dwell", "tickets")}
    if not some:
        return [_("There are too few days to compare, or too few visits, to say how counters fare: choose 28 days.")]
    texts = {
        ("visits", "tickets"): _("Certainly fewer visits and fewer tickets: {zones}."),
        ("visits",): _("Certainly fewer visits: {zones}."),
        ("tickets",): _("Certainly fewer tickets: {zones}."),
        ("dwell",): _("Certainly shorter dwell only: {zones}."),
    }
    said = []
    left = {row.zone: row for row in some}
    for names, text in texts.items():
        zones = [zone for zone, row in left.items() if all(getattr(row, name).falls for name in names)]
        if zones:
            said.append(text.format(zones=_listed(words, zones)))
        left = {zone: row for zone, row in left.items() if zone not in zones}
    if not said and judged["visits"]:
        said.append(
            _("No counter has certainly lost visits, dwell or tickets.")
            if judged["tickets"]
            else _("No counter has certainly lost visits or dwell.")
        )
    elif not said:
        said.append(_("No counter's dwell has certainly become shorter."))
    if not judged["visits"]:
        text = _("Days with data on both sides: {n} of {all}, too few to say whether visits have changed.")
        said.append(text.format(n=found.pairs, all=found.days))
    if found.sold and not judged["tickets"]:
        said.append(_("Sales of too few days are known to say whether tickets have changed."))
    if not found.sold:
        said.append(_("No sales are known, so nothing can be said about tickets."))
    return said


def onward(words: Words, found: FlowReport, zone: str | None) -> list[str]:
    """Say where people go after a zone."""
    _ = catalogue(words.lang).gettext
    kinds = {one.id: one.kind.value for one in words.config.zones}
    steps = [step for step in found.stops if step.from_zone == zone]
    inside = [step for step in steps if kinds.get(step.to_zone or "", "exit") not in ("entrance", "exit")]
    if zone is None or not inside:
        return []
    from dwell.compare import of_many, share  # NumPy comes with the first day that is asked for

    level = of_many(len(inside))
    shares = [(step, share(step.n, step.leaving, level=level)) for step in inside]
    first, best = shares[0]
    if best is None:
        return [_("There are too few steps to say where people go after {zone}.").format(zone=words.zone(zone))]
    near = [step.to_zone or "" for step, one in shares[1:] if one is not None and one.high > best.low]
    own = first.share or best
    told = {"zone": words.zone(zone), "next": words.zone(first.to_zone or ""), "share": percent(own.value)}
    told |= {"low": percent(own.low), "high": percent(own.high)}
    if not near:
        return [_("After {zone}, most of those who stay go to {next}: {share} ({low} … {high}).").format(**told)]
    text = _(
        "After {zone}, {next} is the most frequent next stop ({share}, {low} … {high}); {others} may be as frequent."
    )
    return [text.format(others=_listed(words, near), **told)]


def trial(words: Words, found: Trial) -> list[str]:
    """Say whether more came and more stayed during a promotion, or since a layout change."""
    _ = catalogue(words.lang).gettext
    texts = {
        ("visitors", "more"): _("more came ({change}, {low} … {high})"),
        ("visitors", "fewer"): _("fewer came ({change}, {low} … {high})"),
        ("visitors", "chance"): _("no certain change in how many came ({change}, {low} … {high})"),
        ("engaged_visitors", "more"): _("more stayed ({change}, {low} … {high})"),
        ("engaged_visitors", "fewer"): _("fewer stayed ({change}, {low} … {high})"),
        ("engaged_visitors", "chance"): _("no certain change in how many stayed ({change}, {low} … {high})"),
        ("tickets", "more"): _("more tickets ({change}, {low} … {high})"),
        ("tickets", "fewer"): _("fewer tickets ({change}, {low} … {high})"),
        ("tickets", "chance"): _("no certain change in tickets ({change}, {low} … {high})"),
    }
    parts = []
    for effect in found.effects:
        change = effect.during.change
        if change is None:
            continue
        low, high = change.joint
        kind = "more" if low > 0 else "fewer" if high < 0 else "chance"
        told = {"change": _signed(change.change), "low": _signed(low), "high": _signed(high)}
        parts.append(texts[effect.measure, kind].format(**told))
    if not parts:
        return [_("There is not enough data yet to say what it did.")]
    text = CLAUSES[words.lang].join(parts)
    return [text[:1].upper() + text[1:] + STOP[words.lang]]


def unmet(words: Words, found: NeedReport) -> list[str]:
    """Say how many visits that expected service met nobody, and where and when most of them."""
    _ = catalogue(words.lang).gettext
    wanted, n = (sum(getattr(floor, name) for floor in found.floors) for name in ("wanted", "unserved"))
    if not wanted:
        return []
    if not n:
        return [_("Every visit long enough to expect service met staff.")]
    most, floor, hour = max(
        ((hour.unserved or 0, floor.floor, hour) for floor in found.floors for hour in floor.hours),
        key=lambda one: one[0],
    )
    text = _(
        "{n} of {all} longer visits met nobody{share}, above all on {floor} in the hour from {hour} ({most} of {then}"
        "{then_share})."
    )
    told = {"n": number(n), "all": number(wanted), "most": number(most), "then": number(hour.wanted)}
    told |= {"share": _share(words, found.share), "then_share": _share(words, hour.share, inside=True)}
    return [text.format(floor=words.floor(floor), hour=f"{local(words.config, hour.start_us):%H:%M}", **told)]


def unserved(words: Words, found: HourReport, kinds: Sequence[str]) -> list[str]:
    """Say how many visits that expected service came in hours with hardly any staff, and where most of them."""
    _ = catalogue(words.lang).gettext
    cells = [
        (hour.visit or 0, hour.engaged or 0, hour.visits_per_staff_hour is None, zone.zone, hour.start_us)
        for zone in found.zones
        if zone.kind in kinds
        for hour in zone.hours
        if hour.state == "measured"
    ]
    wanted = sum(visit + engaged for visit, engaged, *_rest in cells)
    alone = [(visit + engaged, zone, at_us) for visit, engaged, none, zone, at_us in cells if none]
    n = sum(many for many, *_rest in alone)
    if not wanted:
        return []
    if not n:
        return []
    most, zone, at_us = max(alone, key=lambda one: one[0])
    text = _(
        "{n} of {all} longer visits were in hours with hardly any staff, above all in {zone} from {hour} ({most})."
    )
    told = {"n": number(n), "all": number(wanted), "most": number(most), "zone": words.zone(zone)}
    return [text.format(hour=f"{local(words.config, at_us):%H:%M}", **told)]


def proposals(words: Words, found: NeedReport) -> list[str]:
    """Propose where more staff would have met customers, and say what that assumes."""
    _ = catalogue(words.lang).gettext
    if found.per_hour is None:
        return [_("Too few visits met staff to say how many more members of staff would help.")]
    if not found.proposals:
        return [_("In no hour was there enough missing to keep another member of staff busy.")]
    texts = {
        True: _("{start}–{end} {floor}: +{more} at {zone}; {unserved} of {wanted} visits met nobody{share}."),
        False: _(
            "{start}–{end} {floor}: perhaps +{more} at {zone}; {unserved} of {wanted} visits met nobody{share}. Whether"
            " that would keep another member of staff busy is not certain."
        ),
    }
    said = [
        texts[one.sure].format(
            start=f"{local(words.config, one.start_us):%H:%M}",
            end=f"{local(words.config, one.end_us):%H:%M}",
            floor=words.floor(one.floor),
            more=one.more,
            zone=words.zone(one.zone),
            unserved=number(one.unserved),
            wanted=number(one.wanted),
            share=_share(words, one.share),
        )
        for one in found.proposals
    ]
    assumed = _(
        "Assumed: a member of staff meets {rate} visits an hour, as in the busiest quarter of the staffed hours, and"
        " customers come as on these days."
    )
    return [*said, assumed.format(rate=f"{found.per_hour:.1f}")]


def targets(words: Words, found: TierReport) -> list[str]:
    """Say how often members of each tier with a target were served in time."""
    _ = catalogue(words.lang).gettext
    text = _("{tier}: served within {target} in {share} of visits ({low} … {high}).")
    return [
        text.format(
            tier=one.tier,
            target=duration(one.wait_target_s, words.lang),
            share=percent(one.wait_kept.value),
            low=percent(one.wait_kept.low),
            high=percent(one.wait_kept.high),
        )
        for one in found.tiers
        if one.wait_target_s is not None and one.wait_kept is not None
    ][:NAMED]


def trust(words: Words, found: Summary) -> list[str]:
    """Say whether the figures cover all zones, and which they don't."""
    _ = catalogue(words.lang).gettext
    least = words.config.thresholds.min_coverage
    dark = [zone.zone for zone in found.zones if zone.coverage is not None and zone.n is None]
    poor = [zone.zone for zone in found.zones if zone.n is not None and (zone.coverage or 1) < 0.95]
    if found.coverage is None:
        return []
    said = [_("The readers were up for {share} of the opening hours.").format(share=percent(found.coverage))]
    if dark:
        text = _("Nothing is known about {zones}: covered for less than {least}.")
        said.append(text.format(zones=_listed(words, dark), least=percent(least)))
    if poor:
        said.append(_("Figures of {zones} lack some hours.").format(zones=_listed(words, poor)))
    return said


def _kind(sure: bool, value: float | None, low: float | None) -> str:
    if value is None or low is None:
        return "few"
    return "chance" if not sure else "more" if value > 0 else "fewer"


def _told(value: float | None, low: float | None, high: float | None) -> dict[str, str]:
    return {"change": _signed(value), "low": _signed(low), "high": _signed(high)}


def _value(row: Against) -> float:
    return 0.0 if row.change is None else row.change.value


def _share(words: Words, found: Share | None, *, inside: bool = False) -> str:
    """Return a share with its interval, to be added to a count; nothing if it is unknown."""
    if found is None:
        return ""
    text = (INSIDE if inside else BEHIND)[words.lang]
    return text.format(share=percent(found.value), low=percent(found.low), high=percent(found.high))


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{round(share * 100):+d} %"


def _listed(words: Words, zones: Iterable[str]) -> str:
    names = [words.zone(zone) or zone for zone in zones]
    return _more(words, names[:NAMED], len(names))


def _more(words: Words, parts: Sequence[str], all_: int) -> str:
    _ = catalogue(words.lang).gettext
    text = BETWEEN[words.lang].join(parts)
    return text if all_ <= len(parts) else _("{zones} and {n} more").format(zones=text, n=all_ - len(parts))
