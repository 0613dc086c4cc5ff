"""The Numba decoder against a plain decoder written from the specification, and against llrpkit's."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llrpkit.protocol import BitStr, decode_message, messages, params
from llrpkit.protocol.impinj import ImpinjPeakRSSI, ImpinjRFPhaseAngle
from thorough import examples

from drivers.llrp.decoder import COUNTERS, RECEIVED, UPTIME, UTC, ReportDecoder
from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, epc_bytes, epc_words
from drivers.session import PHASE_UNKNOWN

PORTS = {1: 10, 2: 11, 3: 12, 7: 500}
TV_FIELDS = dict(enumerate([2, 8, 8, 8, 8, 1, 2, 2, 4, 2, 2, 2, 12, 2, 2, 4, 2, 4, 2, 2], 1))


def tlv(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("!HH", kind, 4 + len(body) if length is None else length) + body


def tv(kind: int, body: bytes) -> bytes:
    return bytes([0x80 | kind]) + body


def message(*parts: bytes, kind: int = 61, version: int = 1) -> bytes:
    body = b"".join(parts)
    return struct.pack("!HII", version << 10 | kind, 10 + len(body), 7) + body


def report(*parts: bytes) -> bytes:
    return tlv(240, b"".join(parts))


def epc_data(bits: int, value: bytes) -> bytes:
    return tlv(241, struct.pack("!H", bits) + value)


EPC = tv(13, bytes.fromhex("2D14257BF4499602D2000000"))


class Naive:
    """Straight from LLRP 1.1: slow, with slices, one parameter at a time."""

    def __init__(self, ports: Any) -> None:
        self.ports, self.counters = ports, dict.fromkeys(COUNTERS, 0)
        self.last: dict[Any, Any] = {}

    def decode(self, data: bytes) -> Any:
        rows: list[Any] = []
        at = 0
        while len(data) - at >= 10:
            first, length = struct.unpack_from("!HI", data, at)
            if first & 0x3FF != 61 or not 1 <= first >> 10 & 7 <= 3 or not 10 <= length <= min(4 << 20, len(data) - at):
                break
            self.counters["messages"] += 1
            self.message(data[at + 10 : at + length], rows)
            at += length
        self.counters["reads"] += len(rows)
        return rows, at

    def message(self, body: bytes, rows: Any) -> None:
        while body:
            if len(body) < 4 or not 4 <= (size := int.from_bytes(body[2:4], "big")) <= len(body):
                self.counters["broken_message"] += 1
                return
            if int.from_bytes(body[:2], "big") & 0x83FF == 240:
                try:
                    rows.append(self.report(body[4:size]))
                except ValueError as error:
                    self.counters[str(error)] += 1
            body = body[size:]

    def report(self, body: bytes) -> Any:
        epc, bits, precise, phase, new = b"", 0, None, PHASE_UNKNOWN, set()
        while body:
            if body[0] & 0x80:
                kind = body[0] & 0x7F
                if kind not in TV_FIELDS:
                    raise ValueError("unknown_tv")
                size = 1 + TV_FIELDS[kind]
                if size > len(body):
                    raise ValueError("broken_length")
                field = body[1:size]
                if kind == 13:
                    epc, bits = field, 96
                elif 2 <= kind <= 5 and int.from_bytes(field, "big") >= 1 << 62:
                    raise ValueError("bad_time")
                self.last[kind] = int.from_bytes(field, "big", signed=kind == 6)
                new.add(kind)
            else:
                if len(body) < 4 or not 4 <= (size := int.from_bytes(body[2:4], "big")) <= len(body):
                    raise ValueError("broken_length")
                kind, field = int.from_bytes(body[:2], "big") & 0x3FF, body[4:size]
                if kind == 241:
                    if len(field) < 2:
                        raise ValueError("broken_length")
                    bits, epc = int.from_bytes(field[:2], "big"), field[2:]
                    if bits > 496:
                        raise ValueError("epc_too_long")
                    if len(epc) * 8 < bits:
                        raise ValueError("broken_length")
                elif kind == 1023 and field[:8] == struct.pack("!II", 25882, 57) and len(field) >= 10:
                    precise = int.from_bytes(field[8:10], "big", signed=True)
                elif kind == 1023 and field[:8] == struct.pack("!II", 25882, 56) and len(field) >= 10:
                    phase = int.from_bytes(field[8:10], "big") % 4096
            body = body[size:]
        if bits == 0:
            raise ValueError("no_epc")
        whole = int.from_bytes(epc, "big") >> (len(epc) * 8 - bits) << (512 - bits)
        antenna = self.ports.get(self.last.get(1, 0), ANTENNA_UNKNOWN)
        self.counters["unknown_antenna"] += antenna == ANTENNA_UNKNOWN
        rssi = precise if precise not in (None, RSSI_UNKNOWN) else self.last.get(6, RSSI_UNKNOWN / 100) * 100
        time, source = 0, RECEIVED
        for first, last, kind in ((2, 4, UTC), (3, 5, UPTIME)):
            if source == RECEIVED and (first in self.last or last in self.last):
                sent_last, sent_first = new & {4, 5}, new & {2, 3}
                if last in self.last and (sent_last or not sent_first):
                    time, source = self.last[last], kind
                else:
                    time, source = max(self.last.get(first, -1), self.last.get(last, -1)), kind
        words = [whole >> (448 - 64 * i) & (1 << 64) - 1 for i in range(8)]
        return time, source, words, antenna, int(rssi), max(self.last.get(8, 1), 1), bits, phase


def run(data: bytes, decoder: ReportDecoder | None = None) -> Any:
    decoder = decoder or ReportDecoder(PORTS)
    decoded = decoder.decode(np.frombuffer(bytearray(data), np.uint8) if data else np.empty(0, np.uint8), 0, len(data))
    rows = [
        (
            int(r["time_us"]),
            int(s),
            r["epc"].tolist(),
            int(r["antenna"]),
            int(r["rssi_cdbm"]),
            int(r["count"]),
            int(r["epc_bits"]),
            int(p),
        )
        for r, s, p in zip(decoded.reads, decoded.source, decoded.phase, strict=True)
    ]
    return rows, decoded.used, decoder.counters


def same_as_naive(data: bytes) -> None:
    naive = Naive(PORTS)
    rows, used = naive.decode(data)
    assert run(data) == (rows, used, naive.counters)


binary = st.binary
known_tv = st.sampled_from(sorted(TV_FIELDS)).flatmap(
    lambda kind: binary(min_size=TV_FIELDS[kind], max_size=TV_FIELDS[kind]).map(lambda body: tv(kind, body))
)
sane_tv = st.one_of(
    st.sampled_from([1, 2, 3, 7, 9]).map(lambda port: tv(1, port.to_bytes(2, "big"))),
    st.tuples(st.integers(2, 5), st.integers(0, 1 << 52)).map(lambda t: tv(t[0], t[1].to_bytes(8, "big"))),
    st.integers(0, 255).map(lambda rssi: tv(6, bytes([rssi]))),
    st.integers(0, 65535).map(lambda count: tv(8, count.to_bytes(2, "big"))),
)
epcs = st.one_of(
    binary(min_size=12, max_size=12).map(lambda epc: tv(13, epc)),
    st.tuples(st.integers(0, 500), st.integers(0, 2)).flatmap(
        lambda t: binary(min_size=(t[0] + 7) // 8 + t[1], max_size=(t[0] + 7) // 8 + t[1]).map(
            lambda epc: epc_data(t[0], epc)
        )
    ),
)
customs = st.one_of(
    st.integers(-32768, 32767).map(lambda rssi: tlv(1023, struct.pack("!IIh", 25882, 57, rssi))),
    st.integers(0, 65535).map(lambda phase: tlv(1023, struct.pack("!IIH", 25882, 56, phase))),
    st.tuples(st.integers(0, 1 << 31), binary(max_size=9)).map(
        lambda t: tlv(1023, struct.pack("!II", t[0], 57) + t[1])
    ),
    st.tuples(st.integers(128, 1022).filter(lambda k: k not in (240, 241)), binary(max_size=9)).map(
        lambda t: tlv(t[0], t[1])
    ),
)
faults = st.one_of(
    st.sampled_from([0, 21, 64, 127]).map(lambda kind: tv(kind, b"\1\2\3")),
    st.tuples(st.integers(0, 1023), st.integers(0, 12), binary(max_size=8)).map(lambda t: tlv(t[0], t[2], t[1])),
    binary(max_size=5),
)
sound_reports = st.tuples(epcs, st.lists(st.one_of(sane_tv, customs), max_size=9)).map(lambda t: report(t[0], *t[1]))
any_reports = st.lists(st.one_of(epcs, known_tv, sane_tv, customs, faults), max_size=9).map(
    lambda parts: report(*parts)
)
streams = st.lists(
    st.lists(st.one_of(sound_reports, any_reports, customs, faults), max_size=6).map(lambda parts: message(*parts)),
    max_size=4,
).map(b"".join)


@settings(max_examples=examples(300), deadline=None)
@given(streams)
def test_decodes_what_the_specification_says(data: Any) -> None:
    same_as_naive(data)


@settings(max_examples=examples(300), deadline=None)
@given(streams.filter(len), st.data())
def test_damaged_bytes_cost_no_more_than_the_specification_says(data: Any, draw: Any) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    same_as_naive(bytes(damaged[: draw.draw(st.integers(0, len(data)))]))


@settings(max_examples=examples(200), deadline=None)
@given(binary(max_size=200))
def test_random_bytes_are_nothing(data: Any) -> None:
    same_as_naive(data)
    same_as_naive(message(data))
    same_as_naive(message(report(data)))


@settings(max_examples=examples(100), deadline=None)
@given(streams, binary(min_size=64, max_size=64))
def test_what_stands_behind_the_span_is_not_read(data: Any, poison: Any) -> None:
    decoder, alone = ReportDecoder(PORTS), run(data)
    buffer = np.frombuffer(bytearray(poison[:5] + data + poison), np.uint8)
    decoded = decoder.decode(buffer, 5, 5 + len(data))
    assert (len(decoded.reads), decoded.used - 5, decoder.counters) == (len(alone[0]), *alone[1:])
    assert decoded.reads["epc"].tolist() == [row[2] for row in alone[0]]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.lists(sound_reports, max_size=4).map(lambda parts: message(*parts)), max_size=5), st.data())
def test_state_carries_over_however_the_stream_is_cut(parts: Any, draw: Any) -> None:
    cut = draw.draw(st.integers(0, len(parts)))
    decoder = ReportDecoder(PORTS)
    first, _, _ = run(b"".join(parts[:cut]), decoder)
    second, _, counters = run(b"".join(parts[cut:]), decoder)
    assert (first + second, counters) == run(b"".join(parts))[::2]


tags = st.fixed_dictionaries(
    {
        "epc": binary(min_size=2, max_size=62).filter(lambda b: len(b) % 2 == 0),
        "port": st.sampled_from(sorted(PORTS)),
        "rssi": st.integers(-128, 127),
        "first": st.integers(0, 1 << 51),
        "last": st.integers(0, 1 << 51),
        "count": st.integers(1, 65535),
        "precise": st.none() | st.integers(-9000, -2000),
    }
)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(tags, min_size=1, max_size=8))
def test_agrees_with_llrpkit(population: Any) -> None:
    sent = messages.RO_ACCESS_REPORT(
        tag_report_datas=[
            params.TagReportData(
                epc_parameter=params.EPC_96(epc=tag["epc"])
                if len(tag["epc"]) == 12
                else params.EPCData(epc=BitStr.from_bytes(tag["epc"])),
                antenna_id=params.AntennaID(antenna_id=tag["port"]),
                peak_rssi=params.PeakRSSI(peak_rssi=tag["rssi"]),
                first_seen_timestamp_utc=params.FirstSeenTimestampUTC(microseconds=tag["first"]),
                last_seen_timestamp_utc=params.LastSeenTimestampUTC(microseconds=tag["last"]),
                tag_seen_count=params.TagSeenCount(tag_count=tag["count"]),
                custom=[ImpinjRFPhaseAngle(phase_angle=4000)]
                + ([] if tag["precise"] is None else [ImpinjPeakRSSI(rssi=tag["precise"])]),
            )
            for tag in population
        ]
    ).to_bytes(message_id=3)
    theirs = decode_message(sent).tag_report_datas
    ours, _, _ = run(sent)
    assert len(ours) == len(theirs)
    for (time, source, words, antenna, rssi, count, bits, phase), their in zip(ours, theirs, strict=True):
        epc = their.epc_parameter.epc
        raw = epc if isinstance(epc, bytes) else epc.data
        precise = [c.rssi for c in their.custom if isinstance(c, ImpinjPeakRSSI)]
        assert epc_bytes(np.array(words, np.uint64), bits) == raw
        assert (time, source) == (their.last_seen_timestamp_utc.microseconds, UTC)
        assert antenna == PORTS[their.antenna_id.antenna_id]
        assert rssi == (precise[0] if precise else their.peak_rssi.peak_rssi * 100)
        assert count == their.tag_seen_count.tag_count
        assert phase == 4000


def one(*parts: bytes) -> Any:
    rows, _, counters = run(message(report(*parts)))
    assert counters["reads"] == 1
    return rows[0]


def test_the_longest_epc_of_496_bits_is_whole() -> None:
    epc = bytes(range(100, 162))
    assert one(epc_data(496, epc))[2] == epc_words(epc).tolist()


def test_bits_behind_an_odd_length_are_zeroed() -> None:
    assert one(epc_data(5, b"\xff"))[2][0] == 0b11111 << 59


def test_count_of_5374_and_of_zero() -> None:
    assert one(EPC, tv(8, (5374).to_bytes(2, "big")))[5] == 5374
    assert one(EPC, tv(8, bytes(2)))[5] == 1


def test_nothing_but_an_epc() -> None:
    assert one(EPC) == (0, RECEIVED, epc_words(EPC[1:]).tolist(), ANTENNA_UNKNOWN, RSSI_UNKNOWN, 1, 96, PHASE_UNKNOWN)


def test_absent_parameters_repeat_the_last_of_the_stream() -> None:
    full = report(EPC, tv(1, b"\0\2"), tv(6, b"\xd0"), tv(8, b"\0\5"), tv(4, (77).to_bytes(8, "big")))
    rows, _, _ = run(message(full) + message(report(EPC)))
    assert rows[1] == rows[0]
    assert rows[0][3:6] == (11, -4800, 5)
    assert rows[0][:2] == (77, UTC)


def test_a_later_first_seen_outdates_the_last_seen_that_was_left_out() -> None:
    stream = message(report(EPC, tv(4, (50).to_bytes(8, "big"))), report(EPC, tv(2, (60).to_bytes(8, "big"))))
    assert [row[0] for row in run(stream)[0]] == [50, 60]


def test_uptime_is_told_from_utc() -> None:
    assert one(EPC, tv(5, (9).to_bytes(8, "big")))[:2] == (9, UPTIME)


@pytest.mark.parametrize("kind", TV_FIELDS)
def test_every_tv_of_the_standard_is_passed_by_its_size(kind: int) -> None:
    field = bytes(TV_FIELDS[kind] - 1) + b"\1"
    assert one(tv(kind, field), EPC)[2] == epc_words(EPC[1:]).tolist()
    assert one(EPC, tv(kind, field), tv(1, b"\0\2"))[3] == 11


def test_unknown_tlvs_and_customs_are_skipped() -> None:
    strange = tlv(999, bytes(7)), tlv(1023, struct.pack("!II", 161, 57) + b"\1\1\1\1"), tlv(1023, b"\0")
    doppler = tlv(1023, struct.pack("!IIh", 25882, 67, -5))
    assert one(*strange, EPC, *strange, doppler, tv(1, b"\0\1"), *strange) == (
        0, RECEIVED, epc_words(EPC[1:]).tolist(), 10, RSSI_UNKNOWN, 1, 96, PHASE_UNKNOWN,
    )  # fmt: skip


@pytest.mark.parametrize("fine_first", [True, False])
def test_impinjs_own_rssi_and_phase_are_taken_before_peak_rssi(fine_first: Any) -> None:
    fine, coarse = tlv(1023, struct.pack("!IIh", 25882, 57, -6042)), tv(6, b"\xc3")
    phase = tlv(1023, struct.pack("!IIH", 25882, 56, 4095))
    row = one(EPC, *((fine, coarse) if fine_first else (coarse, fine)), phase)
    assert (row[4], row[7]) == (-6042, 4095)
    assert (one(EPC, coarse)[4], one(EPC, coarse)[7]) == (-6100, PHASE_UNKNOWN)


def test_an_unknown_tv_costs_only_its_report() -> None:
    rows, _, counters = run(message(report(EPC), report(EPC, tv(77, b"\1\2\3\4\5")), report(EPC)))
    assert len(rows) == 2
    assert counters["unknown_tv"] == 1


@pytest.mark.parametrize("bad", [tlv(241, b"\0\x60" + bytes(11)), tlv(300, b"", 0), tlv(300, b"", 3), tlv(300, b"", 9)])
def test_a_broken_parameter_costs_only_its_report(bad: Any) -> None:
    rows, _, counters = run(message(report(EPC), report(EPC, bad), report(EPC)))
    assert len(rows) == 2
    assert counters["broken_length"] == 1


def test_a_report_that_leaves_its_message_ends_that_message_only() -> None:
    rows, _, counters = run(message(report(EPC), tlv(240, EPC, 400)) + message(report(EPC)))
    assert len(rows) == 2
    assert counters["broken_message"] == 1


def test_an_epc_of_497_bits_is_refused() -> None:
    assert run(message(report(epc_data(497, bytes(63)))))[2]["epc_too_long"] == 1


def test_an_empty_report_is_a_message_without_reads() -> None:
    rows, used, counters = run(message())
    assert (rows, used, counters["messages"]) == ([], 10, 1)


def test_other_messages_and_parts_of_messages_are_left() -> None:
    whole = message(report(EPC))
    assert run(whole + message(kind=62))[1] == len(whole)
    assert run(whole + whole[:-1])[1] == len(whole)
    assert run(whole + struct.pack("!HII", 1 << 10 | 61, 9, 0))[1] == len(whole)
    assert run(message(report(EPC), version=4))[1] == 0


def test_a_span_outside_the_buffer_is_an_error() -> None:
    with pytest.raises(ValueError, match="span"):
        ReportDecoder(PORTS).decode(np.zeros(8, np.uint8), 0, 9)


def test_without_jit_no_index_leaves_its_array() -> None:
    """NumPy checks each index: the same tests on the uncompiled kernels find what compiled ones would read silently."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        pytest.skip("is what is being run")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", str(Path(__file__))],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "TAGTRAIL_EXAMPLES": "0.1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
