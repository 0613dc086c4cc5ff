"""How much is put on its way: as much as keeps any line busy, and no more than gets through soon."""

from __future__ import annotations

import heapq
import itertools
import json
from typing import Any

import pytest
from brokers import Listening, MakeStore, MosquittoBroker, Until
from lines import SlowLine

from sync.contract import EventClass
from sync.uplink import AHEAD_S, BATCH_BYTES, LIMIT_BYTES, Uplink


def simulated(
    uplink: Uplink, bytes_per_s: float, round_trip_s: float, seconds: float, start_s: float = 0.0
) -> tuple[float, float]:
    """Batches as large as the line wants, sent as it lets them, over one that carries so much; what came of it:
    bytes a second that got through, and how long the last ones took."""
    now, free, through, took = start_s, start_s, 0, []
    waiting: list[Any] = []
    order = itertools.count()
    while now < start_s + seconds:
        while uplink.may_send("bulk"):
            size = uplink.batch_bytes
            free = max(free, now) + size / bytes_per_s
            heapq.heappush(waiting, (free + round_trip_s, next(order), uplink.send("bulk", size, now)))
        now, _, sent = heapq.heappop(waiting)
        uplink.taken(sent, now)
        through += sent.size
        took.append(now - sent.at_s)
    for _, _, sent in waiting:
        uplink.taken(sent, now)
    return through / (now - start_s), max(took[len(took) // 2 :])


@pytest.mark.parametrize("round_trip_s", [0.001, 0.05, 0.6])
@pytest.mark.parametrize("kbit_per_s", [16, 32, 64, 256, 1_000])
def test_a_line_is_kept_busy_and_not_buried(kbit_per_s: int, round_trip_s: float) -> None:
    bytes_per_s = kbit_per_s * 125
    rate, took_s = simulated(Uplink(), bytes_per_s, round_trip_s, 120)
    assert rate >= 0.85 * bytes_per_s
    assert took_s <= max(AHEAD_S, LIMIT_BYTES[0] / bytes_per_s) * 1.5 + round_trip_s


def test_a_fast_line_has_full_batches_after_the_first() -> None:
    uplink = Uplink()
    uplink.taken(uplink.send("bulk", uplink.batch_bytes, 0.0), 0.005)
    assert (uplink.limit, uplink.batch_bytes) == (LIMIT_BYTES[1], BATCH_BYTES[1])


def test_a_line_that_gets_slow_or_fast_is_followed() -> None:
    uplink = Uplink()
    for kbit_per_s in (10_000, 32, 1_000, 16):
        bytes_per_s = kbit_per_s * 125
        simulated(uplink, bytes_per_s, 0.02, 60)
        rate, took_s = simulated(uplink, bytes_per_s, 0.02, 60, 1000.0)
        assert rate >= min(0.85 * bytes_per_s, 100_000)
        assert took_s <= max(AHEAD_S, LIMIT_BYTES[0] / bytes_per_s) * 1.5


def test_a_lone_small_message_says_nothing_of_how_much_would_fit() -> None:
    uplink = Uplink()
    uplink.taken(uplink.send("bulk", uplink.batch_bytes, 0.0), 0.005)
    for _ in range(50):
        uplink.taken(uplink.send("member", 300, 1.0), 1.5)
    assert uplink.limit == LIMIT_BYTES[1]
    uplink.taken(uplink.send("member", 300, 1.0), 1.0 + 2 * AHEAD_S)  # but this does
    assert uplink.limit < LIMIT_BYTES[1]


def test_what_broke_under_a_load_gets_half_of_it() -> None:
    uplink = Uplink()
    uplink.taken(uplink.send("bulk", uplink.batch_bytes, 0.0), 0.005)
    uplink.broke()
    assert uplink.limit == LIMIT_BYTES[1]  # nothing was under way
    for _ in range(10):
        sent = uplink.send("bulk", uplink.batch_bytes, 1.0)
        uplink.broke()
    assert uplink.limit == LIMIT_BYTES[0]
    uplink.taken(sent, 2.0)  # of the link that broke
    assert uplink.may_send("bulk")


def test_lanes_do_not_take_each_others_room() -> None:
    uplink = Uplink()
    uplink.taken(uplink.send("bulk", uplink.batch_bytes, 0.0), 0.005)
    while uplink.may_send("bulk"):
        uplink.send("bulk", uplink.batch_bytes, 1.0)
    assert uplink.may_send("member")


def fresh_bytes(batches: list[dict[str, Any]]) -> int:
    """Bytes of events as the outbox has them."""
    return sum(len(json.dumps(event, separators=(",", ":"))) for batch in batches for event in batch["events"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("packed", [False, True])
async def test_a_slow_line_carries_fresh_events_once_and_a_recognition_soon(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until, packed: bool
) -> None:
    """Counted in bytes on the line, not in time: what of it is events that came for the first time."""
    async with SlowLine(mosquitto.url, 64_000).open() as slow:
        gateway = store(slow.url)
        for class_ in ("journey", "agg"):
            await gateway.commit(class_, 2000)
        async with listening(mosquitto.url, gateway) as crm, gateway.online() as running:
            crm.acking, crm.accepts = True, ("gzip",) if packed else ()
            await until(lambda: len(crm.batches) >= 8)
            before, came = slow.up_bytes, fresh_bytes(crm.batches)
            await gateway.commit("member", 1)
            await until(lambda: crm.seqs("member"))
            assert slow.up_bytes - before < 3 * LIMIT_BYTES[0]
            await until(lambda: slow.up_bytes - before > 40_000)
            passed, came = slow.up_bytes - before, fresh_bytes(crm.batches) - came
        waiting: tuple[EventClass, ...] = ("journey", "agg")
        for class_ in waiting:
            assert crm.seqs(class_) == list(range(1, len(crm.seqs(class_)) + 1))
        assert (running.counters["connections"], running.counters["silences"]) == (1, 0)
        assert came >= (2 if packed else 0.8) * passed
