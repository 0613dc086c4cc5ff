"""The session against llrpkit's reader and against peers that misbehave, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llrp_peers import (
    CARD,
    LONG,
    OK,
    QUICK,
    Obedient,
    Recorder,
    forever,
    free_port,
    greeting,
    now_us,
    peer,
    report,
    session,
    settings,
    through,
)
from llrpkit.emulator import EmulatedTag, LLRPEmulator
from llrpkit.protocol import decode_message, enums, messages, params

from drivers import links, open_session
from drivers.llrp import codec
from drivers.llrp import session as llrp
from drivers.llrp.rospec import is_ours, rospec
from drivers.llrp.session import LlrpSession, Timing
from drivers.llrp.wire import Wire
from drivers.read import ANTENNA_UNKNOWN, epc_words
from drivers.session import Link, ReaderSettings


async def test_reads_arrive_with_epc_antenna_time_and_rssi() -> None:
    tags = [EmulatedTag(CARD, (2,), -50.0), EmulatedTag(LONG, (3,), -40.0)]
    async with LLRPEmulator(tags=tags, reads_per_sec=400) as reader, session(reader.port) as sink:
        began_us = now_us()
        await sink.until(lambda: set(sink.all["antenna"]) == {101, 102})
        reads, ended_us = sink.all, now_us()
    card = reads[reads["antenna"] == 101]
    long = reads[reads["antenna"] == 102]
    assert (card["epc"] == epc_words(CARD)).all()
    assert (long["epc"] == epc_words(LONG)).all()
    assert set(card["epc_bits"]) == {96}
    assert set(long["epc_bits"]) == {496}
    assert (np.abs(card["rssi_cdbm"] + 5000) < 1000).all()
    assert (reads["time_us"] >= began_us - 1_000_000).all()
    assert (reads["time_us"] <= ended_us).all()
    assert sink.links[0] is Link.CONNECTING
    up = sink.statuses[1]
    assert up.link is Link.UP
    assert up.detail["firmware"] == "llrpkit-emu 0.1"
    assert abs(up.clock_offset_us or 10**9) < 1_000_000


async def test_a_port_that_is_not_in_the_store_file_is_an_unknown_antenna() -> None:
    async with (
        peer(Obedient(then=lambda _, writer: forever(writer, report(CARD, port=4)))) as (port, _),
        session(port, ports={1: 100}) as sink,
    ):
        await sink.until(lambda: len(sink.all) > 0)
        assert set(sink.all["antenna"]) == {ANTENNA_UNKNOWN}


async def test_the_rospec_is_ours_and_only_ours_are_deleted() -> None:
    stale = rospec([1], 7)["ROSpecID"]
    reader = Obedient(rospecs={stale: 2, 31335: 2, 1: 0})
    async with peer(reader) as (port, _), session(port, ports={2: 5, 4: 6}) as sink:
        await sink.until(lambda: Link.UP in sink.links)
    deleted = [m.ro_spec_id for m in reader.got if isinstance(m, messages.DELETE_ROSPEC)]
    (spec,) = [m.ro_spec for m in reader.got if isinstance(m, messages.ADD_ROSPEC)]
    assert deleted == [stale]
    assert is_ours(spec.ro_spec_id)
    assert spec.ro_spec_id != stale
    assert spec.current_state == enums.ROSpecState.Disabled
    assert spec.spec_parameters[0].antenna_ids == [2, 4]
    assert spec.ro_report_spec.n > 0
    content = spec.ro_report_spec.tag_report_content_selector
    assert content.enable_antenna_id
    assert content.enable_peak_rssi
    assert content.enable_last_seen_timestamp
    (identity,) = [m for m in reader.got if isinstance(m, messages.GET_READER_CONFIG)]
    assert (identity.antenna_id, int(identity.requested_data)) == (0, 1)


async def test_keepalives_are_acknowledged_and_hold_the_link() -> None:
    async with LLRPEmulator(tags=[]) as reader, session(reader.port, replace(QUICK, keepalive_s=0.4)) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        async with asyncio.timeout(10):
            while reader.keepalive_acks < 4:
                await asyncio.sleep(0.05)
        assert sink.links[-1] is Link.UP


async def test_reconnects_to_a_reader_that_died_and_came_back() -> None:
    async with session(port := free_port()) as sink:
        await sink.until(lambda: Link.DOWN in sink.links)
        assert "refused the connection" in sink.statuses[-1].reason
        for _ in range(2):
            async with LLRPEmulator(port=port, reads_per_sec=400):
                seen = len(sink.all)
                await sink.until(lambda: sink.links[-1] is Link.UP and len(sink.all) > seen)  # noqa: B023
            await sink.until(lambda: sink.links[-1] is Link.DOWN)
    assert sink.links.count(Link.UP) == 2
    assert sink.links.count(Link.CONNECTING) == 1


async def test_one_down_has_one_beginning_and_no_repetition() -> None:
    async with session(free_port()) as sink:
        await sink.until(lambda: Link.DOWN in sink.links)
        await asyncio.sleep(0.5)  # several attempts, all refused
        assert sink.links == [Link.CONNECTING, Link.DOWN]


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes(64),
        struct.pack("!HII", 1 << 10 | 63, 9, 0),
        b"\x04\x3f\xff\xff\xff\xff" * 4,
        bytes.fromhex("A55A000A830000890D0A"),
    ],
    ids=["ssh", "zeros", "length 9", "length 4 GiB", "a Chainway UR4 in its own protocol"],
)
async def test_garbage_is_named_and_tried_again(garbage: Any) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        await reader.read()

    async with peer(talk) as (port, connections), session(port) as sink:
        assert "not LLRP" in await sink.until_down()
        async with asyncio.timeout(10):
            while len(connections) < 3:
                await asyncio.sleep(0.02)


async def test_garbage_in_the_middle_keeps_the_reads_before_it() -> None:
    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(report(CARD))
        await asyncio.wait_for(delivered.wait(), 5)
        writer.write(report(CARD) + b"\xff" * 40)
        await reader.read()

    delivered = asyncio.Event()
    async with peer(Obedient(then=then)) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) == 1)
        delivered.set()
        assert "not LLRP" in await sink.until_down()
        assert len(sink.all) == 2


@pytest.mark.parametrize(
    ("status", "words"), [(1, "connected elsewhere"), (2, "another client is connected"), (3, "no reason")]
)
async def test_a_refused_connection_attempt_says_why(status: int, words: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(status))
        await reader.read()

    async with peer(refuse) as (port, _), session(port) as sink:
        assert words in await sink.until_down()


async def test_nothing_is_sent_before_the_greeting_and_a_mute_peer_is_given_up() -> None:
    heard = bytearray()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())

    async with peer(mute) as (port, _), session(port, replace(QUICK, greeting_s=0.3)) as sink:
        assert "no LLRP greeting" in await sink.until_down()
    assert not heard


@pytest.mark.parametrize("request_name", ["GET_READER_CAPABILITIES", "SET_READER_CONFIG", "ADD_ROSPEC", "START_ROSPEC"])
@pytest.mark.parametrize("how", ["refuse", "error"])
async def test_a_refusal_comes_with_the_readers_own_words(request_name: str, how: str) -> None:
    more: dict[str, Any] = {how: request_name}
    async with peer(Obedient(**more)) as (port, _), session(port) as sink:
        reason = await sink.until_down()
    assert "port 9 is odd" in reason
    assert "refused" in reason


@pytest.mark.parametrize("request_name", ["DELETE_ROSPEC", "GET_READER_CONFIG", "GET_ROSPECS"])
@pytest.mark.parametrize("how", ["refuse", "error"])
async def test_what_a_reader_may_refuse_does_not_stop_us(request_name: str, how: str) -> None:
    more: dict[str, Any] = {how: request_name}
    reader = Obedient(**more)
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
    assert "ERROR_MESSAGE" not in reader.asked


async def test_an_unanswered_request_is_given_up() -> None:
    async with LLRPEmulator() as reader:
        reader.drop_next(messages.ADD_ROSPEC)
        async with session(reader.port, replace(QUICK, answer_s=0.5)) as sink:
            assert "did not answer ADD_ROSPEC" in await sink.until_down()
            await sink.until(lambda: sink.links[-1] is Link.UP)


async def test_silence_of_two_keepalive_periods_is_a_dead_link() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    quick = replace(QUICK, keepalive_s=0.2)
    async with peer(Obedient(then=silent)) as (port, connections), session(port, quick) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        assert "nothing heard for 0.4 s" in await sink.until_down()
        await sink.until(lambda: sink.links.count(Link.UP) >= 2)
        assert len(connections) >= 2


async def test_a_close_event_and_a_reset_lead_to_a_new_connection() -> None:
    close = messages.READER_EVENT_NOTIFICATION(
        reader_event_notification_data=params.ReaderEventNotificationData(
            timestamp=params.UTCTimestamp(microseconds=now_us()), connection_close_event=params.ConnectionCloseEvent()
        )
    ).to_bytes(message_id=0)
    endings = iter([close, b""])

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if ending := next(endings, None):
            writer.write(ending)
            await reader.read()
        elif ending is None:
            await forever(writer, report(CARD))
        else:
            writer.write(report(CARD)[:30])
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async with peer(Obedient(then=then)) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) > 0)
    reasons = [status.reason for status in sink.statuses if status.link is Link.DOWN]
    assert reasons[0] == "the reader ended the connection"
    assert len(reasons) == 2


async def test_unknown_and_undecodable_messages_are_ignored() -> None:
    noise = (
        struct.pack("!HII", 1 << 10 | 500, 14, 5)
        + b"\1\2\3\4"
        + struct.pack("!HIIIB", 1 << 10 | 1023, 16, 6, 25882, 77)
        + b"\0"
        + struct.pack("!HII", 1 << 10 | 63, 14, 0)
        + b"\0\xf6\0\x90"
        + messages.ERROR_MESSAGE(llrp_status=OK).to_bytes(message_id=12345)
    )

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever(writer, noise + report(CARD))

    reader = Obedient(then=then)
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) >= 5)
        assert sink.links == [Link.CONNECTING, Link.UP]


def random_cuts(data: bytes) -> list[bytes]:
    at = sorted(random.Random(len(data)).choices(range(len(data) + 1), k=5))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@pytest.mark.parametrize("cut", [lambda data: [bytes([b]) for b in data], random_cuts], ids=["bytes", "random"])
async def test_messages_in_any_pieces(cut: Any) -> None:
    async with (
        LLRPEmulator(tags=[EmulatedTag(CARD, (1,))], reads_per_sec=50) as reader,
        through(reader.port, cut) as port,
        session(port, timing=Timing(gather_s=0.001)) as sink,
    ):
        await sink.until(lambda: len(sink.all) >= 20)
        assert (sink.all["epc"] == epc_words(CARD)).all()
        assert set(sink.all["antenna"]) == {100}


async def test_a_message_longer_than_the_buffer_and_many_merged_ones() -> None:
    big = report(*[i.to_bytes(12, "big") for i in range(5000)])
    assert len(big) > 2 * (1 << 16)

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(report(CARD) * 3000 + big + report(CARD))
        await reader.read()

    async with (
        peer(Obedient(then=then)) as (port, _),
        session(port, timing=Timing(gather_s=0.001)) as sink,
    ):
        await sink.until(lambda: len(sink.all) == 8001)
        assert sink.all["epc"][3000:8000, 1].tolist() == [i << 32 for i in range(5000)]


async def test_a_slow_consumer_holds_the_reader_back_and_loses_nothing() -> None:
    count = 40_000
    start, end = report(b"-" * 12).split(b"-" * 12)
    sent = [start + i.to_bytes(12, "big") + end for i in range(count)]

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(0, count, 100):
            writer.write(b"".join(sent[at : at + 100]))
            await writer.drain()
            await asyncio.sleep(0)
        await forever(writer, messages.KEEPALIVE().to_bytes(message_id=9))

    class Slow(Recorder):
        async def reads(self, reader: str, batch: np.ndarray) -> None:
            await asyncio.sleep(0.01)
            await super().reads(reader, batch)

    sink = Slow()
    async with peer(Obedient(then=then)) as (port, _):
        running = asyncio.create_task(LlrpSession(settings(port), sink, now_us, QUICK).run())
        await sink.until(lambda: sum(map(len, sink.batches)) >= count, 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sink.all["epc"][:, 1].tolist() == [i << 32 for i in range(count)]
    assert max(map(len, sink.batches)) < 3000
    assert Link.DOWN not in sink.links


async def test_a_stream_of_messages_is_gathered() -> None:
    gather_s = 0.1
    began_s = time.monotonic()
    async with (
        peer(Obedient(then=lambda _, writer: forever(writer, report(CARD), 0.005))) as (port, _),
        session(port, replace(QUICK, gather_s=gather_s)) as sink,
    ):
        await sink.until(lambda: len(sink.all) >= 100)
        assert len(sink.batches) <= (time.monotonic() - began_s) / gather_s + 3  # one at once, and moments at both ends


async def test_a_wrong_clock_is_corrected_and_held_reads_keep_their_distance() -> None:
    y2000_us = 946_684_800_000_000
    wrong = y2000_us - now_us()

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(report(CARD, at_us=now_us() + wrong - 600_000_000))
        await forever(writer, report(CARD, port=2, at_us=now_us() + wrong))

    async with peer(Obedient(at_us=y2000_us, then=then)) as (port, _), session(port) as sink:
        await sink.until(lambda: set(sink.all["antenna"]) == {100, 101})
        held, fresh = (sink.all[sink.all["antenna"] == antenna]["time_us"][0] for antenna in (100, 101))
        assert abs(now_us() - fresh) < 5_000_000
        assert abs(fresh - held - 600_000_000) < 2_000_000
        assert abs((sink.statuses[-1].clock_offset_us or 0) - wrong) < 5_000_000


async def test_a_reader_that_knows_only_its_uptime_is_placed_by_that() -> None:
    booted_us = now_us() - 5_000_000_000

    def at(seconds: float) -> bytes:
        return messages.RO_ACCESS_REPORT(
            tag_report_datas=[
                params.TagReportData(
                    epc_parameter=params.EPC_96(epc=CARD),
                    antenna_id=params.AntennaID(antenna_id=1),
                    last_seen_timestamp_uptime=params.LastSeenTimestampUptime(
                        microseconds=now_us() - booted_us - round(seconds * 1e6)
                    ),
                )
            ]
        ).to_bytes(message_id=1)

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(at(0) + at(60))
        await reader.read()

    async with peer(Obedient(then=then)) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) == 2)
        fresh, held = sink.all["time_us"].tolist()
        assert abs(now_us() - fresh) < 5_000_000
        assert abs(fresh - held - 60_000_000) < 1_000_000


async def test_each_connection_asks_for_keepalives_and_events_anew() -> None:
    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    reader = Obedient(then=then)
    async with peer(reader) as (port, connections), session(port, inputs=(1,)):
        async with asyncio.timeout(10):
            while len(connections) < 4:
                await asyncio.sleep(0.01)
    asked = [m for m in reader.got if isinstance(m, messages.SET_READER_CONFIG)]
    keepalives = [m for m in asked if m.keepalive_spec is not None]
    assert len(keepalives) >= 3
    assert {m.keepalive_spec.periodic_trigger_value for m in keepalives} == {1000}
    assert sum(m.reader_event_notification_spec is not None for m in asked) >= 3
    assert sum(bool(m.gpi_port_current_states) for m in asked) >= 3


async def test_attempts_become_rarer_up_to_a_minute_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    async def at_once(delay_s: float) -> None:
        waits.append(delay_s)
        await asyncio.sleep(0 if len(waits) < 200 else 60)

    monkeypatch.setattr(links, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": at_once}))
    async with session(free_port(), Timing()):
        async with asyncio.timeout(10):
            while len(waits) < 200:
                await asyncio.sleep(0.01)
    longest = [min(0.5 * 2**n, 60) for n in range(200)]
    assert all(0.5 * most <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert len(set(waits[20:])) > 100


async def test_a_link_that_cuts_soon_after_it_came_up_is_tried_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = []

    async def at_once(delay_s: float) -> None:
        waits.append(delay_s)
        await asyncio.sleep(0)

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    monkeypatch.setattr(links, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": at_once}))
    timing = replace(QUICK, retry_first_s=0.02, retry_cap_s=60)
    async with peer(Obedient(then=cut)) as (port, _), session(port, timing) as sink:
        await sink.until(lambda: sink.links.count(Link.UP) >= 6, 30)
    assert waits[4] > 8 * waits[0]
    waits.clear()
    async with peer(Obedient(then=cut)) as (port, _), session(port, replace(timing, steady_s=0)) as sink:
        await sink.until(lambda: sink.links.count(Link.UP) >= 6, 30)
    assert max(waits) <= 0.02, "a steady link is tried soon again"


async def test_a_fault_of_ours_is_logged_once_while_it_stays_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = 0

    async def fault(self: Wire) -> None:
        nonlocal tried
        tried += 1
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(llrp.LlrpConnection, "run", fault)
    async with session(free_port()) as sink:
        await sink.until(lambda: "a fault" in sink.statuses[-1].reason if sink.statuses else False)
        async with asyncio.timeout(10):
            while tried < 5:
                await asyncio.sleep(0.01)
    assert [record.exc_info is not None for record in caplog.records if record.name == "tagtrail.drivers"] == [True]


def test_a_dead_link_is_known_within_a_minute() -> None:
    assert Timing().keepalive_s < 30


def test_the_inventory_never_ends_by_itself() -> None:
    spec = decode_message(codec.encode("ADD_ROSPEC", 1, ROSpec=rospec([1, 2], 1))).ro_spec
    (inventory,) = spec.spec_parameters
    assert spec.current_state == enums.ROSpecState.Disabled
    assert spec.ro_boundary_spec.ro_spec_stop_trigger.ro_spec_stop_trigger_type == 0
    assert inventory.ai_spec_stop_trigger.ai_spec_stop_trigger_type == 0
    assert spec.ro_report_spec.ro_report_trigger in (1, 2)
    assert spec.ro_report_spec.n > 0


async def test_reads_without_a_time_get_that_of_their_receipt() -> None:
    bare = messages.RO_ACCESS_REPORT(
        tag_report_datas=[params.TagReportData(epc_parameter=params.EPC_96(epc=CARD))]
    ).to_bytes(message_id=1)
    async with (
        peer(Obedient(then=lambda _, writer: forever(writer, bare))) as (port, _),
        session(port, clock=lambda: 1_234_567) as sink,
    ):
        await sink.until(lambda: len(sink.all) > 0)
        assert set(sink.all["time_us"]) == {1_234_567}


async def test_one_bad_reader_leaves_the_others_alone() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever(writer, b"\xff" * 1000, 0)

    async with (
        peer(talk) as (bad, _),
        LLRPEmulator(reads_per_sec=300) as good,
        session(bad) as broken,
        session(good.port) as sink,
    ):
        await sink.until(lambda: len(sink.all) > 100)
        assert Link.UP not in broken.links
        assert sink.links == [Link.CONNECTING, Link.UP]


async def test_over_ipv6() -> None:
    try:
        async with peer(Obedient(), "::1") as (port, _), session(port, host="[::1]") as sink:
            await sink.until(lambda: Link.UP in sink.links)
    except OSError:
        pytest.skip("no IPv6 on this machine's loopback")


async def test_leaving_frees_the_readers_place() -> None:
    reader = Obedient()
    async with peer(reader) as (port, _):
        async with session(port) as sink:
            await sink.until(lambda: Link.UP in sink.links)
        async with asyncio.timeout(5):
            while "CLOSE_CONNECTION" not in reader.asked:
                await asyncio.sleep(0.01)


async def test_a_name_that_is_not_found() -> None:
    async with session(5084, host="reader.invalid", timing=QUICK) as sink:
        assert "reader.invalid was not found" in await sink.until_down()


async def test_a_failing_sink_is_told_and_tried_again() -> None:
    class Broken(Recorder):
        async def reads(self, reader: str, batch: np.ndarray) -> None:
            if not self.links.count(Link.DOWN):
                raise RuntimeError("disk full")
            await super().reads(reader, batch)

    async with LLRPEmulator(reads_per_sec=400) as reader, session(reader.port, sink=Broken()) as sink:
        await sink.until(lambda: len(sink.all) > 0)
    (reason,) = [status.reason for status in sink.statuses if status.link is Link.DOWN]
    assert "disk full" in reason


def test_open_session_knows_its_drivers() -> None:
    assert isinstance(open_session(settings(1), Recorder(), now_us), LlrpSession)
    with pytest.raises(ValueError, match="unknown driver 'x'"):
        open_session(ReaderSettings("a", "x", "h", {1: 1}), Recorder(), now_us)
    with pytest.raises(ValueError, match="host:port"):
        open_session(ReaderSettings("a", "llrp", "h:0", {1: 1}), Recorder(), now_us)
