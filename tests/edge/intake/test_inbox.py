"""The sink of every session: order, and how much may wait."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from drivers.read import READ, Reads
from drivers.session import Contact, Link, Notice, ReaderStatus
from edge.intake import inbox as module
from edge.intake.inbox import Inbox


def batch(n: int) -> Reads:
    return np.zeros(n, READ)


async def settled(*tasks: asyncio.Task[None]) -> list[bool]:
    for _ in range(10):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_it_gives_what_came_in_the_order_of_arrival() -> None:
    inbox = Inbox()
    up = ReaderStatus("r1", Link.UP, "", 0)
    await inbox.reads("r1", batch(1))
    inbox.status(up)
    inbox.contact(Contact("r1", 1, 0, True))
    await inbox.reads("r2", batch(2))
    first, second, third, fourth = inbox.take()
    assert isinstance(first, tuple)
    assert (first[0], second, third) == ("r1", up, Contact("r1", 1, 0, True))
    assert isinstance(fourth, tuple)
    assert len(fourth[1]) == 2
    assert list(inbox.take()) == []


async def test_a_reader_that_floods_waits_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READS", 1_000)
    monkeypatch.setattr(module, "MAX_OF_READER", 500)
    inbox = Inbox()
    await inbox.reads("evil", batch(600))
    waiting = asyncio.create_task(inbox.reads("evil", batch(1)))
    assert await settled(waiting) == [False]
    await inbox.reads("good", batch(400))
    also = asyncio.create_task(inbox.reads("good", batch(1)))
    assert await settled(waiting, also) == [False, False], "full for all"
    assert len(list(inbox.take())) == 2
    assert await settled(waiting, also) == [True, True]


async def test_batches_of_one_read_are_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_READER", 10 * (1 + module.BATCH_READS))
    inbox = Inbox()
    for _ in range(10):
        await inbox.reads("evil", batch(1))
    waiting = asyncio.create_task(inbox.reads("evil", batch(1)))
    assert await settled(waiting) == [False]
    waiting.cancel()


async def test_contacts_and_notices_are_bounded_but_no_change_of_a_link_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 5)
    inbox = Inbox()
    for number in range(10):
        inbox.contact(Contact("evil", 1, number, True))
        inbox.notice(Notice("good" if number == 0 else "evil", number, "x"))
        inbox.status(ReaderStatus("evil", Link.UP, "", number))
    taken = list(inbox.take())
    assert sum(isinstance(item, ReaderStatus) for item in taken) == 10
    assert sum(isinstance(item, Contact | Notice) and item.reader == "evil" for item in taken) == 5
    assert inbox.dropped == {"evil": 14}
    assert caplog.text.count("too many events") == 1
    inbox.contact(Contact("evil", 1, 99, True))
    assert len(list(inbox.take())) == 1


async def test_wait_returns_when_something_has_come_or_it_is_woken() -> None:
    inbox = Inbox()
    waiting = asyncio.create_task(inbox.wait(60, 0))
    assert await settled(waiting) == [False]
    inbox.wake()
    await waiting
    await inbox.reads("r1", batch(1))
    await inbox.wait(60, 0)
