"""Everything committed to the outbox is counted at the CRM once, whatever dies in between."""

from __future__ import annotations


async def test_delivers_all_classes(broker, store, crm, until):
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("member", 3)
        await gateway.commit("health", 700)
        await until(lambda: consumer.count() == 703)
        await until(lambda: gateway.publisher.counters["acks"] >= 2)
    assert await gateway.pending() == 0
    last = await consumer.stop()
    assert last["received"] == 703
    assert (last["gaps"], last["lost"], last["dead"]) == (0, 0, 0)
    assert len(last["recognitions"]) == 3
    assert consumer.rows() == [("health", 1, 700, 700), ("member", 1, 3, 3)]
