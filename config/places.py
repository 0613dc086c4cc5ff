"""Warnings about implausible zones and antennas: units other than metres, overlaps, antennas outside their zone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from config.geometry import (
    NEIGHBOUR_M,
    Polygon,
    area,
    contains,
    crosses_itself,
    distance,
    extent,
    is_flat,
    outside,
    overlap,
    within,
)
from config.lines import Place
from config.messages import show
from config.relations import Found, Raw, is_point, ports_of, tables

WIDE_M = 200.0
"""Zones longer than this are implausible: probably centimetres or map coordinates."""
NARROW_M = 0.3
FAR_M = 100.0
"""Largest plausible distance between a zone and the nearest other zone on its floor."""
FEW = 3
"""Maximum number of implausible zones reported one by one; if there are more, the whole file uses another unit."""
OVERLAP_M2, OVERLAP_SHARE = 0.25, 0.01
"""Tolerated overlap, because borders are drawn by hand: in square metres, or as a share of the smaller zone."""


class _Zone(NamedTuple):
    at: Place
    id: str
    floor: object
    polygon: Polygon


def doubts(raw: Raw) -> Iterator[Found]:
    """Yield all warnings. Zones with errors are skipped."""
    zones = list(_zones(raw))
    odd = {zone.id: text for zone in zones if (text := _size(zone, zones)) is not None}
    if len(odd) > FEW:
        longest = max(extent(zone.polygon) for zone in zones)
        text = f"{len(odd)} zones are implausible: lengths are in metres, and the longest zone is {longest:.4g} m"
        yield ("zones",), f"{text}; are these other units?", True
    for zone in zones:
        if zone.id in odd and len(odd) <= FEW:
            yield (*zone.at, "polygon"), odd[zone.id], True
    fine = [zone for zone in zones if zone.id not in odd]
    for a, b in combinations(fine, 2):
        if a.floor != b.floor:
            continue
        both = overlap(a.polygon, b.polygon)
        if both > OVERLAP_M2 and both > OVERLAP_SHARE * min(area(a.polygon), area(b.polygon)):
            text = f"overlaps zone {show(a.id)} by {both:.3g} m²: zones may touch, but not overlap"
            yield (*b.at, "polygon"), text, True
    for place, antenna in ports_of(raw, "antennas"):
        position, own = antenna.get("position"), next((z for z in fine if z.id == antenna.get("zone")), None)
        if own is None or not isinstance(position, list) or not is_point(position):
            continue
        here = (float(position[0]), float(position[1]))
        far = outside(own.polygon, here)
        if far > NEIGHBOUR_M:
            other = next((z.id for z in fine if z.floor == own.floor and contains(z.polygon, here)), None)
            within = f", in zone {show(other)}" if other is not None else ""
            away = f"{far:,.{1 if far < 10 else 0}f}"
            text = f"is {away} m outside zone {show(own.id)}{within}; positions are in metres, on the zone's floor"
            yield (*place, "position"), text, True


def _zones(raw: Raw) -> Iterator[_Zone]:
    for place, zone in tables(raw, "zones"):
        given, name = zone.get("polygon"), zone.get("id")
        if isinstance(given, list) and len(given) >= 3 and all(map(is_point, given)) and isinstance(name, str):
            corners = [(float(x), float(y)) for x, y in given]
            if not is_flat(corners) and not crosses_itself(corners):
                yield _Zone(place, name, zone.get("floor"), corners)


def _size(zone: _Zone, zones: list[_Zone]) -> str | None:
    long = extent(zone.polygon)
    if long > WIDE_M:
        return f"zone {show(zone.id)} is {long:.4g} m long; expected: metres. Are these centimetres or millimetres?"
    if long < NARROW_M:
        if all(-180 <= value <= 180 for corner in zone.polygon for value in corner) and _is_on_a_map(zone.polygon):
            return (
                f"zone {show(zone.id)} looks like latitude and longitude; expected: metres from a corner of the floor"
            )
        return f"zone {show(zone.id)} is {long * 100:.2g} cm long; lengths are in metres"
    others = [other for other in zones if other.id != zone.id and other.floor == zone.floor]
    if len(others) < 2:
        return None
    # Zones in two distant groups have neighbours, so only a zone on its own is reported.
    if any(within(zone.polygon, other.polygon, FAR_M) for other in others):
        return None
    near = min(distance(zone.polygon, other.polygon) for other in others)
    return f"zone {show(zone.id)} is {near:.4g} m from every other zone on its floor; lengths are in metres"


def _is_on_a_map(polygon: Polygon) -> bool:
    return any(abs(value) > 1 and value != round(value, 2) for corner in polygon for value in corner)
