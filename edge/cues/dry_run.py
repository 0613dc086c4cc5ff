"""Dry run: apply cue rules to the visits of a past day."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass

from config import StoreConfig
from config.cues import is_quiet, pick
from config.facts import TAG_CLASSES
from config.model import CueKind, Cues
from edge.cues.waits import waited
from edge.database.reader import Past


@dataclass(frozen=True)
class WouldBe:
    """A cue that the rules would have created."""

    at_us: int
    kind: CueKind
    tier: str
    zone: str
    rule: str


@dataclass(frozen=True)
class DryRun:
    """Result of a dry run: the cues, and the number of members' journeys."""

    date: dt.date
    journeys: int
    cues: tuple[WouldBe, ...]

    def by_hour(self, config: StoreConfig) -> dict[int, int]:
        """Return local hour → number of cues, for hours with cues only."""
        counts: dict[int, int] = defaultdict(int)
        for cue in self.cues:
            counts[dt.datetime.fromtimestamp(cue.at_us / 1e6, config.store.tz).hour] += 1
        return dict(sorted(counts.items()))


def try_out(past: Past, cues: Cues, date: dt.date) -> DryRun:
    """Apply rules to a business day, at most one cue of each kind per journey. Censored visits are included."""
    config = past.config
    span = past.bounds_us(date)
    staff: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for zone, *stay in past.conn.execute(
        "SELECT zone, enter_us, exit_us FROM visit WHERE enter_us >= ? AND enter_us < ? AND tag_class = ?",
        (*span, TAG_CLASSES.index("staff")),
    ):
        staff[zone].append((stay[0], stay[1]))
    kinds = {zone.id: zone.kind for zone in config.zones}
    assist_us = round(config.thresholds.assist_s * 1e6)
    found: dict[tuple[bytes, int, CueKind], WouldBe] = {}
    journeys: set[tuple[bytes, int]] = set()
    rows = past.conn.execute(
        "SELECT visit.tag, journey_us, tier, zone, enter_us, exit_us FROM visit JOIN directory USING (tag)"
        " WHERE enter_us >= ? AND enter_us < ? AND visit.member IS NOT NULL ORDER BY enter_us, id",
        span,
    )
    for tag, journey_us, tier, zone, enter_us, exit_us in rows:
        if zone not in kinds:
            continue
        if (tag, journey_us) not in journeys:
            journeys.add((tag, journey_us))
            rule = pick(cues, "arrival", tier, zone, kinds[zone])
            if rule is not None and not _quiet(cues, config, enter_us):
                found[tag, journey_us, "arrival"] = WouldBe(enter_us, "arrival", tier, zone, rule.id)
        rule = pick(cues, "waiting", tier, zone, kinds[zone])
        if rule is None or rule.wait_s is None or (tag, journey_us, "waiting") in found:
            continue
        due_us = waited(enter_us, exit_us, staff[zone], round(rule.wait_s * 1e6), assist_us)
        if due_us is not None and not _quiet(cues, config, due_us):
            found[tag, journey_us, "waiting"] = WouldBe(due_us, "waiting", tier, zone, rule.id)
    return DryRun(date, len(journeys), tuple(sorted(found.values(), key=lambda cue: cue.at_us)))


def _quiet(cues: Cues, config: StoreConfig, at_us: int) -> bool:
    return is_quiet(cues, dt.datetime.fromtimestamp(at_us / 1e6, config.store.tz).time())
