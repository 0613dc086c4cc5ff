"""What a reader keeps while nobody is connected, and what it loses: over real sockets, against the simulated reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from llrp_peers import Obedient, Recorder, now_us, peer, session
from llrpkit.protocol import messages, params

from drivers.backlog import Backlog, LossWatch
from drivers.llrp.rospec import rospec
from drivers.session import Gap, Link
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

TAGS = [bytes([0x30, *range(10), i]) for i in range(250)]


@asynccontextmanager
async def simulated(**more: Any) -> AsyncIterator[tuple[LlrpReader, int]]:
    reader = LlrpReader(now_us, **more)
    address = await reader.start()
    try:
        yield reader, int(address.rpartition(":")[2])
    finally:
        await reader.stop()


def hear(reader: LlrpReader, *times_us: int) -> None:
    reader.push([Observation(at_us, 1 + i % 4, TAGS[i % 250], -5000) for i, at_us in enumerate(times_us)])


async def until(true: Any) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_hold_events_and_reports_upon_reconnect_is_asked_of_readers_that_can() -> None:
    for holds in (True, False):
        async with simulated(holds=holds) as (reader, port), session(port) as sink:
            await sink.until(lambda sink=sink: Link.UP in sink.links)
            assert reader._hold is holds
            reader.cut()
            await sink.until_down()
            assert sink.statuses[-1].keeps is holds


async def test_held_reads_arrive_with_their_own_times_and_the_rospec_is_not_reset() -> None:
    async with simulated() as (reader, port):
        async with session(port) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            assert sink.statuses[-1].reads_from_us is None
        await until(lambda: not reader.connected)
        (rospec,) = reader._rospecs.values()
        kept = [now_us() - age * 1_000_000 for age in range(3600, 600, -1)]
        hear(reader, *kept)
        assert reader.sent == 0
        async with session(port) as sink:
            await sink.until(lambda: len(sink.all) == len(kept))
            hear(reader, fresh := now_us())
            await sink.until(lambda: len(sink.all) == len(kept) + 1)
            await sink.until(lambda: sink.statuses[-1].reads_from_us is None)
        ups = [status for status in sink.statuses if status.link is Link.UP]
        assert list(reader._rospecs.values()) == [rospec]
    assert sink.all["time_us"].tolist() == [*kept, fresh]
    assert sink.gaps == []
    # From unknown, on with what came, until all was there: the link is never told without while old reads may come.
    assert ups[0].reads_from_us == 0
    assert ups[-1].reads_from_us is None
    told = [up.reads_from_us or 0 for up in ups[:-1]]
    assert told == sorted(told)
    assert all(up.since_us == ups[0].since_us for up in ups)


async def test_a_connection_that_broke_is_taken_up_where_it_ended() -> None:
    async with simulated() as (reader, port), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        hear(reader, before := now_us())
        await sink.until(lambda: len(sink.all) == 1)
        reader.cut()
        await until(lambda: not reader.connected)
        hear(reader, *(during := [now_us() - 3_000_000, now_us() - 2_900_000]))
        await sink.until(lambda: len(sink.all) == 3)
        again = next(s for s in sink.statuses[2:] if s.link is Link.UP)
        assert again.reads_from_us == before
        assert sink.all["time_us"].tolist() == [before, *during]


async def test_a_configuration_that_somebody_changed_is_made_anew() -> None:
    async with simulated() as (reader, port), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        (rospec,) = reader._rospecs.values()
        reader.cut()
        reader._state_value += 1
        await sink.until(lambda: sink.links.count(Link.UP) == 2)
        (made,) = reader._rospecs.values()
        assert made is not rospec
        assert all(s.reads_from_us is None for s in sink.statuses)


async def test_a_reader_that_restarted_has_kept_nothing() -> None:
    async with simulated() as (reader, port), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        await reader.stop()
        await sink.until_down()
        await reader.start()
        await sink.until(lambda: sink.links.count(Link.UP) == 2)
        assert sink.statuses[-1].reads_from_us is None
        hear(reader, now_us())
        await sink.until(lambda: len(sink.all) == 1)


@pytest.mark.parametrize(
    ("state", "expected"), [(2, []), (1, ["START_ROSPEC"]), (0, ["ENABLE_ROSPEC", "START_ROSPEC"])]
)
async def test_a_surviving_rospec_gets_only_what_it_lacks(state: Any, expected: Any) -> None:
    reader = Obedient(rospecs={rospec([1, 2, 3, 4], 1)["ROSpecID"]: state})
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        assert [name for name in reader.asked if name.endswith("_ROSPEC")] == expected


async def test_what_is_on_its_way_at_the_end_is_still_taken() -> None:
    sink = Recorder()
    async with simulated() as (reader, port):
        async with session(port, sink=sink):
            await sink.until(lambda: Link.UP in sink.links)
            hear(reader, *(now_us() for _ in range(2000)))
        await until(lambda: not reader.connected)
        assert reader.sent == len(sink.all) == 2000


async def test_overflow_of_held_reports_is_a_gap() -> None:
    async with simulated(held_max=100) as (reader, port), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        hear(reader, before := now_us() - 10_000_000)
        await sink.until(lambda: len(sink.all) == 1)
        reader.cut()
        await until(lambda: not reader.connected)
        kept = [now_us() - 9_000_000 + i * 10_000 for i in range(150)]
        hear(reader, *kept)
        await sink.until(lambda: len(sink.all) == 101)
        await sink.until(lambda: sink.statuses[-1].reads_from_us is None and sink.links[-1] is Link.UP)
        oldest, *rest = sink.gaps
        assert oldest == Gap("gate-1", before, kept[50], LossWatch.REASON)
        # Nor is anything known of the time between the newest that was kept and the new connection.
        assert [(gap.from_us, gap.to_us >= kept[-1] + 5_000_000) for gap in rest] == [(kept[-1], True)]


async def test_overflow_without_further_reads_ends_by_itself() -> None:
    async with simulated() as (reader, port), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        hear(reader, newest := now_us())
        await sink.until(lambda: len(sink.all) == 1)
        reader.notify(report_buffer_overflow_error_event=params.ReportBufferOverflowErrorEvent())
        await sink.until(lambda: bool(sink.gaps))
        (gap,) = sink.gaps
        assert gap.from_us == newest
        assert newest < gap.to_us <= now_us()
        assert sink.links[-1] is Link.UP


async def test_report_buffer_level_warning_is_answered_with_get_report() -> None:
    warning = messages.READER_EVENT_NOTIFICATION(
        reader_event_notification_data=params.ReaderEventNotificationData(
            timestamp=params.UTCTimestamp(microseconds=now_us()),
            report_buffer_level_warning_event=params.ReportBufferLevelWarningEvent(report_buffer_percentage_full=90),
        )
    ).to_bytes(message_id=0)

    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(warning)
        got.set_result(await asyncio.wait_for(_.readexactly(10), 10))

    got = asyncio.get_running_loop().create_future()
    async with peer(Obedient(then=then)) as (port, _), session(port) as sink:
        assert (await got)[1] == 60
        await sink.until(lambda: bool(sink.notices))
    assert sink.notices == ["the reader's memory for reports is 90 % full"]


async def test_reader_exceptions_and_antenna_events_are_health_and_nothing_else() -> None:
    async with simulated() as (reader, port), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        for _ in range(3):
            reader.notify(antenna_event=params.AntennaEvent(event_type=0, antenna_id=3))
            reader.notify(reader_exception_event=params.ReaderExceptionEvent(message="PA too hot"))
        reader.notify(antenna_event=params.AntennaEvent(event_type=1, antenna_id=3))
        await sink.until(lambda: len(sink.notices) == 3)
        await asyncio.sleep(0)
        assert sink.notices == [
            "the reader says that antenna port 3 was disconnected",
            "the reader reports an exception: PA too hot",
            "the reader says that antenna port 3 was connected",
        ]
        assert sink.links == [Link.CONNECTING, Link.UP]


async def test_two_gateways_on_one_reader() -> None:
    async with simulated() as (reader, port), session(port) as first:
        await first.until(lambda: Link.UP in first.links)
        async with session(port) as second:
            assert "another client is connected" in await second.until_down()
            await first.until(lambda: bool(first.notices))
            assert "another client tried to connect" in first.notices[0]
            hear(reader, now_us())
            await first.until(lambda: len(first.all) == 1)
        assert first.links == [Link.CONNECTING, Link.UP]


def test_a_backlog_mixed_with_new_reads_has_drained_when_no_old_ones_come() -> None:
    backlog = Backlog(0, up_us=100_000_000, tolerance_us=100_000, quiet_s=2, now_s=0)
    backlog.take(np.array([50_000_000, 100_000_000]), 100_000_000, 1.0)
    assert backlog.from_us == 50_000_000
    backlog.take(np.array([101_000_000]), 101_000_000, 2.0)
    assert backlog.left_s(2.5) == 0.5
    backlog.take(np.array([60_000_000]), 101_000_000, 2.5)
    assert backlog.left_s(4.0) == 0.5
    assert backlog.missing_us() is None
    backlog.overflowed = True
    assert backlog.missing_us() == (60_000_000, 100_000_000)
