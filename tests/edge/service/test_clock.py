"""The service on a machine whose clock is wrong, and is then set: by libfaketime, with real readers' wires."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from faketime import fake_time
from gateways import Gateway, antennas, member_card
from llrpkit.emulator import EmulatedTag, LLRPEmulator

YEAR_2026_US = 1_767_225_600_000_000


def dates(gateway: Gateway) -> list[int]:
    """Every time that is at rest or was told."""
    told: list[dict[str, Any]] = [json.loads(text) for (text,) in gateway.rows("SELECT payload FROM outbox")]
    found = [
        event[name]
        for event in told
        for name in ("window_us", "start_us", "read_us", "since_us", "at_us")
        if name in event
    ]
    for column in ("visit.enter_us", "journey.start_us", "aggregate.window_us", "checkpoint.watermark_us"):
        found += [us for (us,) in gateway.rows(f"SELECT {column} FROM {column.split('.')[0]}")]
    return found


async def test_a_gateway_two_hours_behind_is_told_so_by_its_readers(gateway: Gateway) -> None:
    fake = fake_time(gateway.folder, -7200)
    tags = [EmulatedTag(member_card(n), (1 + n % 2,)) for n in range(4)]
    started_us = time.time_ns() // 1000
    async with LLRPEmulator(tags=tags, reads_per_sec=100) as one, LLRPEmulator(tags=tags, reads_per_sec=100) as two:
        gateway.configure(
            readers=[
                {"id": id_, "driver": "llrp", "address": f"127.0.0.1:{reader.port}", "antennas": antennas(*zones)}
                for id_, reader, zones in (("r1", one, ("door", "shoes")), ("r2", two, ("bags", "out")))
            ]
        )
        gateway.start("--no-web", cold=True, environment=fake.environment)
        state = await gateway.until(lambda s: s["clock"]["trust"] == "untrusted" and s["reads"] > 100)
        assert state["clock"]["reason"] == "all 2 readers agree: this gateway's clock is 2 h behind"
        assert (state["tags_present"], state["visits"]) == (0, 0)
        fake.set(0)
        state = await gateway.until(lambda s: s["clock"]["trust"] != "untrusted" and s["tags_present"] >= 4)
        assert state["clock"]["stepped_by_us"] == pytest.approx(7_200_000_000, abs=3_000_000)
        assert gateway.end() == 0, gateway.log()
    assert "the clock was set forward by 2 h" in gateway.log()
    assert not gateway.rows(f"SELECT 1 FROM visit WHERE enter_us < {started_us - 30_000_000} AND NOT censored")
    windows = [json.loads(text) for (text,) in gateway.rows("SELECT payload FROM outbox WHERE class = 2")]
    before = [one for one in windows if one["type"] != "layout" and one["window_us"] < started_us - 1_800_000_000]
    assert before
    assert all(window["coverage"] < 0.05 for window in before), [
        ((w["window_us"] - started_us) / 1e6, w["type"], w["coverage"], w.get("zone")) for w in before if w["coverage"]
    ]


async def test_a_start_in_1970_leaves_no_trace_of_1970(gateway: Gateway) -> None:
    fake = fake_time(gateway.folder, -round(time.time()) + 90)
    async with LLRPEmulator(tags=[EmulatedTag(member_card(1), (1,))], reads_per_sec=50) as reader:
        wired = {"id": "r1", "driver": "llrp", "address": f"127.0.0.1:{reader.port}", "antennas": antennas("door")}
        gateway.configure(readers=[wired])
        gateway.start("--no-web", cold=True, environment=fake.environment)
        state = await gateway.until(lambda s: s["reads"] > 50)
        assert state["clock"]["reason"].startswith("the clock stands at 1970-01-01")
        assert state["as_of_us"] < 10**10
        fake.set(0)
        await gateway.until(lambda s: s["tags_present"] == 1 and s["clock"]["trust"] != "untrusted")
        assert gateway.end() == 0, gateway.log()
        # And once more: what is stored says that it can't be 1970.
        fake.set(-round(time.time()) + 90)
        gateway.start("--no-web", cold=True, environment=fake.environment)
        await gateway.until(lambda s: s["clock"]["trust"] == "untrusted")
        assert gateway.end() == 0, gateway.log()
    assert min(dates(gateway)) > YEAR_2026_US
    (known,) = [json.loads(file.read_text())["clock_us"] for file in gateway.folder.glob("store.db.life")]
    assert known > YEAR_2026_US
