"""Rules for configurations from the CRM: they may tighten privacy, never loosen it.

Anyone who controls the broker can push one. The addresses and protocols of readers, the tag classes, retention times
and pictures of floors belong to the store: they may be included only unchanged, and keep their values if omitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from config.model import StoreConfig
from config.readers import Reader

SECTIONS = (
    *("store", "floors", "zones", "readers", "tag_classes", "thresholds", "opening_hours", "special_days"),
    *("promotions", "layout_changes", "service_targets", "cues"),
)
OWN = ("mqtt", "database", "web", "monitoring", "mail", "privacy", "calibration", "forwarders", "forwarding", "standby")
"""Sections that can't be pushed: broker, files and ports of the gateway, data that leaves it and to whom, its
calibration, and the store's other gateways."""
FREE_THRESHOLDS = frozenset(
    {
        *("def_version", "touch_s", "visit_s", "engaged_s", "join_gap_s", "business_day_start", "assist_s"),
        *("min_coverage", "recognition_ttl_s", "lateness_s"),
    }
)
BOUNDS: dict[str, Literal["at least", "at most"]] = {
    "small_cell": "at least",
    # Suspect tags are reported individually, and a short time would make everyone suspect.
    "suspect_s": "at least",
    "suspect_back_room_s": "at least",
    "stuck_s": "at least",
    # A journey that does not end would link several days of an unknown person.
    "journey_end_after_exit_s": "at most",
    "journey_end_silence_s": "at most",
}
"""Thresholds that may be changed in one direction only; retention times are in neither list and can't be changed."""
FREE_OF_READERS = frozenset(
    {
        *("id", "antennas", "region", "profile", "session", "search_mode", "phase", "filter", "inputs", "outputs"),
        *("groups", "group_s", "report_tags"),
    }
)
"""Keys of a reader that may be pushed; `filter` may be turned on, but not off."""


def complete(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Complete pushed sections with the store's other sections, and with the store's keys where they are omitted."""
    made = {**own, **given}
    thresholds, mine = given.get("thresholds"), own.get("thresholds", {})
    if isinstance(thresholds, dict):
        made["thresholds"] = {key: mine[key] for key in mine if key not in FREE_THRESHOLDS} | thresholds
    if isinstance(floors := given.get("floors"), list):
        images = {floor["id"]: floor["image"] for floor in own.get("floors", []) if "image" in floor}
        made["floors"] = [_with_image(floor, images) for floor in floors]
    if isinstance(readers := given.get("readers"), list):
        known = {reader["id"]: reader for reader in own.get("readers", [])}
        made["readers"] = [_completed(reader, known) for reader in readers]
    return made


def loosened(made: StoreConfig, own: StoreConfig) -> list[str]:
    """List the changes that a configuration is not allowed to make, with key and reason."""
    problems = [*_thresholds(made, own), *_readers(made, own)]
    mine = {floor.id: floor.image for floor in own.floors}
    for number, floor in enumerate(made.floors):
        if floor.image is not None and floor.image != mine.get(floor.id):
            problems.append(f"floors[{number}].image: pictures are files of the gateway, determined by the store")
    if made.tag_classes != own.tag_classes:
        problems.append("tag_classes: tag classes are determined by the store")
    return problems


def _with_image(floor: Any, images: Mapping[str, Any]) -> Any:
    if not isinstance(floor, dict) or not isinstance(id_ := floor.get("id"), str) or id_ not in images:
        return floor
    return {"image": images[id_], **floor}


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
            yield f"thresholds.{key}: retention times are determined by the store ({mine})"
        elif (theirs < mine) == (bound == "at least"):
            yield f"thresholds.{key}: {theirs}, but {bound} the store's own {mine} required: privacy can't be loosened"


def _readers(made: StoreConfig, own: StoreConfig) -> Iterator[str]:
    known = {reader.id: reader for reader in own.readers}
    for number, reader in enumerate(made.readers):
        where = f"readers[{number}]"
        mine = known.get(reader.id)
        if mine is None:
            yield f"{where}: the store has no reader {reader.id!r}, and readers can't be added"
            continue
        for key in Reader.model_fields:
            theirs, there = getattr(reader, key), getattr(mine, key)
            if key not in FREE_OF_READERS and _plain(theirs) != _plain(there):
                yield f"{where}.{key}: the connection to a reader is determined by the store"
        if mine.filter and not reader.filter:
            yield f"{where}.filter: the store has turned it on, and it can't be turned off"


def _plain(value: Any) -> Any:
    """Normalise a MAC address or fingerprint, which may contain colons."""
    return value.replace(":", "").replace("-", "").lower() if isinstance(value, str) else value
