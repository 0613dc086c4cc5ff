"""Door counters and lamps: contacts to counts, members to light; and all of it through the service."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateways import WAIT_S, Gateway, antennas, member_card

from config.check import ConfigError, load
from config.facts import WINDOW_US
from drivers.session import Contact
from edge.days.history import history
from edge.readers.door_counters import DoorCounters
from edge.readers.lamps import AGAIN_S, FRESH_US, Lamps
from edge.store.business_days import business_days
from edge.store.compose import compose
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

T0 = 1_800_000_000_000_000
TABLE = next((Path(__file__).parents[3] / "edge/database/migrations").glob("*_door.sql")).read_text("utf-8")
assert T0 % WINDOW_US == 0


def now_us() -> int:
    return time.time_ns() // 1000


def reader(**more: Any) -> dict[str, Any]:
    return {"id": "r1", "driver": "llrp", "address": "10.0.0.5", "antennas": antennas("door", "shoes")} | more


def doors_of(gateway: Gateway, *inputs: dict[str, Any]) -> DoorCounters:
    gateway.configure(readers=[reader(inputs=list(inputs))])
    doors = DoorCounters(compose(load(gateway.file)))
    doors.begin(T0)
    doors.watched("r1", frozenset({1, 2}))
    return doors


def rows(doors: DoorCounters) -> list[tuple[Any, ...]]:
    conn = sqlite3.connect(":memory:")
    conn.executescript(TABLE)
    doors.write(conn)
    return [((w - T0) // WINDOW_US, *rest) for w, *rest in conn.execute("SELECT * FROM door ORDER BY 1, 3")]


def change(port: int, at_s: float, high: bool) -> Contact:
    return Contact("r1", port, T0 + round(at_s * 1e6), high)


def test_a_bouncing_contact_counts_once_and_each_person_counts(gateway: Gateway) -> None:
    doors = doors_of(gateway, {"port": 1, "zone": "door", "debounce_s": 0.05})
    for second in (10, 11):
        for late_s, high in ((0, True), (0.002, False), (0.004, True), (0.8, False), (0.803, True), (0.806, False)):
            doors.take(change(1, second + late_s, high))
    assert doors.passages("r1") == {1: 2}


def test_an_input_may_be_active_low(gateway: Gateway) -> None:
    doors = doors_of(gateway, {"port": 1, "zone": "door", "active": "low"}, {"port": 2, "zone": "out"})
    for at_s, high in ((1, False), (2, True), (3, False), (4, True)):
        doors.take(change(1, at_s, high))
        doors.take(change(2, at_s + 0.5, high))
    doors.take(change(7, 1, True))  # no counter
    assert doors.passages("r1") == {1: 2, 2: 2}


def test_passages_count_in_the_window_of_their_own_time(gateway: Gateway) -> None:
    doors = doors_of(gateway, {"port": 1, "zone": "door"})
    doors.advance(T0 + 2 * WINDOW_US)
    doors.take(change(1, 899, True))  # kept by the reader, and late
    doors.take(change(1, 901, True))
    assert rows(doors) == [(0, "r1", 1, "door", 1, WINDOW_US), (1, "r1", 1, "door", 1, WINDOW_US)]


def test_coverage_knows_outages_to_come_and_past(gateway: Gateway) -> None:
    doors = doors_of(gateway, {"port": 1, "zone": "door"})
    doors.switch("r1", T0 + 100_000_000, False)
    doors.switch("r1", T0 + 160_000_000, True)
    doors.advance(T0 + 500_000_000)
    assert rows(doors)[0][-1] == 440_000_000
    doors.switch("r1", T0 + 480_000_000, False)  # told late: a link that had been dead for a while
    doors.advance(T0 + WINDOW_US + 5_000_000)
    assert rows(doors) == [(0, "r1", 1, "door", 0, 420_000_000)]


def test_an_input_that_the_reader_does_not_watch_is_not_covered(gateway: Gateway) -> None:
    doors = doors_of(gateway, {"port": 1, "zone": "door"}, {"port": 2, "zone": "out"})
    doors.watched("r1", frozenset({2}))
    doors.advance(T0 + 60_000_000)
    assert [(row[2], row[-1]) for row in rows(doors)] == [(2, 60_000_000)]


def test_what_is_committed_adds_up(gateway: Gateway) -> None:
    doors = doors_of(gateway, {"port": 1, "zone": "door"})
    conn = sqlite3.connect(":memory:")
    conn.executescript(TABLE)
    for second in (10, 20):
        doors.take(change(1, second, True))
        doors.advance(T0 + second * 1_000_000)
        doors.write(conn)
        doors.clear()
    doors.write(conn)
    assert conn.execute("SELECT passages, covered_us FROM door").fetchall() == [(2, 20_000_000)]


class Switched:
    """What lamps were told, with a loop whose time a test moves."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, bool]] = []

    def __call__(self, reader: str, port: int, high: bool) -> None:
        self.told.append((reader, port, high))


def lamps_of(gateway: Gateway, switched: Switched, **lamp: Any) -> Lamps:
    gateway.configure(
        readers=[reader(outputs=[{"port": 1, "zone": "shoes", "tiers": ["gold"], "seconds": 0.5} | lamp])]
    )
    return Lamps(load(gateway.file), switched)


async def test_a_lamp_is_on_for_members_of_its_tiers_in_its_zone_and_off_again(gateway: Gateway) -> None:
    switched = Switched()
    lamps = lamps_of(gateway, switched)
    lamps.came("M1", "gold", "door", T0, T0)
    lamps.came("M2", "silver", "shoes", T0, T0)
    lamps.came("M3", "gold", "shoes", T0, T0 + FRESH_US + 1)
    assert switched.told == []
    lamps.came("M1", "gold", "shoes", T0, T0)
    lamps.came("M1", "gold", "shoes", T0 + 1_000_000, T0 + 1_000_000)
    assert switched.told == [("r1", 1, True)]
    async with asyncio.timeout(WAIT_S):
        while len(switched.told) < 2:
            await asyncio.sleep(0.01)
    assert switched.told[1] == ("r1", 1, False)


async def test_somebody_else_keeps_a_lamp_on_and_the_same_one_does_not(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched = Switched()
    lamps = lamps_of(gateway, switched, seconds=600)
    loop = asyncio.get_running_loop()
    ends = []
    for member, after_s in (("M1", 0), ("M1", 1), ("M2", 2), ("M1", AGAIN_S + 1)):
        began_s = loop.time()
        monkeypatch.setattr(loop, "time", lambda now=began_s + after_s: now)
        lamps.came(member, "gold", "shoes", T0, T0)
        ends.append(lamps._off["r1", 1].when())
        monkeypatch.undo()
    assert switched.told == [("r1", 1, True)]
    assert ends[0] == ends[1] < ends[2] < ends[3]
    lamps._off["r1", 1].cancel()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"inputs": [{"port": 1, "zone": "dor"}]}, 'no zone "dor"'),
        ({"inputs": [{"port": 1, "zone": "door"}, {"port": 1, "zone": "out"}]}, "a port has one contact"),
        ({"outputs": [{"port": 1, "zone": "door", "tiers": []}]}, "tiers"),
        ({"outputs": [{"port": 1, "zone": "door", "tiers": ["A"]}] * 2}, "a port has one lamp"),
        ({"driver": "m100", "address": "/dev/x", "inputs": [{"port": 1, "zone": "door"}]}, "only for driver"),
    ],
)
def test_what_is_wrong_with_inputs_and_outputs_is_told(gateway: Gateway, more: dict[str, Any], words: str) -> None:
    gateway.configure(readers=[reader(**more)])
    with pytest.raises(ConfigError, match=words):
        load(gateway.file)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.02)


async def test_the_service_counts_at_a_door_and_lights_a_lamp(gateway: Gateway) -> None:
    simulated = LlrpReader(now_us)
    lamp = {"port": 2, "zone": "door", "tiers": ["gold"], "seconds": 1}
    gateway.configure(
        readers=[reader(address=await simulated.start(), inputs=[{"port": 1, "zone": "door"}], outputs=[lamp])]
    )
    members = gateway.folder / "members.csv"
    members.write_text(f"epc,member,tier,consent,hint\n{member_card(1).hex()},M1,gold,1,\n")
    try:
        assert gateway.run("directory", "import", str(members), "-c", str(gateway.file)).returncode == 0
        gateway.start("--no-web")
        await gateway.until(lambda s: s["readers"][0]["link"] == "up")
        assert simulated.gpo == {2: False}
        for high in (True, False, True):
            simulated.gpi(1, high)
            await asyncio.sleep(0.2)  # longer than the contact must be quiet
        await gateway.until(lambda s: s["readers"][0]["inputs"] == {"1": 2})
        simulated.push([Observation(now_us(), 1, member_card(1), -5000)])
        await until(lambda: simulated.gpo[2])
        await until(lambda: not simulated.gpo[2])
        await until(
            lambda: gateway.rows("SELECT sum(passages), sum(covered_us) > 0, min(zone) FROM door") == [(2, 1, "door")]
        )
        assert gateway.end() == 0, gateway.log()
    finally:
        await simulated.stop()
    config = load(gateway.file)
    with history(config) as past:
        (door,) = past.summary(business_days(config).date(now_us())).doors
    assert (door.zone, door.reader, door.port, door.passages) == ("door", "r1", 1, 2)
    told = gateway.run("summary", "-c", str(gateway.file)).stdout
    assert "Door counters" in told
