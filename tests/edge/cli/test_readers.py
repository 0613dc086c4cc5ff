"""The commands for the person on the ladder, on real wires: scan, show, test, capture."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import tomli_w
from gateways import STORE, antennas, member_card
from llrp_peers import OK, Obedient, forever, greeting, peer
from llrpkit.protocol import impinj, messages, params

from config.check import load
from drivers.llrp.wire import Address
from drivers.read import ANTENNA_UNKNOWN, READ, RSSI_UNKNOWN, epc_words
from drivers.serial import session
from edge.readers import scan
from edge.readers.antennas import Antennas
from edge.readers.capture import EpcPseudonyms
from edge.readers.listening import Heard, Listener, findings, service_state
from edge.readers.scan import SERIAL_FAMILIES, Finding, llrp_addresses, scan_llrp, scan_serial
from edge.store.compose import compose
from edge.store.errors import Trouble
from edge.store.live_socket import LiveServer, socket_path
from simulators.readers import llrp_replies
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation, SimulatedReader
from simulators.readers.pushed import ServingReader, json_reader
from simulators.readers.serial_families import serial_reader


def now_us() -> int:
    return time.time_ns() // 1000


def store_file(folder: Path, driver: str, address: str) -> Path:
    hung = antennas("door") if driver == "m100" else antennas("door", "shoes")
    profile = {"profile": "zebra"} if driver == "json" else {}
    readers = [{"id": "g1", "driver": driver, "address": address, "antennas": hung} | profile]
    store = {**STORE, "readers": readers, "database": {"path": str(folder / "s.db")}}
    file = folder / "store.toml"
    file.write_bytes(tomli_w.dumps(store).encode())
    return file


async def command(*arguments: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(forked.run, *arguments)
    return done.returncode, done.stdout, done.stderr


@asynccontextmanager
async def busy(reader: Any) -> AsyncIterator[str]:
    """A reader that sees two members at its first antenna and goods at its second, ten times a second."""

    async def see() -> None:
        while True:
            reader.push([Observation(now_us(), 1, member_card(n), -5000) for n in range(2)])
            reader.push([Observation(now_us(), 2, bytes(11) + b"\x01", -6500)])
            await asyncio.sleep(0.1)

    address = await reader.start()
    seeing = asyncio.create_task(see())
    try:
        yield address
    finally:
        seeing.cancel()
        with suppress(asyncio.CancelledError):
            await seeing
        await reader.stop()


# scan


def test_networks_and_hosts_become_addresses() -> None:
    assert llrp_addresses(["10.0.0.0/30", "gate", "10.0.0.2", "[::1]:5085"], 5084) == [
        Address("10.0.0.1"), Address("10.0.0.2"), Address("gate"), Address("::1", 5085)
    ]  # fmt: skip
    assert llrp_addresses(["gate", "door:1"], 6000) == [Address("gate", 6000), Address("door", 1)]
    for wrong in (["10.0.0.0/8"], ["10.0.0.0/99"], ["a b"], ["10.0.0.0/20", "10.1.0.0/20"]):
        with pytest.raises(Trouble):
            llrp_addresses(wrong, 5084)


async def test_a_scan_tells_free_busy_and_foreign_and_is_silent_on_the_rest() -> None:
    free, used = LlrpReader(now_us, name="a", tcp_port=0), LlrpReader(now_us, name="b", tcp_port=0)
    web = await asyncio.start_server(lambda r, w: w.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "127.0.0.1", 0)
    web_port = web.sockets[0].getsockname()[1]
    addresses = [Address.parse(await free.start()), Address.parse(await used.start())]
    _, client = await asyncio.open_connection(addresses[1].host, addresses[1].port)
    try:
        everything = [*addresses, Address("127.0.0.1", web_port), Address("127.0.0.1", 1)]
        found = {f.address: f async for f in scan_llrp(everything, 4, 100)}
        again = [f async for f in scan_llrp(addresses[:1], 1, 100)]
    finally:
        client.close()
        web.close()
        await free.stop()
        await used.stop()
    assert found.pop(str(addresses[0])).text == "LLRP reader, free"
    assert found.pop(str(addresses[1])).text == "LLRP reader, in use by another client"
    assert found.pop(f"127.0.0.1:{web_port}").driver == ""
    assert not found
    assert [f.text for f in again] == ["LLRP reader, free"]  # the first look left no trace


ANTENNA = messages.READER_EVENT_NOTIFICATION(
    reader_event_notification_data=params.ReaderEventNotificationData(
        timestamp=params.UTCTimestamp(microseconds=1),
        antenna_event=params.AntennaEvent(event_type=1, antenna_id=1),
    )
).to_bytes(message_id=0)
KEEPALIVE = messages.KEEPALIVE().to_bytes(message_id=0)
KEPT = messages.RO_ACCESS_REPORT(
    tag_report_datas=[params.TagReportData(epc_parameter=params.EPC_96(epc=bytes(12))) for _ in range(500)]
).to_bytes(message_id=1)
UNKNOWN = bytes.fromhex("07E70000000E000000000000FFFF")


@pytest.mark.parametrize(
    ("says", "text"),
    [
        (ANTENNA + greeting(), "LLRP reader, free"),
        (KEEPALIVE * 3 + greeting(), "LLRP reader, free"),
        (KEPT + ANTENNA + greeting(), "LLRP reader, free"),
        (UNKNOWN + greeting(), "LLRP reader, free"),
        (ANTENNA + greeting(2), "LLRP reader, in use by another client"),
        (ANTENNA + greeting(3), "LLRP reader, refuses connections"),
        (KEEPALIVE, "LLRP reader, but it does not say whether it is free"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the port is open, but no LLRP reader greets"),
    ],
)
async def test_the_greeting_need_not_come_first(says: bytes, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "GREETING_S", 1.0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()

    async with peer(talk) as (port, _):
        (found,) = [f async for f in scan_llrp([Address("127.0.0.1", port)], 1, 100)]
    assert found.text.startswith(text)


async def test_a_scan_opens_no_more_connections_than_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    open_now = most = 0

    async def greeting(address: Address) -> Finding:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.02)
        open_now -= 1
        return Finding(str(address), "llrp", "")

    monkeypatch.setattr(scan, "_greeting", greeting)
    found = [f async for f in scan_llrp(llrp_addresses(["10.0.0.0/27"], 5084), 3, 1000)]
    assert (len(found), most) == (30, 3)


@pytest.mark.parametrize("family", SERIAL_FAMILIES)
async def test_a_serial_reader_is_known_by_its_answers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.3)
    reader = serial_reader(family, now_us)
    address = await reader.start()
    try:
        finding = await scan_serial(address)
    finally:
        await reader.stop()
    assert (finding.address, finding.driver) == (address, family)
    assert "baud" in finding.text


@pytest.mark.parametrize("family", SERIAL_FAMILIES)
async def test_a_serial_reader_is_known_behind_a_serial_server(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.15)
    module = serial_reader(family, now_us).module

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        while chunk := await incoming.read(4096):
            outgoing.write(b"".join(module.receive(chunk)))
        outgoing.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        finding = await scan_serial(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert finding.driver == family, finding


async def test_a_line_without_a_reader_is_tried_at_all_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.02)
    monkeypatch.setattr(session, "PROBE_S", 0.02)
    near, far = os.openpty()
    try:
        finding = await scan_serial(os.ttyname(far))
    finally:
        os.close(near)
        os.close(far)
    assert (finding.driver, finding.text) == ("", "no reader of a known family answers")


@pytest.mark.parametrize("hangs_up", [False, True], ids=["silent", "hangs up on what it does not understand"])
async def test_all_families_ask_over_one_connection(hangs_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.02)
    connections, open_now, most = 0, 0, 0

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        nonlocal connections, open_now, most
        connections, open_now = connections + 1, open_now + 1
        most = max(most, open_now)
        while await incoming.read(4096):
            if hangs_up:
                break
        open_now -= 1
        outgoing.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        finding = await scan_serial(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    told = "no reader of a known family answers"
    assert (finding.driver, finding.text) == ("", f"{told}: it hangs up" if hangs_up else told)
    assert (connections, most) == (len(SERIAL_FAMILIES) if hangs_up else 1, 1)


async def test_the_scan_command_tells_what_it_looked_at(tmp_path: Path) -> None:
    code, out, err = await command("readers", "scan", str(tmp_path / "tty"), "127.0.0.1:1")
    assert code == 1
    assert "does not exist" in out
    assert "readers found: 0; searched: 1 × network, 1 × serial" in err
    assert f"asking on {tmp_path / 'tty'}: up to a minute" in err


# test, show, capture


@pytest.mark.parametrize("driver", ["r2000", "llrp", "json"])
async def test_a_reader_that_works_is_shown_and_passes(driver: str, tmp_path: Path) -> None:
    if driver == "json":
        reader: SimulatedReader = json_reader(now_us, "zebra", "ws://127.0.0.1:0")
    elif driver == "llrp":
        reader = LlrpReader(now_us, name="g1", tcp_port=0)
    else:
        reader = serial_reader(driver, now_us)
    async with busy(reader) as address:
        config = str(store_file(tmp_path, driver, address))
        code, out, err = await command("readers", "test", "g1", "--config", config, "--seconds", "1")
        assert code == 0, out + err
        assert "ok  connection" in out
        assert "of 2 tags, median -50 dBm" in out
        code, out, err = await command("readers", "show", "g1", "--config", config, "--seconds", "1")
    assert code == 0, out + err
    assert "shoes" in out
    assert "█" in out


async def test_a_reader_that_is_not_there_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(store_file(tmp_path, "m100", "/dev/no-such-reader"), files=False)
    settings = compose(config).readers[0]
    listener = Listener(settings)
    assert [verdict for verdict, _ in findings(settings, listener, False)] == ["no"]
    code, _, err = await command("readers", "test", "g9", "--config", str(tmp_path / "store.toml"))
    assert (code, "readers are: g1" in err) == (1, True)


# tune


@asynccontextmanager
async def crowded(reader: LlrpReader) -> AsyncIterator[str]:
    """A reader whose first antenna hears forty tags, most of them nearer to its second."""

    async def see() -> None:
        while True:
            seen = [(1, n, -6500) for n in range(40)] + [(2, n, -4500) for n in range(30)]
            reader.push([Observation(now_us(), port, n.to_bytes(12), cdbm) for port, n, cdbm in seen])
            await asyncio.sleep(0.2)

    address = await reader.start()
    seeing = asyncio.create_task(see())
    try:
        yield address
    finally:
        seeing.cancel()
        await reader.stop()


async def test_a_reader_is_tuned_after_a_yes(tmp_path: Path) -> None:
    async with crowded(LlrpReader(now_us, name="g1", tcp_port=0)) as address:
        file = store_file(tmp_path, "llrp", address)
        before = file.read_text()
        base = ("readers", "tune", "g1", "--config", str(file), "--minutes", "0.05")
        code, out, err = await command(*base)  # nobody answers
        assert code == 1, out + err
        assert "port 1 (door): power 24 dBm instead of the reader's highest, 30: 75% of its reads" in out
        assert "session 0: up to 40 tags at once before port 1" in out
        assert file.read_text() == before
        code, out, err = await command(*base, "--yes")
    assert code == 0, out + err
    assert (tmp_path / "store.toml~").read_text() == before
    assert list(tmp_path.glob("*.toml")) == [file], "each would be a store of the gateway"
    (told,) = load(file, files=False).readers
    assert told.session == 0
    assert told.antennas[0].power == 24
    assert told.antennas[1].power is None


async def test_too_few_reads_are_said(tmp_path: Path) -> None:
    async with busy(serial_reader("r2000", now_us)) as address:
        file = store_file(tmp_path, "r2000", address)
        code, out, _ = await command("readers", "tune", "g1", "--config", str(file), "--minutes", "0.05")
    assert code == 1
    assert "too few reads: an antenna needs 200" in out


async def test_a_capture_replays_and_hides_the_tags(tmp_path: Path) -> None:
    async with busy(serial_reader("chafon-cf", now_us)) as address:
        config = str(store_file(tmp_path, "chafon-cf", address))
        files = {name: tmp_path / name for name in ("hidden.csv", "clear.csv.gz", "small.csv")}
        base = ("capture", "g1", "--config", config, "--minutes", "0.015")
        done = [
            # Long enough for visits on a busy machine, too.
            await command(*base, "--minutes", "0.05", "--out", str(files["hidden.csv"])),
            await command(*base, "--out", str(files["clear.csv.gz"]), "--clear"),
            await command(*base, "--out", str(files["small.csv"]), "--max-mb", "0.001"),
        ]
        again = await command(*base, "--out", str(files["small.csv"]))
    assert [code for code, _, _ in done] == [0, 0, 0], done
    assert (again[0], "exists" in again[2]) == (1, True)
    assert files["hidden.csv"].stat().st_mode & 0o077 == 0
    assert 500 < files["small.csv"].stat().st_size < 1200
    hidden = list(csv.DictReader(files["hidden.csv"].open()))
    with gzip.open(files["clear.csv.gz"], "rt") as text:
        clear = list(csv.DictReader(text))
    members = {member_card(n).hex().upper() for n in range(2)}
    assert members <= {row["epc"] for row in clear}
    assert not members & {row["epc"] for row in hidden}
    assert len({row["epc"] for row in hidden}) == 3
    assert {row["antenna"] for row in hidden} == {"1", "2"}
    assert {row["rssi_dbm"] for row in hidden} == {"-50", "-65"}
    code, out, err = await command("replay", str(files["hidden.csv"]), "--config", config, "--visits", "-")
    assert code == 0
    assert f"{len(hidden)} reads" in err
    assert len(out.splitlines()) > 1


async def test_a_capture_has_the_phase_of_a_reader_that_is_asked_for_it(tmp_path: Path) -> None:
    capabilities = llrp_replies.capabilities(0, 4, False)
    capabilities.general_device_capabilities.device_manufacturer_name = 25882
    extended = impinj.IMPINJ_ENABLE_EXTENSIONS_RESPONSE(llrp_status=OK)
    turned, unknown = (
        params.TagReportData(
            epc_parameter=params.EPC_96(epc=member_card(n)),
            antenna_id=params.AntennaID(antenna_id=1),
            custom=[impinj.ImpinjRFPhaseAngle(phase_angle=1024)] if n else [],
        )
        for n in (1, 0)
    )
    report = messages.RO_ACCESS_REPORT(tag_report_datas=[turned, unknown]).to_bytes(message_id=1)
    answers = {"GET_READER_CAPABILITIES": capabilities, "IMPINJ_ENABLE_EXTENSIONS": extended}
    out = tmp_path / "c.csv"
    async with peer(Obedient(answers=answers, then=lambda _, writer: forever(writer, report))) as (port, _):
        file = store_file(tmp_path, "llrp", f"127.0.0.1:{port}")
        file.write_text(file.read_text().replace('driver = "llrp"', 'driver = "llrp"\nphase = true'))
        base = ("capture", "g1", "--config", str(file), "--minutes", "0.01", "--clear")
        code, _, err = await command(*base, "--out", str(out))
    assert code == 0, err
    rows = list(csv.DictReader(out.open()))
    assert {(row["epc"], row["phase_deg"]) for row in rows} == {
        (member_card(1).hex().upper(), "90.00"),
        (member_card(0).hex().upper(), ""),
    }
    code, _, err = await command("replay", str(out), "--config", str(file), "--visits", "-")
    assert (code, f"{len(rows)} reads" in err) == (0, True), err


def test_pseudonyms_keep_length_and_class_and_nothing_else(tmp_path: Path) -> None:
    shop = compose(load(store_file(tmp_path, "llrp", "gate"), files=False))
    names = EpcPseudonyms(shop)
    seen: set[bytes] = set()
    strangers = [n.to_bytes(12, "big") for n in range(2000)]  # some would become cards or badges by chance
    for epc in (*(member_card(n) for n in range(50)), b"\x2e" + bytes(15), *strangers, b"\x01" * 62):
        words = epc_words(epc)
        other = names.of(words, 8 * len(epc))
        assert len(other) == len(epc)
        assert other != epc
        assert names.of(words, 8 * len(epc)) == other
        assert shop.classify(epc_words(other)[None])[0] == shop.classify(words[None])[0]
        seen.add(other)
    assert len(seen) == 50 + 1 + 2000 + 1
    assert EpcPseudonyms(shop).of(epc_words(member_card(1)), 96) != names.of(epc_words(member_card(1)), 96)


async def test_while_the_service_holds_the_reader_it_is_asked(tmp_path: Path) -> None:
    file = store_file(tmp_path, "m100", "/dev/rfid/gate")
    config = load(file, files=False)
    entry = {"id": "g1", "driver": "m100", "link": "up", "reason": "reading", "reads": 7, "reads_per_s": 0.5}
    state = {"store": "s1", "pid": 123, "readers": [entry]}
    serving = asyncio.create_task(LiveServer(socket_path(config), lambda: state).run())
    try:
        async with asyncio.timeout(10):
            while await service_state(config) is None:
                await asyncio.sleep(0.02)
        code, out, _ = await command("readers", "test", "g1", "--config", str(file))
        assert (code, "process 123" in out, "m100): up: reading" in out) == (0, True, True)
        entry |= {"link": "down", "reason": "unplugged", "clock_offset_us": 1500}
        code, out, _ = await command("readers", "test", "g1", "--config", str(file))
        assert (code, "unplugged" in out, "+0.001 s" in out or "+0.002 s" in out) == (1, True, True)
        code, _, err = await command(
            "capture", "g1", "--config", str(file), "--out", str(tmp_path / "c.csv"), "--minutes", "1"
        )
        assert (code, "is using the reader" in err, os.path.exists(tmp_path / "c.csv")) == (1, True, False)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_show_tells_by_antenna_what_the_service_hears(tmp_path: Path) -> None:
    file = store_file(tmp_path, "m100", "/dev/rfid/gate")
    config = load(file, files=False)
    entry = {"id": "g1", "driver": "m100", "link": "up", "reason": "reading", "reads": 7, "reads_per_s": 0.5}
    state: dict[str, Any] = {
        "store": "s1",
        "pid": 123,
        "as_of_us": 0,
        "readers": [entry | {"detail": {"model": "M100"}}],
    }
    hears: dict[str, Any] = {"port": 1, "zone": "door", "reads": 1000, "histogram": [0] * 12}

    def snapshot() -> dict[str, Any]:
        state["as_of_us"] += 1_000_000
        return state

    def heard_by(reader: str) -> list[dict[str, Any]]:
        assert reader == "g1"
        hears["reads"] += 20
        hears["histogram"] = [hears["reads"] if n == 5 else 0 for n in range(12)]
        return [dict(hears)]

    serving = asyncio.create_task(LiveServer(socket_path(config), snapshot, heard_by).run())
    try:
        async with asyncio.timeout(10):
            while await service_state(config) is None:
                await asyncio.sleep(0.02)
        code, out, _ = await command("readers", "show", "g1", "--config", str(file), "--seconds", "2")
        assert code == 0
        assert "process 123" in out
        assert "model: M100" in out
        (row,) = [line for line in out.splitlines() if "door" in line]
        assert "20.0" in row
        assert "█" in row
        assert 20 <= int(row.split()[5]) < 1000  # since it looks, not since the service began
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


def test_antennas_count_every_read_and_its_strength() -> None:
    shop = compose(load(Path(__file__).parents[3] / "config/demo.toml", files=False))
    heard = Antennas(shop)
    reads = np.zeros(6, READ)
    reads["antenna"] = [0, 0, 0, 1, 1, ANTENNA_UNKNOWN]
    reads["rssi_cdbm"] = [-5750, -9900, 0, RSSI_UNKNOWN, -5999, -5000]
    reads["count"] = [1, 2, 1, 5, 1, 1]
    heard.add(reads)
    heard.add(reads[:1])
    first, second, *others = heard.of(shop.ports[0][0])
    assert (first["port"], first["reads"], first["histogram"]) == (1, 5, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1])
    assert (second["reads"], second["histogram"]) == (6, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    assert all(each["reads"] == 0 for each in others)


def test_a_histogram_shows_the_rarest_read() -> None:
    heard = Heard()
    assert (heard.histogram(), heard.median_dbm()) == ("", None)
    heard.levels_cdbm = [-5750] * 1000 + [-9000] + [-1000]
    assert heard.histogram() == "▁    █     ▁"
    assert heard.median_dbm() == -57.5


async def test_an_iot_interface_is_found_without_a_password() -> None:
    reader = ServingReader(now_us, "impinj", "http", 0)
    address = await reader.start()
    code, out, _ = await command("readers", "scan", address)
    assert (code, "json  Impinj IoT device interface" in out) == (0, True)
    reader.login = ("root", "impinj")
    code, out, _ = await command("readers", "scan", address)
    assert (code, "asks for username and password" in out) == (0, True)
    await reader.stop()
    code, out, _ = await command("readers", "scan", address)
    assert (code, "nothing answers HTTP there" in out) == (1, True)
