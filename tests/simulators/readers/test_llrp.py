"""The simulated LLRP reader against two foreign implementations: llrpkit's client and sllurp's decoder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from llrpkit.client import LLRPClient
from llrpkit.exceptions import LLRPError
from llrpkit.inventory import build_rospec
from llrpkit.protocol import messages, params
from llrpkit.reader import Reader
from sllurp.llrp import LLRPMessage

from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import RSSI_UNKNOWN, Observation

EPC = bytes.fromhex("2d14257bf4499602d2000000")
NOW_US = 1_700_000_000_000_000


@pytest.fixture
async def reader() -> AsyncIterator[Any]:
    simulated = LlrpReader(lambda: NOW_US, name="gate")
    address = await simulated.start()
    yield simulated, int(address.rpartition(":")[2])
    await simulated.stop()


Running = tuple[LlrpReader, int]
"""A reader and its port."""


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def rospec(n: int = 1, ro_spec_id: int = 7, antennas: Any = (), **more: Any) -> Any:
    return build_rospec(ro_spec_id=ro_spec_id, antennas=antennas, report_every_n=n, enable_impinj_reports=False, **more)


async def ask(client: Any, request: Any) -> Any:
    reply = await client.transact(request)
    return int(reply.llrp_status.status_code)


async def inventory(client: Any, spec: Any = None) -> None:
    spec = spec or rospec()
    assert await ask(client, messages.ADD_ROSPEC(ro_spec=spec)) == 0
    assert await ask(client, messages.ENABLE_ROSPEC(ro_spec_id=spec.ro_spec_id)) == 0
    assert await ask(client, messages.START_ROSPEC(ro_spec_id=spec.ro_spec_id)) == 0


async def rows(client: Any, n: int) -> Any:
    got: list[Any] = []
    async with asyncio.timeout(10):
        while len(got) < n:
            got += (await client.reports.get()).tag_report_datas
    return got


def heard(n: int, port: int = 1) -> Any:
    return [Observation(NOW_US + i, port, EPC, -6000 - i) for i in range(n)]


async def test_llrpkit_takes_an_inventory(reader: Running) -> None:
    simulated, port = reader
    async with Reader("127.0.0.1", port) as client:
        assert client.max_antennas == 4
        assert not client.is_impinj

        async def feed() -> None:
            await until(lambda: simulated.inventorying)
            simulated.push(heard(5, port=3))

        feeding = asyncio.create_task(feed())
        got = [report async for report in client.inventory(max_tags=5, duration=10)]
        await feeding
    assert [(r.epc, r.antenna, r.rssi_dbm, r.first_seen_us) for r in got] == [
        (EPC, 3, -60, NOW_US + i) for i in range(5)
    ]
    assert not simulated.inventorying


async def test_reports_carry_time_port_rssi_and_count(reader: Running) -> None:
    simulated, port = reader
    pushed = [
        Observation(NOW_US + 1, 1, EPC, -5512, 3),
        Observation(NOW_US + 2, 4, b"\x30\x08", -6049, 1),
        Observation(NOW_US + 3, 2, bytes(62), RSSI_UNKNOWN, 70_000),
    ]
    async with LLRPClient("127.0.0.1", port) as client:
        await inventory(client)
        simulated.push(pushed)
        got = await rows(client, 3)
    assert [r.antenna_id.antenna_id for r in got] == [1, 4, 2]
    assert [r.peak_rssi.peak_rssi for r in got] == [-55, -60, -128]
    assert [r.first_seen_timestamp_utc.microseconds for r in got] == [o.time_us for o in pushed]
    assert [r.last_seen_timestamp_utc.microseconds for r in got] == [o.time_us for o in pushed]
    assert [r.tag_seen_count.tag_count for r in got] == [3, 1, 65535]
    assert got[0].epc_parameter.epc == EPC
    assert got[2].epc_parameter.epc.bit_len == 496


async def test_sllurp_decodes_every_message(reader: Running) -> None:
    simulated, port = reader
    stream, writer = await asyncio.open_connection("127.0.0.1", port)

    async def message() -> Any:
        async with asyncio.timeout(10):
            header = await stream.readexactly(10)
            body = await stream.readexactly(int.from_bytes(header[2:6], "big") - 10)
        return LLRPMessage(msgbytes=header + body).msgdict

    connected = await message()
    attempt = connected["READER_EVENT_NOTIFICATION"]["ReaderEventNotificationData"]["ConnectionAttemptEvent"]
    assert attempt["Status"] == "Success"
    for request, reply in (
        (messages.GET_READER_CAPABILITIES(), "GET_READER_CAPABILITIES_RESPONSE"),
        (messages.GET_READER_CONFIG(), "GET_READER_CONFIG_RESPONSE"),
        (messages.SET_READER_CONFIG(), "SET_READER_CONFIG_RESPONSE"),
        (messages.ADD_ROSPEC(ro_spec=rospec(n=2)), "ADD_ROSPEC_RESPONSE"),
        (messages.ENABLE_ROSPEC(ro_spec_id=7), "ENABLE_ROSPEC_RESPONSE"),
        (messages.START_ROSPEC(ro_spec_id=7), "START_ROSPEC_RESPONSE"),
    ):
        writer.write(request.to_bytes(message_id=5))
        answer = await message()
        assert answer[reply]["LLRPStatus"]["StatusCode"] == "Success"
    simulated.push(heard(2, port=2))
    tags = (await message())["RO_ACCESS_REPORT"]["TagReportData"]
    assert [(t["EPC-96"], t["AntennaID"], t["PeakRSSI"], t["FirstSeenTimestampUTC"]) for t in tags] == [
        (EPC.hex().encode(), 2, -60, NOW_US),
        (EPC.hex().encode(), 2, -60, NOW_US + 1),
    ]
    writer.close()
    await writer.wait_closed()


async def test_second_client_is_refused_and_the_first_is_told(reader: Running) -> None:
    simulated, port = reader
    async with LLRPClient("127.0.0.1", port) as first:
        with pytest.raises(LLRPError, match="refused"):
            await LLRPClient("127.0.0.1", port).connect()
        event = await asyncio.wait_for(first.events.get(), 5)
        attempt = event.reader_event_notification_data.connection_attempt_event
        assert int(attempt.status) == 4
        await inventory(first)
        simulated.push(heard(1))
        assert len(await rows(first, 1)) == 1
    await until(lambda: not simulated.connected)
    async with LLRPClient("127.0.0.1", port):
        pass


async def test_only_ports_of_the_rospec_are_heard(reader: Running) -> None:
    simulated, port = reader
    async with LLRPClient("127.0.0.1", port) as client:
        await inventory(client, rospec(antennas=(2, 3)))
        simulated.push([Observation(NOW_US, p, EPC, -6000) for p in (1, 2, 3, 4)])
        assert [r.antenna_id.antenna_id for r in await rows(client, 2)] == [2, 3]
        assert simulated.lost == 2


async def test_reports_wait_for_n_tags_or_a_request_or_the_end(reader: Running) -> None:
    simulated, port = reader
    async with LLRPClient("127.0.0.1", port) as client:
        await inventory(client, rospec(n=4))
        simulated.push(heard(6))
        await rows(client, 4)
        assert simulated.sent == 4
        client.send(messages.GET_REPORT())
        await rows(client, 2)
        simulated.push(heard(1))
        assert await ask(client, messages.STOP_ROSPEC(ro_spec_id=7)) == 0
        assert len(await rows(client, 1)) == 1


async def test_a_timed_ai_spec_reports_at_its_end(reader: Running) -> None:
    simulated, port = reader
    async with LLRPClient("127.0.0.1", port) as client:
        spec = rospec(n=1000, duration_ms=50)
        spec.ro_report_spec.ro_report_trigger = 1
        await inventory(client, spec)
        simulated.push(heard(3))
        assert len(await rows(client, 3)) == 3


async def test_rospec_errors_have_a_status(reader: Running) -> None:
    _, port = reader
    async with LLRPClient("127.0.0.1", port) as client:
        assert await ask(client, messages.START_ROSPEC(ro_spec_id=7)) == 101
        assert await ask(client, messages.DELETE_ROSPEC(ro_spec_id=7)) == 101
        assert await ask(client, messages.ADD_ROSPEC(ro_spec=rospec(antennas=(5,)))) == 101
        assert await ask(client, messages.ADD_ROSPEC(ro_spec=rospec())) == 0
        assert await ask(client, messages.ADD_ROSPEC(ro_spec=rospec())) == 101
        assert await ask(client, messages.ADD_ROSPEC(ro_spec=rospec(ro_spec_id=8))) == 105
        assert await ask(client, messages.START_ROSPEC(ro_spec_id=7)) == 101, "a disabled ROSpec can't start"
        listed = await client.transact(messages.GET_ROSPECS())
        assert [(s.ro_spec_id, int(s.current_state)) for s in listed.ro_specs] == [(7, 0)]
        assert await ask(client, messages.DELETE_ROSPEC(ro_spec_id=0)) == 0
        unsupported = await client.transact(messages.GET_ACCESSSPECS())
        assert isinstance(unsupported, messages.ERROR_MESSAGE)


async def test_keepalives_come_and_are_counted(reader: Running) -> None:
    simulated, port = reader
    async with LLRPClient("127.0.0.1", port) as client:
        spec = params.KeepaliveSpec(keepalive_trigger_type=1, periodic_trigger_value=20)
        assert await ask(client, messages.SET_READER_CONFIG(keepalive_spec=spec)) == 0
        await until(lambda: simulated.keepalive_acks >= 3)


async def test_rospec_outlives_the_connection_and_reports_are_held(reader: Running) -> None:
    simulated, port = reader
    simulated.held_max = 50
    async with LLRPClient("127.0.0.1", port) as client:
        hold = params.EventsAndReports(hold_events_and_reports_upon_reconnect=True)
        assert await ask(client, messages.SET_READER_CONFIG(events_and_reports=hold)) == 0
        await inventory(client)
    await until(lambda: not simulated.connected)
    simulated.push(heard(60))
    async with LLRPClient("127.0.0.1", port) as client:
        listed = await client.transact(messages.GET_ROSPECS())
        assert [int(s.current_state) for s in listed.ro_specs] == [2]
        assert simulated.sent == 0
        client.send(messages.ENABLE_EVENTS_AND_REPORTS())
        got = await rows(client, 50)
        event = await asyncio.wait_for(client.events.get(), 5)
        assert event.reader_event_notification_data.report_buffer_overflow_error_event is not None
    assert [r.first_seen_timestamp_utc.microseconds - NOW_US for r in got] == list(range(10, 60))
    assert simulated.lost == 10


async def test_a_stopped_reader_forgets_and_comes_back_at_its_address(reader: Running) -> None:
    simulated, port = reader
    async with LLRPClient("127.0.0.1", port) as client:
        await inventory(client)
        await simulated.stop()
        await until(lambda: not client.connected)
    assert await simulated.start() == f"127.0.0.1:{port}"
    async with LLRPClient("127.0.0.1", port) as client:
        assert (await client.transact(messages.GET_ROSPECS())).ro_specs == []


async def test_bytes_that_are_not_llrp_end_the_connection_only(reader: Running) -> None:
    simulated, port = reader
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(5):
        await stream.read()
    writer.close()
    await until(lambda: not simulated.connected)
    async with LLRPClient("127.0.0.1", port):
        pass


async def test_twenty_thousand_reports_arrive_in_order(reader: Running) -> None:
    simulated, port = reader
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in (
        messages.ADD_ROSPEC(ro_spec=rospec(n=32)),
        messages.ENABLE_ROSPEC(ro_spec_id=7),
        messages.START_ROSPEC(ro_spec_id=7),
    ):
        writer.write(request.to_bytes(message_id=1))
    await until(lambda: simulated.inventorying)
    times: list[int] = []

    async def collect() -> None:
        while len(times) < 20_000:
            header = await stream.readexactly(10)
            body = await stream.readexactly(int.from_bytes(header[2:6], "big") - 10)
            if header[1] == 61:
                size, first = int.from_bytes(body[2:4], "big"), body.index(b"\x82\x00\x06") + 1
                times.extend(int.from_bytes(body[at : at + 8], "big") for at in range(first, len(body), size))

    collecting = asyncio.create_task(collect())
    for i in range(0, 20_000, 500):
        simulated.push([Observation(NOW_US + j, 1 + j % 4, EPC, -6000) for j in range(i, i + 500)])
        await asyncio.sleep(0)
    await asyncio.wait_for(collecting, 30)
    assert times == [NOW_US + j for j in range(20_000)]
    writer.close()
    await writer.wait_closed()
