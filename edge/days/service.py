"""Members by tier, staff and service, from a read-only connection. See edge.days.counters."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.facts import SERVED
from dwell.aggregates import MIDDLES_S
from edge.database.reader import Past
from edge.days.kept import DAY
from edge.days.scope import Rate, Scope, coverage, hide, history_days, over, quantile_s, rate, ratio


@dataclass(frozen=True)
class TierScore:
    """Members of one tier, with consent; all None if fewer than small_cell, or if a hidden number could be derived."""

    tier: str
    members: int | None
    """Over several days, each day is counted separately."""
    journeys: int | None
    visits: int | None
    visit_share: float | None
    """Share of all people's visits."""
    dwell_share: float | None
    """Share of the total duration of all people's visits."""
    returning: Rate | None
    """Members also seen in the previous returning_days ÷ members seen."""
    met: Rate | None
    """Visits that met staff ÷ visits long enough to expect service."""
    wait_median_s: float | None
    wait_p75_s: float | None
    assist_median_s: float | None
    contact: Rate | None
    """Contact coverage: journeys with at least one staff contact ÷ journeys."""
    wait_target_s: float | None
    """From the store file; None if not set."""
    wait_kept: Rate | None
    """Visits that met staff within the target ÷ visits long enough to expect service."""
    assist_target_s: float | None
    assist_kept: Rate | None
    """Visits with assistance of at least the target time ÷ visits that met staff."""


@dataclass(frozen=True)
class TierReport:
    scope: Scope
    members: int
    """Number of all members, including those of hidden tiers."""
    tiers: tuple[TierScore, ...]
    history_days: int
    """Number of previous days that are known; less than returning_days in a young database."""


def tiers(past: Past, date: dt.date, days: int = 1) -> TierReport:
    """Summarise members by tier, and how they were served."""
    config = past.config
    scope, found = over(past, date, days)
    history = history_days(past, date - (days - 1) * DAY)
    least = config.thresholds.small_cell
    counts = {tier: found.tiers[tier].get("members", 0) for tier in sorted(found.tiers)}
    hidden = hide(counts, least)
    targets = {target.tier: target for target in config.service_targets}
    rows = []
    for tier in counts:
        if tier in hidden:
            rows.append(TierScore(tier, *[None] * 15))
            continue
        t = {name: int(found.tiers[tier].get(name, 0)) for name in found.tiers[tier]}
        wait, assist = found.tier_wait.get(tier), found.tier_assist.get(tier)
        target = targets.get(tier)
        rows.append(
            TierScore(
                tier=tier,
                members=counts[tier],
                journeys=t.get("journeys", 0),
                visits=t.get("visits", 0),
                visit_share=ratio(t.get("visits", 0), found.people.get("visits", 0)),
                dwell_share=ratio(t.get("dwell_us", 0), found.people.get("dwell_us", 0)),
                returning=rate(t.get("returning", 0), counts[tier], least) if history > 0 else None,
                met=rate(t.get("met", 0), t.get("wanted", 0), least),
                wait_median_s=quantile_s(wait, 0.5, least),
                wait_p75_s=quantile_s(wait, 0.75, least),
                assist_median_s=quantile_s(assist, 0.5, least),
                contact=rate(t.get("contacted", 0), t.get("journeys", 0), least),
                wait_target_s=None if target is None else target.wait_s,
                wait_kept=None if target is None else rate(_up_to(wait, target.wait_s), t.get("wanted", 0), least),
                assist_target_s=None if target is None else target.assist_s,
                assist_kept=None
                if target is None or target.assist_s is None
                else rate(t.get("met", 0) - _up_to(assist, target.assist_s), t.get("met", 0), least),
            )
        )
    return TierReport(scope, sum(counts.values()), tuple(rows), history)


@dataclass(frozen=True)
class ServiceScore:
    """Service in one zone. Being in the same zone indicates service but does not prove it."""

    zone: str
    floor: str
    kind: str
    coverage: float | None
    staffed: float | None
    """Share of the known opening hours with at least one staff badge in the zone."""
    wanted: int | None
    """Complete visits of visit_s or longer; None for zone kinds that are not SERVED."""
    met: Rate | None
    """Share of these with a contact: a staff badge in the zone for assist_s of the visit."""
    wait_median_s: float | None
    """From the start of the visit to the first contact, for visits with a contact."""
    wait_p75_s: float | None
    assist_median_s: float | None
    """Time that a staff badge was there, for visits with a contact."""
    assist_mean_s: float | None
    """Mean of the same; `met` has the number of visits."""
    visits_per_staffed_hour: float | None
    visits_per_staff_hour: float | None
    """Visits of visit_s or longer per staff hour; two badges for one hour are two staff hours."""


@dataclass(frozen=True)
class ServiceReport:
    scope: Scope
    zones: tuple[ServiceScore, ...]
    contact: Rate | None
    """Members' journeys with at least one contact ÷ members' journeys."""


def service(past: Past, date: dt.date, days: int = 1) -> ServiceReport:
    """Compute staffed time, waiting and assistance by zone."""
    config = past.config
    scope, found = over(past, date, days)
    least = config.thresholds.small_cell
    rows = []
    for number, zone in enumerate(config.zones):
        facts, base = found.zones[number], found.base[number]
        if not base["known_windows"]:
            rows.append(ServiceScore(zone.id, zone.floor, zone.kind.value, coverage(base), *[None] * 9))
            continue
        wanted, met = int(facts["wanted"]), int(facts["met"])  # only in zones with service, as in dwell.service
        hours = int(base["staffed_us"]) / 3.6e9
        served = int(facts["visit"] + facts["engaged"])
        rows.append(
            ServiceScore(
                zone=zone.id,
                floor=zone.floor,
                kind=zone.kind.value,
                coverage=coverage(base),
                staffed=ratio(int(base["staffed_us"]), int(base["known_us"])),
                wanted=wanted if zone.kind in SERVED else None,
                met=rate(met, wanted, least),
                wait_median_s=quantile_s(found.wait[number], 0.5, least),
                wait_p75_s=quantile_s(found.wait[number], 0.75, least),
                assist_median_s=quantile_s(found.assist[number], 0.5, least),
                assist_mean_s=int(facts["assist_us"]) / met / 1e6 if met >= max(least, 1) else None,
                visits_per_staffed_hour=served / hours if hours >= 1 else None,
                visits_per_staff_hour=_per_hour(served, int(facts["staff_us"])),
            )
        )
    contact = rate(int(found.store["met"]), int(found.store["member"]), least)
    return ServiceReport(scope, tuple(rows), contact)


def _up_to(histogram: NDArray[np.int64] | None, seconds: float) -> int:
    """Count the histogram's entries up to a duration; a bin is represented by its geometric middle, as in quantiles."""
    return 0 if histogram is None else int(histogram[seconds >= MIDDLES_S].sum())


def _per_hour(n: int, long_us: int) -> float | None:
    return n / (long_us / 3.6e9) if long_us >= 3.6e9 else None
