"""Simulated world: who carries which tag where (the truth), and what the readers hear, slice by slice.

The same config, world, seed and number of shoppers give the same shop, however far it is played. It is populated from
the first moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig, ZoneKind
from simulators.shop.antennas import Antennas
from simulators.shop.epcs import EpcMaker
from simulators.shop.plan import Floats, Ints, Plan
from simulators.shop.radio import ROW, TICK_US, Radio, Rows, Scene
from simulators.shop.score import Stay
from simulators.shop.walkers import Track, body_blocks, shopper, staff
from simulators.shop.worlds import World

SLICE_US = 10_000_000
"""Time simulated at once."""
MEMBERS_EACH = 40
"""Cards per shopper, used in turn: nobody is back within the hour."""
TIERS = (("standard", 0.6), ("silver", 0.22), ("gold", 0.13), ("diamond", 0.05))
CONSENT = 0.85
MOST_BODY_DB = 15.0
"""Maximum body loss of a card."""
WALLED = (ZoneKind.FITTING_ROOM, ZoneKind.BACK_ROOM)
HINTS = ("", "", "", "size 38", "likes to be left alone", "drinks green tea", "asks for Ms Lin", "birthday this month")


@dataclass(frozen=True)
class Member:
    """Line of the member directory."""

    epc: bytes
    member: str
    tier: str
    consent: bool
    hint: str


@dataclass
class Carried:
    """Carried tag: index in `SimulatedShop.epcs`, track, and when the body hides it (None: never)."""

    tag: int
    track: Track
    blocks: tuple[Ints, Floats, Floats] | None
    loss_db: float
    answers: float
    height: float
    half_db: float


Coming = tuple[int, list[Carried]]
"""Arrivals: number of people, and what they carry."""


class SimulatedShop:
    """A populated store from `origin_us` (UTC) on."""

    def __init__(
        self,
        config: StoreConfig,
        world: World,
        *,
        seed: int,
        shoppers: int,
        origin_us: int,
        antennas: Antennas | None = None,
    ) -> None:
        """`antennas`: real mounting; as in the store file unless given."""
        self.config = config
        self.world = world
        self.origin_us = origin_us
        self.plan = Plan(config)
        self.antennas = antennas or Antennas.of(config, self.plan)
        self.epcs: list[bytes] = []
        self.walkers = 0
        """Number of people who have carried a tag so far."""
        self._seed = seed
        self._maker = EpcMaker(config)
        self._numbers: dict[bytes, int] = {}
        self._walled = np.isin(self.plan.kinds, WALLED)
        self.radio = Radio(self.antennas, world, self._rng(1), self._walled)
        self._patience = np.exp(self._rng(4).normal(0, world.zone_sigma, len(self.plan.ids)))
        self._noise = self._rng(2)
        self._made_us = origin_us
        self._carried: list[Carried] = []
        self._stays: list[tuple[int, int, int, int]] = []
        self.spans: list[tuple[int, int, int]] = []
        """(tag, from, to) of presence, including in front of the doors; without goods."""
        self._sources: list[tuple[Iterator[Coming], list[Coming]]] = []
        self._outage_until_us = [0] * len(config.readers)
        self.outages: list[tuple[int, int, int]] = []
        """(reader, from, to) of reader outages."""
        self._places = round(shoppers / (1 + 1.5 * world.group_share)) or min(shoppers, 1)
        self.members = self._directory(self._places * MEMBERS_EACH)
        for slot in range(self._places):
            self._sources.append((self._come_and_go(slot), []))
        homes = self.plan.of_kind(ZoneKind.COUNTER, ZoneKind.CHECKOUT, ZoneKind.SERVICE)
        chosen = self._rng(3)
        working = [zone for zone in homes if chosen.random() < world.staff_share]
        for number, home in enumerate(working):
            self._sources.append((self._work(number, home), []))
        self._lay_out_goods()

    def slice(self) -> tuple[int, int, Rows]:
        """Simulate the next SLICE_US; returns start, end, and the rows heard, by time."""
        start_us, end_us = self._made_us, self._made_us + SLICE_US
        self._pull(end_us)
        rows = self.radio.hear(start_us, self._scene(start_us))
        rows = np.concatenate([rows, self._phantoms(start_us)])
        rows = rows[self._heard(rows, start_us)]
        self._drop(end_us)
        self._made_us = end_us
        return start_us, end_us, rows[np.argsort(rows["time_us"], kind="stable")]

    def bring(self, number: int, way: Track) -> None:
        """Add a person on a given track, with a card that isn't a member's."""
        rng = self._rng(50, number)
        self._take(self._worn(rng, self._number(self._maker.make("unknown", 90_000 + number)), way))

    def truth(self, until_us: int) -> list[Stay]:
        """Return where every carried tag was from the origin to `until_us` (already simulated), by EPC and time."""
        pieces: list[Stay] = []
        for tag, zone, enter_us, exit_us in sorted(self._stays, key=lambda s: (self.epcs[s[0]], s[2])):
            enter_us, exit_us = max(enter_us, self.origin_us), min(exit_us, until_us)
            if exit_us <= enter_us:
                continue
            stay = Stay(self.epcs[tag].hex(), self.plan.ids[zone], enter_us, exit_us)
            last = pieces[-1] if pieces else None
            if last and last.epc == stay.epc and last.zone == stay.zone and last.exit_us == stay.enter_us:
                pieces[-1] = last._replace(exit_us=stay.exit_us)
            else:
                pieces.append(stay)
        return pieces

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])

    # ── people ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _come_and_go(self, slot: int) -> Iterator[Coming]:
        """Fill one slot of the crowd: a shopper or a group, then the next, endlessly; the first are already inside."""
        rng = self._rng(10, slot)
        cards = rng.permutation(MEMBERS_EACH)
        first = shopper(self.plan, self.world, rng, self.origin_us, self._patience)
        start_us = self.origin_us - int(rng.random() * (first.end_us - first.start_us))
        turn = 0
        track = Track(first.t_us - (first.start_us - start_us), first.x, first.y, first.floor)
        while True:
            size = 1 if rng.random() >= self.world.group_share else int(rng.integers(2, 4))
            group: list[Carried] = []
            for companion in range(size):
                way = track
                if companion:
                    dx, dy = rng.normal(0, 0.6, 2)
                    way = track.beside(dx, dy, int(rng.uniform(0, 2e6)))
                card = slot + self._places * int(cards[(turn + companion) % MEMBERS_EACH])
                group += self._person(rng, way, card)
            turn += size
            yield size, group
            next_us = track.end_us + int(rng.exponential(60) * 1e6)
            track = shopper(self.plan, self.world, rng, next_us, self._patience)

    def _person(self, rng: np.random.Generator, way: Track, card: int) -> list[Carried]:
        what = rng.random()
        if what < self.world.member_share:
            worn = [self._worn(rng, self._number(self.members[card].epc), way)]
            return [*worn, self._cart(rng, way, card)] if rng.random() < self.world.cart_share else worn
        if what < self.world.member_share + self.world.unknown_share:
            return [self._worn(rng, self._number(self._maker.make("unknown", card)), way)]
        return [self._cart(rng, way, card)]

    def _worn(self, rng: np.random.Generator, tag: int, way: Track) -> Carried:
        w = self.world
        blocks = body_blocks(w, rng, way.start_us, way.end_us)
        more_db = float(np.clip(rng.normal(0, w.person_db), -w.body_db, max(0.0, MOST_BODY_DB - w.body_db)))
        return self._carried_by(rng, tag, way, blocks, more_db, w.card_answers)

    def _cart(self, rng: np.random.Generator, way: Track, card: int) -> Carried:
        dx, dy = rng.normal(0, 0.5, 2)
        tag = self._number(self._maker.make("cart", card))
        return self._carried_by(rng, tag, way.beside(dx, dy, 0), None, self.world.cart_db, 0.7)

    def _carried_by(
        self,
        rng: np.random.Generator,
        tag: int,
        way: Track,
        blocks: tuple[Ints, Floats, Floats] | None,
        loss_db: float,
        answers: float,
    ) -> Carried:
        w = self.world
        height, half_db = float(rng.uniform(*w.card_height_m)), float(rng.normal(0, w.half_tag_db))
        return Carried(tag, way, blocks, loss_db, answers, height, half_db)

    def _work(self, number: int, home: int) -> Iterator[Coming]:
        rng = self._rng(20, number)
        tag = self._number(self._maker.make("staff", number))
        since_us = self.origin_us - int(rng.uniform(0, 1200e6))
        for turn, track in enumerate(staff(self.plan, self.world, rng, home, since_us)):
            yield int(turn == 0), [self._worn(rng, tag, track)]

    def _pull(self, until_us: int) -> None:
        for source, waiting in self._sources:
            while not waiting or waiting[0][1][0].track.start_us < until_us:
                if waiting:
                    people, group = waiting.pop()
                    self.walkers += people
                    for carried in group:
                        self._take(carried)
                waiting.append(next(source))

    def _take(self, carried: Carried) -> None:
        if carried.track.end_us <= self.origin_us:
            return
        self._carried.append(carried)
        self.spans.append((carried.tag, carried.track.start_us, carried.track.end_us))
        self._stays += [(carried.tag, *stay) for stay in carried.track.zones(self.plan)]

    def _lay_out_goods(self) -> None:
        rng = self._rng(30)
        for zone in self.plan.of_kind(ZoneKind.COUNTER):
            for _ in range(self.world.merchandise):
                x, y = self.plan.point_in(rng, zone)
                ends = np.array([self.origin_us - 1, 2**62])
                floor = np.full(2, self.plan.floors[zone])
                track = Track(ends, np.array([x, x]), np.array([y, y]), floor)
                epc = self._maker.make("merchandise", len(self._carried))
                loss_db, answers = float(rng.uniform(2, 9)), 1 - self.world.merchandise_shyness
                self._carried.append(self._carried_by(rng, self._number(epc), track, None, loss_db, answers))

    def _directory(self, n: int) -> list[Member]:
        rng = self._rng(40)
        tiers = rng.choice([name for name, _ in TIERS], n, p=[share for _, share in TIERS])
        consent = rng.random(n) < CONSENT
        hints = rng.choice(HINTS, n)
        return [
            Member(self._maker.make("member", 1000 + i), f"M{1000 + i}", str(tiers[i]), bool(consent[i]), str(hints[i]))
            for i in range(n)
        ]

    def _number(self, epc: bytes) -> int:
        if epc not in self._numbers:
            self._numbers[epc] = len(self.epcs)
            self.epcs.append(epc)
        return self._numbers[epc]

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────────────────────

    def _scene(self, start_us: int) -> Scene:
        ticks = SLICE_US // TICK_US
        t = start_us + TICK_US * np.arange(ticks)
        here = [c for c in self._carried if c.track.start_us < start_us + SLICE_US and c.track.end_us > start_us]
        n = len(here)
        scene = Scene(
            tag=np.array([c.tag for c in here], np.int64),
            x=np.empty((n, ticks)),
            y=np.empty((n, ticks)),
            floor=np.empty((n, ticks), np.int64),
            present=np.empty((n, ticks), bool),
            moving=np.empty((n, ticks), bool),
            room=np.full((n, ticks), -1),
            loss_db=np.empty((n, ticks)),
            facing=np.full((n, ticks), np.nan),
            height=np.array([c.height for c in here]),
            half_db=np.array([c.half_db for c in here]),
            answers=np.array([c.answers for c in here]),
        )
        for i, c in enumerate(here):
            if c.track.still:  # goods
                scene.x[i], scene.y[i], scene.floor[i] = c.track.x[0], c.track.y[0], c.track.floor[0]
                scene.moving[i] = False
            else:
                scene.x[i], scene.y[i], scene.floor[i] = c.track.at(t)
                scene.moving[i] = c.track.moving(t)
            scene.present[i] = (t >= c.track.start_us) & (t < c.track.end_us)
            scene.loss_db[i] = c.loss_db
            if c.blocks is not None:
                starts, loss, facing = c.blocks
                k = np.clip(np.searchsorted(starts, t, side="right") - 1, 0, len(starts) - 1)
                scene.loss_db[i] += loss[k]
                scene.facing[i] = facing[k]
        if self.world.wall_db and n:
            zone = self.plan.zone_at(scene.x.ravel(), scene.y.ravel(), scene.floor.ravel())
            scene.room[:] = np.where((zone >= 0) & self._walled[zone], zone, -1).reshape(n, ticks)
        return scene

    def _phantoms(self, start_us: int) -> Rows:
        rate = self.world.phantoms_per_hour * SLICE_US / 3.6e9
        n = int(self._noise.poisson(rate)) if len(self.antennas.port) else 0
        rows = []
        for _ in range(n):
            epc = self._noise.bytes(12)
            time_us = start_us + int(self._noise.integers(SLICE_US))
            antenna = int(self._noise.integers(len(self.antennas.port)))
            rows.append((time_us, time_us, antenna, self._number(epc), round(self.world.half_dbm - 5) * 100))
        return np.array(rows, ROW)

    def _heard(self, rows: Rows, start_us: int) -> NDArray[np.bool_]:
        """Return which rows come from working readers; starts outages."""
        for reader in range(len(self._outage_until_us)):
            chance = self.world.outages_per_hour / len(self._outage_until_us) * SLICE_US / 3.6e9
            if self._noise.random() < chance and start_us >= self._outage_until_us[reader]:
                end_us = start_us + int(self._noise.uniform(*self.world.outage_s) * 1e6)
                self._outage_until_us[reader] = end_us
                self.outages.append((reader, start_us, end_us))
        until_us = np.array(self._outage_until_us, np.int64)
        works: NDArray[np.bool_] = rows["time_us"] >= until_us[self.antennas.reader[rows["antenna"]]]
        return works

    def _drop(self, end_us: int) -> None:
        gone = [c.tag for c in self._carried if c.track.end_us <= end_us]
        if gone:
            self._carried = [c for c in self._carried if c.track.end_us > end_us]
            still = {c.tag for c in self._carried}
            self.radio.forget([tag for tag in gone if tag not in still])
