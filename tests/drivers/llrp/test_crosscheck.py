"""Every frame of the simulator and of llrpkit is told alike by our decoder, sllurp's and Wireshark's."""

from __future__ import annotations

import asyncio
import random
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from llrp_peers import now_us, peer, session
from llrpkit.emulator import EmulatedTag, LLRPEmulator
from llrpkit.protocol import BitStr, decode_message, messages, params
from llrpkit.protocol.impinj import ImpinjPeakRSSI, ImpinjRFPhaseAngle
from sllurp.llrp import LLRPMessage

from drivers.llrp.decoder import RECEIVED, ReportDecoder
from drivers.read import RSSI_UNKNOWN, epc_bytes
from drivers.session import PHASE_UNKNOWN, Link, Select
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

PORTS = {port: port for port in range(1, 1000)}
FIELDS = {
    "epc": "llrp.param.epc",
    "port": "llrp.antenna_id",
    "rssi": "llrp.param.peak_rssi",
    "times": "llrp.param.microseconds",
    "count": "llrp.param.tag_count",
    "fine": "llrp.param.rssi",
    "phase": "llrp.param.phase_angle",
}
wireshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed: apt install tshark")


def pcap(frames: list[bytes], to_reader: bool = False) -> Any:
    """A capture file with a TCP segment for each frame (LINKTYPE_RAW)."""
    ports = (40000, 5084) if to_reader else (5084, 40000)
    file, sequence = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 101)], 1
    for frame in frames:
        tcp = struct.pack("!HHIIBBHHH", *ports, sequence, 1, 5 << 4, 0x18, 0xFFFF, 0, 0) + frame
        sequence += len(frame)
        addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + addresses + tcp
        file.append(struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet)
    return b"".join(file)


def tshark(frames: list[bytes], to_reader: bool = False) -> Any:
    """What Wireshark sees in each frame: field → values, and its complaints under "expert"."""
    names = ["llrp.type", *FIELDS.values(), "_ws.expert.message"]
    command = ["tshark", "-n", "-r", "-", "-o", "tcp.desegment_tcp_streams:FALSE", "-d", "tcp.port==5084,llrp"]
    command += ["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=;"]
    for name in names:
        command += ["-e", name]
    done = subprocess.run(command, input=pcap(frames, to_reader), capture_output=True, timeout=60, check=True)
    seen = []
    for line in done.stdout.decode().splitlines():
        values = [part.split(";") if part else [] for part in line.split("|")]
        seen.append(dict(zip(["type", *FIELDS, "expert"], values, strict=True)))
    assert len(seen) == len(frames)
    return seen


def ours(frame: bytes) -> Any:
    """(epc, port, dBm, time, count, phase) of each report; None where there is none."""
    decoded = ReportDecoder(PORTS).decode(np.frombuffer(bytearray(frame), np.uint8), 0, len(frame))
    return [
        (
            epc_bytes(read["epc"], int(read["epc_bits"])),
            int(read["antenna"]),
            None if read["rssi_cdbm"] == RSSI_UNKNOWN else int(read["rssi_cdbm"]),
            None if source == RECEIVED else int(read["time_us"]),
            int(read["count"]),
            None if phase == PHASE_UNKNOWN else phase,
        )
        for read, source, phase in zip(decoded.reads, decoded.source.tolist(), decoded.phase.tolist(), strict=True)
    ]


def sllurps(frame: bytes) -> Any:
    tags = LLRPMessage(msgbytes=frame).msgdict["RO_ACCESS_REPORT"].get("TagReportData", [])
    return [
        (
            bytes.fromhex((tag.get("EPC-96") or tag["EPC"]).decode()),
            tag["AntennaID"],
            tag["ImpinjPeakRSSI"] if "ImpinjPeakRSSI" in tag else 100 * tag["PeakRSSI"],
            tag.get("LastSeenTimestampUTC", tag.get("LastSeenTimestampUptime")),
            tag["TagSeenCount"],
            tag.get("ImpinjRFPhaseAngle"),
        )
        for tag in tags
    ]


def wiresharks(seen: Any) -> Any:
    n = len(seen["epc"])
    times = seen["times"][-n:] if len(seen["times"]) == n else seen["times"][1::2]
    coarse = [100 * (int(rssi) - 256 * (int(rssi) > 127)) for rssi in seen["rssi"]]
    return [
        (bytes.fromhex(epc), int(port), int(rssi), int(time), int(count), None if phase is None else int(phase))
        for epc, port, rssi, time, count, phase in zip(
            seen["epc"], seen["port"], seen["fine"] or coarse, times, seen["count"], seen["phase"] or [None] * n,
            strict=True,
        )
    ]  # fmt: skip


def llrpkit_frames() -> Any:
    """Reports of every shape that llrpkit makes: one and many, short and long EPCs, UTC and uptime, Impinj's own."""
    chance = random.Random(4)
    frames = []
    for shape in range(64):
        impinj, uptime, both, long = (bool(shape >> bit & 1) for bit in range(4))
        clock = "uptime" if uptime else "utc"
        first = getattr(params, f"FirstSeenTimestamp{'Uptime' if uptime else 'UTC'}")
        last = getattr(params, f"LastSeenTimestamp{'Uptime' if uptime else 'UTC'}")
        reports = []
        for _ in range(1 + 31 * (shape % 2)):
            at_us = chance.randrange(1 << 52)
            epc = chance.randbytes(2 * chance.randint(1, 31)) if long else chance.randbytes(12)
            reports.append(
                params.TagReportData(
                    epc_parameter=params.EPCData(epc=BitStr.from_bytes(epc)) if long else params.EPC_96(epc=epc),
                    antenna_id=params.AntennaID(antenna_id=chance.randint(1, 999)),
                    peak_rssi=params.PeakRSSI(peak_rssi=chance.randint(-127, 0)),
                    **{f"last_seen_timestamp_{clock}": last(microseconds=at_us + 5)},
                    **({f"first_seen_timestamp_{clock}": first(microseconds=at_us)} if both else {}),
                    tag_seen_count=params.TagSeenCount(tag_count=chance.randint(1, 65535)),
                    custom=[
                        ImpinjRFPhaseAngle(phase_angle=chance.randrange(4096)),
                        ImpinjPeakRSSI(rssi=chance.randint(-9000, -2000)),
                    ]
                    if impinj
                    else [],
                )
            )
        frames.append(messages.RO_ACCESS_REPORT(tag_report_datas=reports).to_bytes(message_id=shape + 1))
    return frames


@asynccontextmanager
async def tapped(port: int) -> AsyncIterator[Any]:
    """A wire to `port`; yields its near port, and the frames of both ways as they pass."""
    asked: list[bytes] = []
    told: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, frames: list[bytes]) -> None:
            while True:
                header = await source.readexactly(10)
                frame = header + await source.readexactly(int.from_bytes(header[2:6], "big") - 10)
                frames.append(frame)
                sink.write(frame)

        there = asyncio.create_task(pass_on(reader, far_writer, asked))
        try:
            await pass_on(far_reader, writer, told)
        finally:
            there.cancel()
            far_writer.close()
            await asyncio.gather(there, return_exceptions=True)

    async with peer(carry) as (near, _):
        yield near, asked, told


@pytest.fixture(scope="module")
def talk() -> Any:
    """Frames to and from readers, of sessions with all that they may ask for: the simulator's and llrpkit's."""

    async def listen() -> Any:
        asked: list[Any] = []
        told: list[Any] = []
        reader = LlrpReader(now_us)
        port = int((await reader.start()).rpartition(":")[2])
        more: dict[str, Any] = {
            "session": 1,
            "select": (Select(0, 14, b"\x2d\x14"),),
            "inputs": (1, 2),
            "outputs": (1, 9),
        }
        async with tapped(port) as (near, to, frm), session(near, **more) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            for n in range(1, 33):
                reader.push(
                    [Observation(now_us(), 1 + i % 4, bytes([n, i] * (1 + i % 31)), -4000 - i, i) for i in range(1, n)]
                )
            reader.gpi(2, True)
            sink.session.switch(1, True)
            await sink.until(lambda: len(sink.all) == sum(range(32)) and bool(sink.contacts))
        asked += to
        told += frm
        await reader.stop()
        tags = [EmulatedTag(bytes(range(12)), (1, 2)), EmulatedTag(bytes(range(62)), (3,))]
        async with (
            LLRPEmulator(tags=tags, reads_per_sec=400) as emulator,
            tapped(emulator.port) as (near, to, frm),
            session(near) as sink,
        ):
            await sink.until(lambda: len(sink.all) > 100)
        return asked + to, told + frm

    return asyncio.run(listen())


def kind_of(frame: bytes) -> Any:
    return int.from_bytes(frame[:2], "big") & 0x3FF


def test_reports_are_told_alike_by_sllurp(talk: Any) -> None:
    reports = [frame for frame in talk[1] if kind_of(frame) == 61] + llrpkit_frames()
    assert sum(len(ours(frame)) for frame in reports) > 1000
    for frame in reports:
        assert ours(frame) == sllurps(frame), frame.hex()


@wireshark
def test_reports_are_told_alike_by_wireshark(talk: Any) -> None:
    reports = [frame for frame in talk[1] if kind_of(frame) == 61] + llrpkit_frames()
    for frame, seen in zip(reports, tshark(reports), strict=True):
        assert ours(frame) == wiresharks(seen), frame.hex()


@wireshark
@pytest.mark.parametrize("way", [0, 1], ids=["requests", "answers"])
def test_wireshark_finds_nothing_wrong_with_control_messages(talk: Any, way: int) -> None:
    frames = [frame for frame in talk[way] if kind_of(frame) != 61]
    assert len({kind_of(frame) for frame in frames}) > 8
    for frame, seen in zip(frames, tshark(frames, to_reader=way == 0), strict=True):
        assert int(seen["type"][0]) == kind_of(frame)
        # Its dissector of Identification shows the right id and forgets the two bytes of its length.
        forgotten = kind_of(frame) == 12 and [text for text in seen["expert"] if "13 bytes decoded, but 15" in text]
        assert seen["expert"] == (forgotten or []), frame.hex()


def test_llrpkit_reads_every_request_and_writes_the_same_bytes(talk: Any) -> None:
    for frame in talk[0]:
        message = decode_message(frame)
        assert message.to_bytes(message_id=int.from_bytes(frame[6:10], "big")) == frame


def test_every_request_is_of_version_1_and_no_error_message_is_sent(talk: Any) -> None:
    assert {frame[0] >> 2 & 7 for frame in talk[0]} == {1}
    version, error = 46, 100
    assert not {version, error} & {kind_of(frame) for frame in talk[0]}
