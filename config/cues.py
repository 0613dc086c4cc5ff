"""Cue rules: which rule applies to a member, quiet hours, and validation of rules entered on the page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from config.facts import SERVED, ZoneKind
from config.lines import Place
from config.messages import explain, is_echo
from config.model import CueKind, CueRule, Cues
from config.relations import cues as relations


def pick(cues: Cues, kind: CueKind, tier: str, zone: str, zone_kind: ZoneKind) -> CueRule | None:
    """Return the first matching rule."""
    for rule in cues.rules:
        here = zone in rule.zones if rule.zones is not None else kind == "arrival" or zone_kind in SERVED
        if rule.kind == kind and here and (rule.tiers is None or tier in rule.tiers):
            return rule
    return None


def is_quiet(cues: Cues, at: dt.time) -> bool:
    """True if a local time is in quiet hours."""
    now = f"{at:%H:%M}"
    return any(
        hours.begin <= now < hours.end if hours.begin < hours.end else now >= hours.begin or now < hours.end
        for hours in cues.quiet
    )


def parse(raw: Mapping[str, Any], zones: Mapping[str, str]) -> tuple[Cues | None, list[tuple[Place, str]]]:
    """Parse rules as entered; return them, and their errors by place within [cues]. No rules if there are errors.

    `zones`: id → kind of the store's zones.
    """
    found: list[tuple[Place, str]] = []
    made = None
    try:
        made = Cues.model_validate(raw)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            if not is_echo(error):
                place, what = explain({**error, "loc": ("cues", *error["loc"])})
                found.append((place[1:], what))
    known = [{"id": id_, "kind": kind} for id_, kind in zones.items()]
    found += [(place[1:], what) for place, what, soft in relations({"zones": known, "cues": raw}) if not soft]
    return (None if found else made), found
