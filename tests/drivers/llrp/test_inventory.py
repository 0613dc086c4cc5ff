"""Whether our inventory runs, on readers that end it, lose it, or have another program's: over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from llrp_peers import CARD, QUICK, Obedient, Recorder, forever, now_us, peer, report, session, spec_of
from llrpkit.protocol import enums, messages, params

from drivers import links
from drivers.llrp.rospec import is_ours
from drivers.llrp.state import Timing
from drivers.session import Link
from simulators.readers import llrp_replies
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

WATCHFUL = replace(QUICK, quiet_s=0.2, look_s=0.2)


@asynccontextmanager
async def at_work(reader: LlrpReader, **more: Any) -> AsyncIterator[Recorder]:
    """A session with a reader whose antenna 1 sees a tag all the time."""

    async def see() -> None:
        while True:
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await asyncio.sleep(0.02)

    port = int((await reader.start()).rpartition(":")[2])
    seeing = asyncio.create_task(see())
    try:
        async with session(port, more.pop("timing", WATCHFUL), **more) as sink:
            yield sink
    finally:
        seeing.cancel()
        await reader.stop()


async def reads_again(sink: Recorder) -> None:
    seen = len(sink.all)
    await sink.until(lambda: len(sink.all) > seen + 5 and sink.links[-1] is Link.UP)


async def test_the_reader_is_asked_to_tell_when_a_rospec_ends() -> None:
    reader = LlrpReader(now_us)
    async with at_work(reader) as sink:
        await sink.until(lambda: len(sink.all) > 0)
        assert enums.NotificationEventType.ROSpec_Event in reader._event_states


@pytest.mark.parametrize(
    ("fault", "words"),
    [(LlrpReader.end_inventory, "has stopped its inventory"), (LlrpReader.lose_inventory, "is gone from the reader")],
    ids=["ended and told", "lost without a word"],
)
async def test_an_inventory_that_no_longer_runs_is_an_outage_and_started_again(
    fault: Callable[[LlrpReader], None], words: str
) -> None:
    reader = LlrpReader(now_us)
    async with at_work(reader) as sink:
        await sink.until(lambda: len(sink.all) > 5)
        last_us = int(sink.all["time_us"].max())
        fault(reader)
        await sink.until(lambda: Link.DOWN in sink.links)
        down = next(status for status in sink.statuses if status.link is Link.DOWN)
        assert words in down.reason
        assert not down.keeps, "there is nothing to wait for"
        # Unknown since the last read, not since it was noticed.
        assert last_us - 1_000_000 < down.since_us < now_us()
        await reads_again(sink)
        assert sink.links == [Link.CONNECTING, Link.UP, Link.DOWN, Link.UP], "on the same connection"
        # What somebody else did is no reason to throw away what the reader keeps for us afterwards.
        reader.cut()
        await sink.until(lambda: sink.statuses[-1].keeps)


async def test_one_that_ends_again_and_again_is_started_more_and_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = LlrpReader(now_us)
    waits: list[float] = []

    class Ending(Recorder):
        def status(self, status: Any) -> None:
            super().status(status)
            if status.link is Link.UP:
                asyncio.get_running_loop().call_later(0.02, reader.end_inventory)

    async def at_once(delay_s: float) -> None:
        waits.append(delay_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(links, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": at_once}))
    slow = replace(WATCHFUL, retry_first_s=0.5, retry_cap_s=60)
    async with at_work(reader, sink=Ending(), timing=slow) as sink:
        await sink.until(lambda: len(waits) >= 4, 30)
        assert waits[3] > waits[0]
        # Of two ends, the first is mended without a new connection.
        assert sink.links.count(Link.UP) >= 2 * len(waits) - 1


async def test_a_quiet_shop_is_no_outage() -> None:
    reader = LlrpReader(now_us)
    port = int((await reader.start()).rpartition(":")[2])
    asked = 0
    answer = reader._answer

    def counted(message: Any) -> Any:
        nonlocal asked
        asked += isinstance(message, messages.GET_ROSPECS)
        return answer(message)

    reader._answer = counted  # type: ignore[method-assign]
    try:
        async with session(port, WATCHFUL) as sink:
            async with asyncio.timeout(20):
                while asked < 5:
                    await asyncio.sleep(0.02)
            assert sink.links == [Link.CONNECTING, Link.UP]
    finally:
        await reader.stop()


async def test_a_reader_that_does_not_tell_its_rospecs_is_believed() -> None:
    reader = Obedient(refuse="GET_ROSPECS", beside=lambda _, writer: forever(writer, keepalive(), 0.1))
    async with peer(reader) as (port, _), session(port, WATCHFUL) as sink:
        async with asyncio.timeout(20):
            while reader.asked.count("GET_ROSPECS") < 4:
                await asyncio.sleep(0.02)
        assert sink.links == [Link.CONNECTING, Link.UP]


async def test_it_is_started_again_on_the_word_of_such_a_reader() -> None:
    async def ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reader.asked.count("START_ROSPEC") == 1:
            (spec,) = [m.ro_spec for m in reader.got if isinstance(m, messages.ADD_ROSPEC)]
            writer.write(rospec_event(enums.ROSpecEventType.End_Of_ROSpec, spec.ro_spec_id))
        await forever(writer, keepalive(), 0.1)

    reader = Obedient(refuse="GET_ROSPECS", beside=ends)
    async with peer(reader) as (port, connections), session(port) as sink:
        await sink.until(lambda: sink.links.count(Link.UP) == 2)
        assert reader.asked.count("START_ROSPEC") == 2
        assert len(connections) == 1


class Blind(LlrpReader):
    """A reader that refuses to say which ROSpecs it has."""

    def __init__(self) -> None:
        super().__init__(now_us)
        self.asked: list[str] = []

    def _answer(self, message: Any) -> Any:
        self.asked.append(type(message).__name__)
        if isinstance(message, messages.GET_ROSPECS):
            return messages.ERROR_MESSAGE(llrp_status=llrp_replies.status(109, "not supported"))
        return super()._answer(message)


BLIND = replace(WATCHFUL, blind_s=0.4, steady_s=0.0)


async def test_a_reader_that_says_nothing_of_its_rospecs_is_offered_ours_when_it_is_quiet() -> None:
    reader = Blind()
    async with at_work(reader, timing=BLIND) as sink:
        await reads_again(sink)
        before_us = now_us()
        reader.lose_inventory()
        await sink.until(lambda: sink.links.count(Link.UP) == 2)
        await reads_again(sink)
    down = next(status for status in sink.statuses if status.link is Link.DOWN)
    assert "the inventory is gone from the reader" in down.reason
    assert down.since_us <= before_us + 100_000, "unknown since the last read"


async def test_a_quiet_shop_is_no_outage_for_such_a_reader_either() -> None:
    reader = Blind()
    port = int((await reader.start()).rpartition(":")[2])
    try:
        async with session(port, BLIND) as sink:
            async with asyncio.timeout(20):
                while reader.asked.count("ADD_ROSPEC") < 4:
                    await asyncio.sleep(0.02)
            assert sink.links == [Link.CONNECTING, Link.UP]
    finally:
        await reader.stop()


async def test_one_that_was_stopped_is_started_without_knowing_it() -> None:
    reader = Blind()
    async with at_work(reader, timing=BLIND) as sink:
        await reads_again(sink)
        for spec in reader._rospecs.values():
            spec.current_state = enums.ROSpecState.Disabled
        reader._activate()
        await asyncio.sleep(0.1)
        await reads_again(sink)
        assert Link.DOWN not in sink.links


async def test_a_reader_that_takes_the_same_rospec_twice_is_not_asked_again() -> None:
    reader = Obedient(refuse="GET_ROSPECS", beside=lambda _, writer: forever(writer, keepalive(), 0.1))
    async with peer(reader) as (port, _), session(port, BLIND) as sink:
        async with asyncio.timeout(20):
            while reader.asked.count("GET_ROSPECS") < 9:
                await asyncio.sleep(0.02)
        assert reader.asked.count("ADD_ROSPEC") == 3
        assert reader.asked.count("START_ROSPEC") == 2
        assert sink.links == [Link.CONNECTING, Link.UP]


async def test_another_programs_inventory_instead_of_ours_is_named() -> None:
    there: dict[int, int] = {}

    async def preempted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (spec,) = [m.ro_spec for m in reader.got if isinstance(m, messages.ADD_ROSPEC)]
        there.update({spec.ro_spec_id: 1, 77: 2})
        listed = [spec_of(number, state) for number, state in there.items()]
        reader.answers["GET_ROSPECS"] = messages.GET_ROSPECS_RESPONSE(llrp_status=OK, ro_specs=listed)
        reader.refuse = "START_ROSPEC"
        writer.write(rospec_event(enums.ROSpecEventType.Preemption_Of_ROSpec, spec.ro_spec_id, 77))
        await forever(writer, keepalive(), 0.1)

    reader = Obedient(beside=preempted)
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: any("refused to start the inventory" in s.reason for s in sink.statuses))
    reasons = [status.reason for status in sink.statuses if status.link is Link.DOWN]
    assert reasons[0] == "the reader runs another program's inventory, ROSpec 77, instead of ours"
    assert "ROSpec 77 of another program is on it too" in reasons[1]


async def test_events_of_other_rospecs_are_none_of_ours() -> None:
    async def others(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        event = rospec_event(enums.ROSpecEventType.End_Of_ROSpec, 1)
        await forever(writer, event + report(CARD), 0.05)

    reader = Obedient(beside=others)
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) > 20)
        assert sink.links == [Link.CONNECTING, Link.UP]
        assert reader.asked.count("GET_ROSPECS") == 1


# Another program's ROSpec.


class Occupied(LlrpReader):
    """Another program has left its ROSpec 7."""

    def __init__(self, **more: Any) -> None:
        super().__init__(now_us, **more)
        self._rospecs[7] = spec_of(7, enums.ROSpecState.Active)
        self._activate()


async def test_a_reader_without_room_says_whose_rospec_is_there_and_what_to_do() -> None:
    async with at_work(Occupied()) as sink:
        reason = await sink.until_down()
    assert reason.startswith("ROSpec 7 of another program is on the reader, which has room for no more")
    assert "takeover = true" in reason
    assert f"no room for more than {llrp_replies.ROSPECS_MAX} ROSpecs" in reason


async def test_a_full_reader_that_does_not_tell_its_rospecs_may_have_one_of_another_program() -> None:
    reader = Obedient(refuse="ADD_ROSPEC", error="GET_ROSPECS")
    async with peer(reader) as (port, _), session(port) as sink:
        reason = await sink.until_down()
    assert reason.startswith("the reader refused an inventory on antenna ports")
    assert reason.endswith("it does not say whether another program's ROSpec is in the way")


async def test_takeover_deletes_what_is_in_the_way_and_says_so() -> None:
    reader = Occupied()
    async with at_work(reader, takeover=True) as sink:
        await sink.until(lambda: len(sink.all) > 5)
        assert [is_ours(number) for number in reader._rospecs] == [True]
        assert any("ROSpec 7 of another program was deleted" in text for text in sink.notices)


async def test_takeover_leaves_alone_what_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llrp_replies, "ROSPECS_MAX", 2)
    reader = LlrpReader(now_us)
    reader._rospecs[7] = spec_of(7, enums.ROSpecState.Disabled)
    async with at_work(reader, takeover=True) as sink:
        await sink.until(lambda: len(sink.all) > 5)
        assert 7 in reader._rospecs
        assert sink.notices == []


async def test_a_port_that_the_reader_lacks_is_not_blamed_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llrp_replies, "ROSPECS_MAX", 2)
    async with at_work(Occupied(), ports={9: 1}) as sink:
        reason = await sink.until_down()
    assert reason.startswith("the reader refused an inventory on antenna ports 9")
    assert "ROSpec 7 of another program is on it too" in reason


# Readers that take their time.


def test_a_reader_may_take_its_time_to_answer() -> None:
    assert Timing().answer_s >= 15


@pytest.mark.parametrize("before", ["keepalive", "antenna", "report"])
async def test_other_messages_may_come_before_the_greeting(before: str) -> None:
    antenna = params.AntennaEvent(event_type=1, antenna_id=1)
    first = {"keepalive": keepalive(), "antenna": event(antenna_event=antenna), "report": report(CARD)}[before]
    heard: list[bytes] = []

    class Late(Obedient):
        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(first)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    heard.append(await reader.read(1))
            await super().__call__(reader, writer)

    async with (
        peer(Late(beside=lambda _, writer: forever(writer, report(CARD)))) as (port, _),
        session(port) as sink,
    ):
        await sink.until(lambda: len(sink.all) > 5)
        assert Link.DOWN not in sink.links
        assert heard == [], "nothing is said before the reader's ConnectionAttemptEvent"


OK = params.LLRPStatus(status_code=enums.StatusCode.M_Success)


def keepalive() -> bytes:
    return messages.KEEPALIVE().to_bytes(message_id=0)


def event(**what: Any) -> bytes:
    notice = params.ReaderEventNotificationData(timestamp=params.UTCTimestamp(microseconds=now_us()), **what)
    return messages.READER_EVENT_NOTIFICATION(reader_event_notification_data=notice).to_bytes(message_id=0)


def rospec_event(kind: int, number: int, by: int = 0) -> bytes:
    body = struct.pack("!HHQ", 128, 12, now_us()) + struct.pack("!HHBII", 249, 13, kind, number, by)
    return struct.pack("!HIIHH", 1 << 10 | 63, 14 + len(body), 0, 246, 4 + len(body)) + body
