"""The demo's store is a shop that one could build."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from config import StoreConfig, TagClass, ZoneKind
from config.check import load
from config.geometry import contains, neighbours
from config.model import Names
from config.tags import grai96, gsrn96, gsrnp96, masks, matches, sgtin96


@pytest.fixture(scope="module")
def store(demo_path: Path) -> StoreConfig:
    return load(demo_path)


def test_three_floors_24_zones_of_every_kind_in_both_languages(store: StoreConfig) -> None:
    assert [floor.id for floor in store.floors] == ["F1", "F2", "F3"]
    assert len(store.zones) == 24
    assert {zone.kind for zone in store.zones} == set(ZoneKind)
    assert all(isinstance(named.name, Names) for named in (store.store, *store.floors, *store.zones))


def test_readers_cover_every_zone_from_within(store: StoreConfig) -> None:
    drivers = [reader.driver for reader in store.readers]
    assert drivers.count("llrp") >= 7
    assert drivers.count("thingmagic") == 1
    zones = {zone.id: zone for zone in store.zones}
    antennas = [antenna for reader in store.readers for antenna in reader.antennas]
    assert {antenna.zone for antenna in antennas} == set(zones)
    assert all(contains(zones[antenna.zone].polygon, antenna.position) for antenna in antennas)
    assert all(len(reader.antennas) <= 4 for reader in store.readers)


def test_zones_of_a_floor_do_not_overlap(store: StoreConfig) -> None:
    # Whole metres and halves are where borders run; these points are on none.
    points = [(x / 2 + 0.23, y / 2 + 0.27) for x in range(82) for y in range(52)]
    covered = {zone: {point for point in points if contains(zone.polygon, point)} for zone in store.zones}
    for a, b in combinations(store.zones, 2):
        assert a.floor != b.floor or not covered[a] & covered[b], (a.id, b.id)


def test_every_zone_can_be_walked_to_and_floors_meet_only_in_the_aisles(store: StoreConfig) -> None:
    near = neighbours(store)
    floor = {zone.id: zone.floor for zone in store.zones}
    assert {frozenset((a, b)) for a in near for b in near[a] if floor[a] != floor[b]} == {
        frozenset(("f1-aisle", "f2-aisle")),
        frozenset(("f2-aisle", "f3-aisle")),
    }
    reached, edge = {"f1-entrance"}, ["f1-entrance"]
    while edge:
        new = near[edge.pop()] - reached
        reached |= new
        edge += new
    assert reached == set(near)


def test_the_tags_that_a_demo_prints_have_their_class(store: StoreConfig) -> None:
    def classify(epc: bytes) -> str:
        return next((rule.class_ for rule in store.tag_classes if matches(epc, *masks(rule))), "unknown")

    assert classify(gsrn96("9521141", 5)) == "member"
    assert classify(gsrnp96("9521141", 5)) == "staff"
    assert classify(grai96("9521141", 5, 5)) == "cart"
    assert classify(sgtin96("690123", 5, 5)) == "merchandise"
    assert classify(gsrn96("0614141", 5)) == "unknown"
    assert all(isinstance(rule, TagClass) for rule in store.tag_classes)
