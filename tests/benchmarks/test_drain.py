"""How fast a backlog drains into a CRM that commits and acknowledges, all over a real broker."""

from __future__ import annotations

import time

import pytest
from brokers import health

from sync import outbox

EVENTS = 50_000
BUDGET_PER_S = 10_000


@pytest.mark.benchmark_suite
async def test_drain(broker, store, crm, until, record_property, capsys):
    gateway, consumer = store(broker.url), crm(broker.url)
    for _ in range(EVENTS // 1000):
        await gateway.writer.write(lambda conn: outbox.append(conn, "health", [health(n) for n in range(1000)]))
    await consumer.start()
    await until(consumer.ready)
    began = time.monotonic()
    async with gateway.online():
        await until(lambda: gateway.publisher.acked("health") == EVENTS, within_s=120)
        took_s = time.monotonic() - began
        await until(gateway.empty)
    last = await consumer.stop()
    assert (last["received"], last["gaps"]) == (EVENTS, 0)
    rate = EVENTS / took_s
    record_property("events_per_s", rate)
    with capsys.disabled():
        print(f"\ndrain over {type(broker).__name__}: {rate:,.0f} events/s, {last['duplicates']} repeated")
    assert rate >= BUDGET_PER_S
