"""The client of the broker that readers publish to."""

from __future__ import annotations

import asyncio

import aiomqtt
import pytest

from drivers.pushed.topics import Client


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    client = Client("localhost")
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client._wait_for(answer, 5))
    await asyncio.sleep(0)  # it waits
    answer.set_result(None)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_an_answer_that_does_not_come_is_told() -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(aiomqtt.MqttError, match="no answer in time"):
        await Client("localhost")._wait_for(never, 0.01)
