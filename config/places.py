"""Zones and antennas that can hardly lie where the file says: other units than metres, overlaps, antennas far away."""

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
)
from config.lines import Place
from config.messages import show
from config.relations import Found, Raw, is_point, ports_of, tables

WIDE_M = 200.0
"""A zone this long is none that anybody walks through: its figures are centimetres, or of a map."""
NARROW_M = 0.3
FAR_M = 100.0
"""Between a zone and the nearest other one of its floor."""
FEW = 3
"""Zones that are told one by one; of more the whole file is in another unit."""
OVERLAP_M2, OVERLAP_SHARE = 0.25, 0.01
"""Borders are drawn by hand: so little may lie in two zones, in square metres or of the smaller one."""


class _Zone(NamedTuple):
    at: Place
    id: str
    floor: object
    polygon: Polygon


def doubts(raw: Raw) -> Iterator[Found]:
    """All of them, as warnings. Zones that are wrong by themselves are left out."""
    zones = list(_zones(raw))
    odd = {zone.id: text for zone in zones if (text := _size(zone, zones)) is not None}
    if len(odd) > FEW:
        longest = max(extent(zone.polygon) for zone in zones)
        text = f"{len(odd)} zones can't be right; lengths are metres, and the longest zone is {longest:.4g} long"
        yield ("zones",), f"{text}: are these other units?", True
    for zone in zones:
        if zone.id in odd and len(odd) <= FEW:
            yield (*zone.at, "polygon"), odd[zone.id], True
    fine = [zone for zone in zones if zone.id not in odd]
    for a, b in combinations(fine, 2):
        if a.floor != b.floor:
            continue
        both, smaller = overlap(a.polygon, b.polygon), min(area(a.polygon), area(b.polygon))
        if both > max(OVERLAP_M2, OVERLAP_SHARE * smaller):
            text = f"overlaps zone {show(a.id)} by {both:.3g} m²: who stands there is in either; let borders touch"
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
            text = f"hangs {far:.3g} m outside zone {show(own.id)}{within}; positions are metres on the zone's floor"
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
        return f"zone {show(zone.id)} is {long:.4g} m long; lengths are metres: are these centimetres?"
    if long < NARROW_M:
        if all(-180 <= value <= 180 for corner in zone.polygon for value in corner) and _is_on_a_map(zone.polygon):
            return f"zone {show(zone.id)} looks like latitude and longitude; needed: metres from a corner of the floor"
        return f"zone {show(zone.id)} is {long * 100:.2g} cm long; lengths are metres"
    others = [other for other in zones if other.id != zone.id and other.floor == zone.floor]
    if len(others) < 2:
        return None
    near = min(distance(zone.polygon, other.polygon) for other in others)
    # Of two groups that lie apart each zone has company: only one that lies alone is out of place.
    if near > FAR_M:
        return f"zone {show(zone.id)} lies {near:.4g} m from every other zone of its floor; lengths are metres"
    return None


def _is_on_a_map(polygon: Polygon) -> bool:
    return any(abs(value) > 1 and value != round(value, 2) for corner in polygon for value in corner)
