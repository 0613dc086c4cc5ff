"""Rules for configurations from the CRM: they may tighten privacy, never loosen it.

Whoever holds the broker can send one. Where readers are and how they are spoken to, which tags are members', and how
long anything is kept is the store's own: it may be carried only as it is, and stays where it is not carried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from config.model import Reader, StoreConfig

SECTIONS = (
    *("store", "floors", "zones", "readers", "tag_classes", "thresholds", "opening_hours", "special_days"),
    *("promotions", "layout_changes", "service_targets", "cues"),
)
OWN = ("mqtt", "database", "web", "privacy", "calibration")
"""Broker, files and doors of the gateway, what leaves it of people, and what was measured at it: no message touches
them."""
FREE_THRESHOLDS = frozenset(
    {
        *("def_version", "touch_s", "visit_s", "engaged_s", "join_gap_s", "business_day_start", "assist_s"),
        *("min_coverage", "recognition_ttl_s", "lateness_s"),
    }
)
BOUNDS: dict[str, Literal["at least", "at most"]] = {
    "small_cell": "at least",
    # Suspected tags are told of one by one: a short time would make everybody one.
    "suspect_s": "at least",
    "suspect_back_room_s": "at least",
    "stuck_s": "at least",
    # A journey that doesn't end joins the days of somebody whom nobody knows.
    "journey_end_after_exit_s": "at most",
    "journey_end_silence_s": "at most",
}
"""Thresholds that may only move one way from the store's own; those in neither are keep times, and the store's own."""
FREE_OF_READERS = frozenset(
    {"id", "antennas", "region", "profile", "session", "search_mode", "phase", "filter", "inputs", "outputs"}
)
"""Keys of a reader that may be carried; `filter` may be turned on, not off."""


def complete(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A carried text's sections with the store's own others, and the store's own keys where they are left out."""
    made = {**own, **given}
    thresholds, mine = given.get("thresholds"), own.get("thresholds", {})
    if isinstance(thresholds, dict):
        made["thresholds"] = {key: mine[key] for key in mine if key not in FREE_THRESHOLDS} | thresholds
    if isinstance(readers := given.get("readers"), list):
        known = {reader["id"]: reader for reader in own.get("readers", [])}
        made["readers"] = [_completed(reader, known) for reader in readers]
    return made


def loosened(made: StoreConfig, own: StoreConfig) -> list[str]:
    """What a configuration would take from the store: key and reason of each."""
    problems = [*_thresholds(made, own), *_readers(made, own)]
    if made.tag_classes != own.tag_classes:
        problems.append("tag_classes: which tags are whose is the store's own")
    return problems


def _completed(reader: Any, known: Mapping[str, Mapping[str, Any]]) -> Any:
    if not isinstance(reader, dict) or not isinstance(id_ := reader.get("id"), str) or id_ not in known:
        return reader
    kept = {key: value for key, value in known[id_].items() if key not in FREE_OF_READERS or key == "filter"}
    return kept | reader


def _thresholds(made: StoreConfig, own: StoreConfig) -> Iterator[str]:
    for key in type(own.thresholds).model_fields:
        theirs, mine = getattr(made.thresholds, key), getattr(own.thresholds, key)
        if key in FREE_THRESHOLDS or theirs == mine:
            continue
        bound = BOUNDS.get(key)
        if bound is None:
            yield f"thresholds.{key}: how long anything is kept is the store's own ({mine})"
        elif (theirs < mine) == (bound == "at least"):
            yield f"thresholds.{key}: {theirs}, but {bound} the store's own {mine} is wanted: privacy is never loosened"


def _readers(made: StoreConfig, own: StoreConfig) -> Iterator[str]:
    known = {reader.id: reader for reader in own.readers}
    for number, reader in enumerate(made.readers):
        where = f"readers[{number}]"
        mine = known.get(reader.id)
        if mine is None:
            yield f"{where}: the store has no reader {reader.id!r}, and which there are is the store's own"
            continue
        for key in Reader.model_fields:
            theirs, there = getattr(reader, key), getattr(mine, key)
            if key not in FREE_OF_READERS and _plain(theirs) != _plain(there):
                yield f"{where}.{key}: how a reader is reached is the store's own"
        if mine.filter and not reader.filter:
            yield f"{where}.filter: the store has it on, and it may not be turned off"


def _plain(value: Any) -> Any:
    """A MAC or fingerprint may be written with colons or without."""
    return value.replace(":", "").replace("-", "").lower() if isinstance(value, str) else value
