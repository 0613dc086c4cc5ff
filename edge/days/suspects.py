"""Tags suspected to be staff or stuck, from a read-only connection."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from config import ZoneKind
from config.facts import TAG_CLASSES
from dwell.stays import Span
from edge.database.reader import Past
from edge.days.facts import read_stays, suspects


@dataclass(frozen=True)
class Suspect:
    """A tag that does not move like a customer; it is excluded from the day's figures unless cleared."""

    tag: str
    """Pseudonym in hex, which changes daily for most tags."""
    tag_class: str
    reasons: tuple[str, ...]
    """From dwell.suspects.REASONS; empty if it was only confirmed on an earlier day."""
    present_s: float
    back_room_s: float
    different_zones: int
    """Number of different zones visited."""
    zone: str
    """Zone with the longest stay."""
    first_us: int
    last_us: int
    confirmed: bool | None
    """Verdict of a manager, None without one."""


def suspected_tags(past: Past, date: dt.date) -> tuple[Suspect, ...]:
    """List the suspected staff and stuck tags of a day, longest first; empty once the day's visits are deleted."""
    config = past.config
    span = Span(*past.bounds_us(date))
    stays, tags = read_stays(past, span)
    found = []
    for carrier, one in suspects(stays, tags, config, date).items():
        own = stays[stays["carrier"] == carrier]
        own = own[(own["exit_us"] > span.start_us) & (own["enter_us"] < span.end_us)]
        long_us = np.minimum(own["exit_us"], span.end_us) - np.maximum(own["enter_us"], span.start_us)
        by_zone = np.bincount(own["zone"], weights=long_us, minlength=len(config.zones))
        back = np.array([zone.kind == ZoneKind.BACK_ROOM for zone in config.zones])
        found.append(
            Suspect(
                tag=tags[carrier].hex(),
                tag_class=TAG_CLASSES[own["tag_class"][0]],
                reasons=() if one.why is None else one.why.reasons,
                present_s=int(long_us.sum()) / 1e6,
                back_room_s=float(by_zone[back].sum()) / 1e6,
                different_zones=int((by_zone > 0).sum()),
                zone=config.zones[int(by_zone.argmax())].id,
                first_us=int(own["enter_us"].min()),
                last_us=int(own["exit_us"].max()),
                confirmed=one.confirmed,
            )
        )
    return tuple(sorted(found, key=lambda suspect: (-suspect.present_s, suspect.tag)))
