"""Many fake stores at one broker: all that they say arrives once."""

from __future__ import annotations

import re

from brokers import SCHEMA as REAL

from simulators.fleet import SCHEMA, run


async def test_a_fleets_events_all_arrive(nats, crm, until):
    consumer = crm(nats.url)
    await consumer.start()
    await until(consumer.ready)
    totals = await run(20, nats.url, 5, 4, lambda _: None)
    assert totals["pending"] == 0
    assert totals["sent"] > 50
    last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (totals["sent"], 0, 0, 0)
    assert len(last["stores"]) == 20


def test_its_tables_are_named_like_a_gateways():
    for table in re.findall(r"CREATE TABLE (\w+)", SCHEMA):
        assert f"CREATE TABLE {table} (" in REAL
