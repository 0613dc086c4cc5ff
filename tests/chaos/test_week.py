"""A week without the CRM, on a simulated clock: the true pipeline, database and housekeeping of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brokers import MakeCrm, Until
from gateways import Gateway
from weeks import DAY_US, STEP_US, Week, open_week

from simulators.headquarters.broker import NatsBroker

OPEN_STEPS = range(300, 660)
"""Of a day's 720 steps: from 10 to 22 o'clock."""


async def live_through(week: Week, days: int) -> int:
    """Days offline, 100 members a day; how many events were given up."""
    lost = 0
    for step in range(days * DAY_US // STEP_US):
        of_day = step % (DAY_US // STEP_US)
        await week.step(int(of_day in OPEN_STEPS and of_day * 100 // 360 != (of_day - 1) * 100 // 360))
        if step % 15 == 0:
            lost += await week.tidy()
    return lost


async def reconnect(week: Week, consumer: Any, until: Any) -> tuple[float, int]:
    """Connect; somebody comes in while the backlog drains. Seconds until the CRM knows, and what still waited then."""
    publishing = asyncio.create_task(week.publisher.run())
    try:
        await until(lambda: week.publisher.status.connected)
        began = time.monotonic()
        await week.step(1)
        cue = (await week.numbers())["member"]
        await until(lambda: week.publisher.acked("member") >= cue, within_s=60)
        took_s, waiting = time.monotonic() - began, await week.pending()
        for _ in range(30):
            await week.step(0)

        async def delivered() -> bool:
            return await week.pending() == 0

        await until(delivered, within_s=120)
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    return took_s, waiting


def entered(folder: Any) -> tuple[int, int]:
    """Of the windows at the CRM: visits begun, and time present."""
    query = (
        "SELECT sum(json_extract(payload, '$.entered')), sum(json_extract(payload, '$.present_us'))"
        " FROM event WHERE class = 'agg' AND json_extract(payload, '$.type') = 'zone_window'"
    )
    with contextlib.closing(sqlite3.connect(folder / "crm.db")) as conn:
        return tuple(conn.execute(query).fetchone())


async def test_a_week_offline_and_live_again(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    with open_week(gateway, nats.url, 800, None) as week:
        assert await live_through(week, 7) == 0
        backlog = await week.numbers()
        consumer = crm(nats.url)
        await consumer.start()
        await until(consumer.ready)
        took_s, waiting = await reconnect(week, consumer, until)
        numbers = await week.numbers()
        last = await consumer.stop()
    assert {class_: (1, n, n) for class_, n in numbers.items()} == {
        class_: (low, high, n) for class_, low, high, n in consumer.rows()
    }
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (sum(numbers.values()), 0, 0, 0)
    assert numbers["member"] == numbers["journey"] == week.people == 701
    tell(
        f"7 days, {backlog}: {last['received']:,} of {sum(numbers.values()):,} once, also what came while it drained; "
        f"the live cue took {took_s:.2f} s, {waiting:,} events still waited"
    )


async def test_a_week_offline_with_too_small_a_disk(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Health goes, windows are merged; no recognition or journey is lost, and what is lost is told."""
    with open_week(gateway, nats.url, 800, 1100) as week:
        lost = await live_through(week, 7)
        consumer = crm(nats.url)
        await consumer.start()
        await until(consumer.ready)
        took_s, waiting = await reconnect(week, consumer, until)
        numbers = await week.numbers()
        aggregates = "SELECT sum(entered), sum(present_us) FROM aggregate"
        kept = await week.database.read(lambda conn: tuple(conn.execute(aggregates).fetchone()))
        last = await consumer.stop()
    rows = {class_: n for class_, _, _, n in consumer.rows()}
    assert last["received"] + last["lost"] == sum(numbers.values())
    assert (last["gaps"], last["dead"]) == (0, 0)
    assert (rows["member"], rows["journey"]) == (701, 701)
    assert entered(tmp_path) == kept
    assert lost > 0
    tell(
        f"{sum(numbers.values()):,} numbers: {last['received']:,} events, {last['lost']:,} told as lost or merged; "
        f"all 701 recognitions and journeys, the windows' sums kept; cue {took_s:.2f} s before {waiting:,} others"
    )
