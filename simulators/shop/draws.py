"""Random shops: plan, antennas, radio and people drawn from wide ranges, reproducibly by seed.

The ranges cover what is sold and installed, not what an engine expects: nothing here is taken from one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig, ZoneKind
from config.geometry import NEIGHBOUR_M, neighbours, within
from simulators.shop.antennas import Antennas, direction
from simulators.shop.floorplans import Drawing, Sketch, drawing
from simulators.shop.plan import Floats, Ints, Plan
from simulators.shop.radio import ROUND_S, SWITCH_S, TAG_S, Radio, Scene
from simulators.shop.world import WALLED
from simulators.shop.worlds import World

SKETCHES = (
    Sketch(4, aisles=False),
    Sketch(6),
    Sketch(8, rooms=True),
    Sketch(9, aisles=False),
    Sketch(12),
    Sketch(14, aisles=False),
    Sketch(16, floors=2),
    Sketch(18),
    Sketch(22, aisles=False),
    Sketch(26),
    Sketch(30, floors=2, aisles=False),
    Sketch(38),
)
"""By shop number: what matters most is spread evenly, all else is random."""
STAYED_IN = (ZoneKind.COUNTER, ZoneKind.CHECKOUT, ZoneKind.SERVICE, ZoneKind.FITTING_ROOM)
TRIES = 80
PLACES = 8
"""Sample points in each zone for coverage."""
RULES = [
    {"class": class_, "scheme": scheme, "company_prefix": "9521141"}
    for class_, scheme in (
        ("member", "gsrn-96"),
        ("staff", "gsrnp-96"),
        ("cart", "grai-96"),
        ("merchandise", "sgtin-96"),
    )
]


@dataclass(frozen=True)
class Drawn:
    """Random shop: what its installer wrote down (`config`), and the hidden truth."""

    config: StoreConfig
    world: World
    antennas: Antennas
    shoppers: int


def draw(shop: int, seed: int) -> Drawn:
    """Draw shop number `shop` (0 … len(SKETCHES) − 1) by a seed."""
    rng = np.random.default_rng([shop, seed, 77])
    drawn = drawing(rng, SKETCHES[shop])
    config = _store(rng, drawn)
    plan = Plan(config)
    antennas = _antennas(config, plan, drawn)
    shoppers = 4 + round(float(rng.uniform(1.2, 3.0)) * len(plan.of_kind(*STAYED_IN)))
    world = draw_world(rng, config, plan, antennas, seed, shoppers, drawn.atrium)
    return Drawn(config, world, antennas, shoppers)


def inhabit(config: StoreConfig, seed: int, shoppers: int) -> Drawn:
    """Draw radio and people for an existing store; antennas are mounted as in its file, and point at their zone.
    Unknown beams are drawn; antennas over the centre of their zone point straight down.
    """
    rng = np.random.default_rng([seed, 78])
    plan = Plan(config)
    told = Antennas.of(config, plan)
    known = [antenna for reader in config.readers for antenna in reader.antennas]
    place = told.place.copy()
    place[:, 2] = [antenna.height for antenna in known]
    ahead = plan.centres[told.zone] - place[:, :2]
    over = np.hypot(*ahead.T) < 1.0
    compass = np.degrees(np.arctan2(ahead[:, 0], ahead[:, 1]))
    figures = [(antenna.azimuth, antenna.tilt, antenna.beam) for antenna in known]
    azimuth, tilt, beam = np.array(figures, float).reshape(-1, 3).T
    azimuth = np.where(np.isnan(azimuth), compass, azimuth)
    tilt = np.where(np.isnan(tilt), np.where(over, 90.0, 45.0), tilt)
    beam = np.where(np.isnan(beam), rng.uniform(50, 120), beam)
    antennas = replace(told, place=place, look=direction(azimuth, tilt), beam=np.radians(beam))
    return Drawn(config, draw_world(rng, config, plan, antennas, seed, shoppers), antennas, shoppers)


def draw_world(
    rng: np.random.Generator,
    config: StoreConfig,
    plan: Plan,
    antennas: Antennas,
    seed: int,
    shoppers: int,
    atrium: tuple[float, float, float, float] | None = None,
) -> World:
    """Draw people and radio for a store; power is raised until its zones are covered, as an installer does."""
    body_db = float(rng.uniform(1, 9))
    clear_s = float(np.exp(rng.uniform(np.log(8), np.log(150))))
    troubled, few = bool(rng.random() < 0.3), bool(rng.random() < 0.25)
    slow_db = float(rng.uniform(1, 4))
    dwell_s = float(rng.choice([0.0, 0.0, 0.2, 0.5, 1.0]))
    quiet_s = float(rng.uniform(0.3, 2)) if rng.random() < 0.08 else 0.0
    readers = len(config.readers)
    spare = np.flatnonzero(np.bincount(antennas.zone)[antennas.zone] > 1)
    dead = rng.choice(spare, 1).tolist() if len(spare) and rng.random() < 0.15 else []
    world = World(
        seed=seed,
        stops_mean=float(rng.uniform(2, 7)),
        pace_m_s=float(rng.uniform(0.7, 1.3)),
        turn_back_share=float(rng.uniform(0, 0.2)),
        stay_median_s=float(np.exp(rng.uniform(np.log(25), np.log(120)))),
        stay_sigma=float(rng.uniform(0.7, 1.3)),
        zone_sigma=float(rng.uniform(0, 0.7)),
        aisle_stop_share=float(rng.uniform(0, 0.6)),
        card_height_m=(float(rng.uniform(0.7, 1.0)), float(rng.uniform(1.1, 1.4))),
        pass_by_share=float(rng.uniform(0, 0.3)),
        group_share=float(rng.uniform(0, 0.5)),
        member_share=float(rng.uniform(0.5, 0.95)),
        unknown_share=float(rng.uniform(0, 0.05)),
        cart_share=float(rng.choice([0.0, 0.3])),
        staff_share=float(rng.uniform(0.2, 0.9)),
        merchandise=int(rng.integers(0, 10)),
        behind_db=float(rng.uniform(5, 20)),
        back_db=float(rng.uniform(16, 44)),
        floor_db=float(rng.uniform(8, 25)),
        storey_m=float(rng.uniform(3.5, 5.5)),
        atrium=atrium,
        atrium_db=float(rng.uniform(0, 4)),
        wall_db=float(rng.uniform(0, 10)),
        shadow_db=float(rng.uniform(1.5, 4.5)),
        shadow_m=float(rng.uniform(0.6, 2.5)),
        offset_db=float(rng.uniform(0.5, 3.5)),
        report_db=float(rng.choice([0.0, rng.uniform(0, 4)])),
        hop_s=float(rng.choice([0.5, 0.5, 2.0])),
        fast_still_db=float(rng.uniform(0.8, 3.5)),
        fast_moving_db=float(rng.uniform(2.5, 6)),
        slow_moving_db=slow_db,
        slow_still_db=slow_db * float(rng.uniform(0.5, 1)),
        slow_still_flows=bool(rng.random() < 0.5),
        slow_tau_s=float(np.exp(rng.uniform(np.log(0.8), np.log(10)))),
        half_tag_db=float(rng.uniform(0, 1.5)),
        logistic_db=float(rng.uniform(0.5, 2.5)),
        body_db=body_db,
        person_db=float(rng.uniform(1, 4)),
        facing_db=float(rng.uniform(0, 7)),
        cart_db=float(rng.uniform(1, 7)),
        clear_median_s=clear_s,
        clear_sigma=float(rng.uniform(0.5, 1.1)),
        block_db=float(rng.uniform(8, 25)),
        block_short_s=float(rng.uniform(0.8, 5)),
        block_long_share=float(rng.uniform(0, 0.15)),
        block_long_s=float(rng.uniform(4, 12)),
        block_power=float(rng.uniform(0.8, 1.6)),
        block_max_s=float(rng.uniform(60, 400)),
        dwell_s=0.0 if quiet_s else dwell_s,
        quiet_s=quiet_s,
        rssi_step_db=float(rng.choice([0.5, 1.0])),
        dead_antennas=tuple(dead),
        outages_per_hour=readers * float(rng.uniform(0.1, 0.6)) if troubled else 0.0,
        outage_s=(60.0, 400.0),
        rssi_unknown_share=float(rng.uniform(0.01, 0.3)) if few else 0.0,
        phantoms_per_hour=float(rng.choice([0.0, rng.uniform(0, 20)])),
    )
    tags = shoppers + world.merchandise * len(plan.of_kind(ZoneKind.COUNTER))
    return _powered(rng, world, plan, antennas, tags)


def _powered(rng: np.random.Generator, world: World, plan: Plan, antennas: Antennas, tags: float) -> World:
    """Adjust level, slope and sensitivity so that zones are covered and about the wanted number of others hear a card
    as well."""
    wanted = float(rng.uniform(0.75, 0.97))
    strays = float(np.exp(rng.uniform(np.log(0.2), np.log(3.5))))
    places = _places(plan)
    best, least = (world, coverage(world, plan, antennas, places)), np.inf
    for _ in range(TRIES):
        tried = replace(
            world,
            level_1m_dbm=float(rng.uniform(-60, -25)),
            slope_db=float(rng.uniform(18, 45)),
            half_dbm=float(rng.uniform(-82, -60)),
        )
        found = coverage(tried, plan, antennas, places)
        amiss = max(0.0, wanted - found.covered) * 10 + abs(np.log((found.strays + 0.1) / (strays + 0.1)))
        if amiss < least:
            best, least = (tried, found), amiss
        if amiss < 0.2:
            break
    powered, found = best
    reads = float(np.exp(rng.uniform(np.log(1.5), np.log(12)))) / found.reads_s(powered, antennas, tags)
    return replace(powered, card_answers=float(np.clip(reads, 0.03, 0.95)))


@dataclass(frozen=True)
class Coverage:
    """Antennas that hear a usual card, by place."""

    heard: NDArray[np.bool_]
    """(P, A) True where a place is heard, by antenna."""
    own: NDArray[np.bool_]
    """(P, A) True for antennas of the place's zone."""

    @property
    def covered(self) -> float:
        """Share of places heard by an antenna of their own zone."""
        return float((self.heard & self.own).any(axis=1).mean())

    @property
    def strays(self) -> float:
        """Mean number of other zones' antennas that hear a place."""
        return float((self.heard & ~self.own).sum(axis=1).mean())

    def reads_s(self, world: World, antennas: Antennas, tags: float) -> float:
        """Estimate how often a card is queried per second, with that many tags in the store."""
        ports = np.bincount(antennas.reader)
        round_s = ROUND_S + TAG_S * np.maximum(1, self.heard.mean(axis=0) * tags)
        stay_s = np.maximum(round_s, world.dwell_s) + np.where(ports[antennas.reader] > 1, SWITCH_S, 0)
        cycle_s = np.bincount(antennas.reader, stay_s)[antennas.reader]
        asked = np.maximum(1.0, world.dwell_s / round_s) / cycle_s
        return float((self.heard @ asked).mean()) + 1e-3


def coverage(world: World, plan: Plan, antennas: Antennas, places: Floats | None = None) -> Coverage:
    """Compute coverage at PLACES in every zone (drawn unless given), without shadowing and bodies."""
    places = _places(plan) if places is None else places
    zone = np.repeat(np.arange(len(plan.ids)), PLACES)
    smooth = replace(world, shadow_db=0.0, offset_db=0.0, report_db=0.0, dead_antennas=())
    radio = Radio(antennas, smooth, np.random.default_rng(0), np.isin(plan.kinds, WALLED))
    level = radio.levels(usual_cards(world, plan, places, plan.floors[zone], zone))[:, :, 0]
    return Coverage(level > world.half_dbm, antennas.zone == zone[:, None])


def usual_cards(world: World, plan: Plan, places: Floats, floor: Ints, zone: Ints) -> Scene:
    """Put a usual card, with half of what a body may take away, at each of P `places` (P, 2); `zone`: −1 in between."""
    n = len(places)
    return Scene(
        tag=np.arange(n),
        x=places[:, :1],
        y=places[:, 1:],
        floor=floor[:, None],
        room=np.where((zone >= 0) & np.isin(plan.kinds, WALLED)[zone], zone, -1)[:, None],
        present=np.ones((n, 1), bool),
        moving=np.zeros((n, 1), bool),
        loss_db=np.full((n, 1), world.body_db + world.facing_db / 2),
        facing=np.full((n, 1), np.nan),
        height=np.full(n, sum(world.card_height_m) / 2),
        half_db=np.zeros(n),
        answers=np.ones(n),
    )


def _places(plan: Plan) -> Floats:
    rng = np.random.default_rng(5)
    return np.array([plan.point_in(rng, zone) for zone in range(len(plan.ids)) for _ in range(PLACES)])


def _store(rng: np.random.Generator, drawn: Drawing) -> StoreConfig:
    floors = sorted({zone["floor"] for zone in drawn.zones})
    ports = int(rng.choice([1, 2, 4, 4, 4, 8]))
    readers: list[dict[str, Any]] = []
    for floor in floors:
        of_floor = {zone["id"] for zone in drawn.zones if zone["floor"] == floor}
        mine = [hung.told for hung in drawn.antennas if hung.zone in of_floor]
        for at in range(0, len(mine), ports):
            antennas = [{"port": port, **told} for port, told in enumerate(mine[at : at + ports], 1)]
            id_ = f"r{len(readers)}"
            readers.append({"id": id_, "driver": "llrp", "address": id_, "antennas": antennas})
    zones = [{key: value for key, value in zone.items() if key != "stairs"} for zone in drawn.zones]
    values = {
        "store": {"id": "drawn", "name": "drawn", "timezone": "Asia/Shanghai"},
        "floors": [{"id": floor, "name": floor} for floor in floors],
        "zones": zones,
        "readers": readers,
        "tag_classes": RULES,
        "mqtt": {"url": "mqtt://127.0.0.1:1883"},
        "database": {"path": "drawn.db"},
    }
    usual = neighbours(StoreConfig.model_validate(values))
    for floor in floors:
        _join(zones, {zone["id"] for zone in zones if zone["floor"] == floor}, usual)
    for zone, drawn_zone in zip(zones, drawn.zones, strict=True):
        if "stairs" in drawn_zone:
            # A list replaces the default, so that it names the floor's own zones as well.
            zone["neighbours"] = [*zone.get("neighbours", sorted(usual[zone["id"]])), drawn_zone["stairs"]]
    return StoreConfig.model_validate(values)


def _join(zones: list[dict[str, Any]], floor: set[str], usual: dict[str, frozenset[str]]) -> None:
    """Declare neighbours across wide lanes where the default would leave a floor in pieces, as an installer would."""
    polygons = {zone["id"]: zone["polygon"] for zone in zones if zone["id"] in floor}
    near, reach_m = {id_: usual[id_] & floor for id_ in floor}, NEIGHBOUR_M
    while not _whole(near):
        reach_m += 0.5
        near = {
            id_: frozenset(other for other in floor if other != id_ and within(polygons[id_], polygons[other], reach_m))
            for id_ in floor
        }
    if reach_m > NEIGHBOUR_M:
        for zone in zones:
            if zone["id"] in floor:
                zone["neighbours"] = sorted(near[zone["id"]])


def _whole(near: dict[str, frozenset[str]]) -> bool:
    reached = {min(near)}
    while more := {other for id_ in reached for other in near[id_]} - reached:
        reached |= more
    return len(reached) == len(near)


def _antennas(config: StoreConfig, plan: Plan, drawn: Drawing) -> Antennas:
    """Return the real mounting in the order of the file, which `_store` has kept floor by floor."""
    floors = sorted({zone["floor"] for zone in drawn.zones})
    of = {zone["id"]: floors.index(zone["floor"]) for zone in drawn.zones}
    hung = sorted(drawn.antennas, key=lambda one: of[one.zone])
    told = Antennas.of(config, plan)
    return replace(
        told,
        place=np.array([one.place for one in hung]),
        look=direction(np.array([one.azimuth for one in hung]), np.array([one.tilt for one in hung])),
        beam=np.radians([one.beam for one in hung]),
    )
