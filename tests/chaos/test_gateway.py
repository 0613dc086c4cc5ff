"""What goes wrong in the gateway itself: a day that can't be summed up, a clock that is set, a flood of forged tags.
Exact counts."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from brokers import MakeCrm, MosquittoBroker, Until, need_mosquitto
from chaos_shops import book, by_epoch, delivered, now_us, open_shop, serving
from faketime import fake_time
from gateways import Gateway, antennas, member_card

from edge.days.kept import REMADE_DAYS
from simulators.headquarters.broker import NatsBroker
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

DAY_US = 86_400_000_000
DAYS = 9
BAD = DAYS - 2
RSS_MIB = 400


def add_days(gateway: Gateway, days: int) -> None:
    """A visit, a journey and watched windows in each of the last days but today."""
    with closing(sqlite3.connect(gateway.database, timeout=30)) as conn, conn:
        for back in range(days, 0, -1):
            at_us = now_us() - back * DAY_US
            path = json.dumps([["shoes", at_us, at_us + 60_000_000]])
            conn.execute(
                "INSERT INTO visit (tag, tag_class, zone, journey_us, enter_us, exit_us, reads, censored, confidence)"
                " VALUES (?, 0, 'shoes', ?, ?, ?, 9, 0, 1)",
                (secrets.token_bytes(16), at_us, at_us, at_us + 60_000_000),
            )
            window_us = at_us - at_us % 900_000_000
            conn.execute(
                "INSERT INTO aggregate VALUES (?, 'shoes', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, x'')", (window_us,)
            )
            conn.execute(
                "INSERT INTO journey (tag, tag_class, start_us, end_us, censored, path) VALUES (?, 0, ?, ?, 0, ?)",
                (secrets.token_bytes(16), at_us, at_us + 60_000_000, path),
            )


def damage(gateway: Gateway, window: tuple[int, ...], coverage: object) -> None:
    """Give windows a coverage, which had better be a number."""
    with closing(sqlite3.connect(gateway.database, timeout=30)) as conn, conn:
        conn.execute("UPDATE aggregate SET coverage = ? WHERE window_us = ?", (coverage, *window))


def rss_mib(pid: int) -> int:
    """The most that a process has taken."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) >> 10


async def test_a_bad_day(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """One day's rows can't be read: it is tried again, the others are told, greetings go on; then it is mended."""
    async with open_shop(gateway, nats.url, 40) as shop:
        add_days(gateway, DAYS)
        bad = gateway.rows("SELECT window_us FROM aggregate ORDER BY window_us")[BAD]
        damage(gateway, bad, "broken")
        consumer = crm(nats.url)
        await consumer.start()
        gateway.start("--no-web")
        state = await gateway.until(lambda s: any(job["job"] == "day facts" for job in s["failing"]), within_s=120)
        pid = state["pid"]
        summed_up = "SELECT count(*) FROM day_summary WHERE format > 0"
        await until(lambda: gateway.rows(summed_up)[0][0] >= DAYS - 1, within_s=120)
        await shop.enter(40, 0.05)
        await shop.empty()
        told = (
            "SELECT count(DISTINCT json_extract(payload, '$.first_day')) FROM event"
            " WHERE json_extract(payload, '$.type') = 'flow_day'"
        )
        await until(lambda: book(tmp_path, told)[0][0] >= REMADE_DAYS - 1, within_s=180)
        assert gateway.rows("SELECT count(*) FROM recognised")[0][0] <= 40
        state = await gateway.until(lambda s: s["failing"])
        # The day is of a week that may be over as well.
        assert state["pid"] == pid
        assert {"day facts"} <= {job["job"] for job in state["failing"]} <= {"day facts", "day news"}
        damage(gateway, bad, 1.0)
        await gateway.until(lambda s: not s["failing"], within_s=120)
        await until(lambda: book(tmp_path, told)[0][0] >= REMADE_DAYS, within_s=180)
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()), within_s=60)
        last = await consumer.stop()
    total = sum(numbers.values())
    assert numbers["member"] == 40
    assert all(low == 1 and high == n for low, high, n in by_epoch(tmp_path).values())
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    tell(f"{REMADE_DAYS - 1} other days told meanwhile, 40 members announced once, {total:,} of {total:,} events once")


async def test_a_clock_that_is_set(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Two hours behind, put right, 800 days ahead for a quarter of a minute, back: no row of history goes, nothing is
    told of a time that was not."""
    fake = fake_time(tmp_path, -7200)
    started_us, history = now_us(), 120
    async with open_shop(gateway, nats.url, 90) as shop:
        add_days(gateway, history)
        kept = gateway.rows("SELECT count(*) FROM visit")
        consumer = crm(nats.url)
        await consumer.start()
        gateway.start("--no-web", cold=True, environment=fake.environment)
        await gateway.until(serving)
        await shop.enter(30, 0.05)
        fake.set(0)
        await gateway.until(lambda s: s["clock"]["steps"] == 1 and s["clock"]["trust"] != "untrusted")
        await shop.enter(30, 0.05)
        fake.set(800 * 86_400)
        await gateway.until(lambda s: s["clock"]["trust"] == "untrusted")
        await shop.enter(30, 0.2)
        await asyncio.sleep(8)
        state = await gateway.until(lambda s: s["clock"]["trust"] == "untrusted")
        fake.set(0)
        await gateway.until(lambda s: s["clock"]["trust"] != "untrusted")
        await shop.empty()
        await until(
            lambda: gateway.rows("SELECT next_seq - 1 FROM outbox_class WHERE class = 0")[0][0] >= 90, within_s=120
        )
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()), within_s=60)
        last = await consumer.stop()
    assert state["clock"]["reason"] == "the clock was set forward by 800 d"
    assert gateway.rows("SELECT count(*) FROM visit")[0][0] >= kept[0][0]
    total = sum(numbers.values())
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    windows = [
        json.loads(text)
        for (text,) in book(tmp_path, "SELECT payload FROM event WHERE json_extract(payload, '$.type') = 'zone_window'")
    ]
    assert all(started_us - 9 * 3_600_000_000 < w["window_us"] < now_us() for w in windows)
    empty = [w for w in windows if w["coverage"] > 0.5 and w["window_us"] < started_us - 1_800_000_000]
    assert not empty, "hours that nobody saw were told as watched"
    greeted = "SELECT count(*), count(DISTINCT json_extract(payload, '$.member')) FROM event WHERE class = 'member'"
    announced, members = book(tmp_path, greeted)[0]
    assert members == 90
    tell(
        f"set 3 times: {kept[0][0]} of {kept[0][0]} visits of {history} days kept, 90 members announced "
        f"({announced - members} twice), {total:,} of {total:,} events once"
    )


async def test_a_flood(
    gateway: Gateway, tmp_path: Path, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """2,000 new tags a second at one reader for a minute: it is named, the other's members are announced, memory has a
    ceiling."""
    need_mosquitto()
    noisy = LlrpReader(now_us, name="noisy")
    forged = 0

    async def forge(seconds: float) -> None:
        nonlocal forged
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            noisy.push([Observation(now_us(), 1 + n % 2, b"\x30" + secrets.token_bytes(11), -5000) for n in range(100)])
            forged += 100
            await asyncio.sleep(0.05)

    honest = LlrpReader(now_us, name="honest")
    async with MosquittoBroker(tmp_path / "broker") as broker:
        wired = [
            {"id": id_, "driver": "llrp", "address": await reader.start(), "antennas": antennas(*zones)}
            for id_, reader, zones in (("r1", honest, ("door", "shoes")), ("r2", noisy, ("bags", "out")))
        ]
        async with open_shop(gateway, broker.url, 60, readers=wired) as shop:
            shop._reader = honest
            consumer = crm(broker.url)
            await consumer.start()
            gateway.start("--no-web", cold=True)
            state = await gateway.until(lambda s: all(reader["link"] == "up" for reader in s["readers"]))
            flood = asyncio.create_task(forge(60))
            for number in range(60):
                asyncio.get_running_loop().create_task(shop._pass(member_card(number), ((1, 6), (2, 6))))
                await asyncio.sleep(0.8)
            named = await gateway.until(lambda s: any(reader["flooded"] for reader in s["readers"]))
            await flood
            most = rss_mib(state["pid"])
            announced = "SELECT next_seq - 1 FROM outbox_class WHERE class = 0"
            await until(lambda: gateway.rows(announced) == [(60,)], within_s=60)
            await gateway.until(delivered, within_s=120)
            numbers = await shop.close()
            await until(lambda: consumer.count() == sum(numbers.values()), within_s=60)
            last = await consumer.stop()
    await honest.stop()
    await noisy.stop()
    total = sum(numbers.values())
    assert [reader["id"] for reader in named["readers"] if reader["flooded"]] == ["r2"]
    assert most <= RSS_MIB
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    tell(f"{forged:,} forged tags: {most} MiB, 60 of 60 members announced, {total:,} of {total:,} events once")
