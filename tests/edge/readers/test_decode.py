"""`tagtrail decode`: literal bytes of every family in, rows and reasons out."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path
from typing import get_args

import forked
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llrpkit.protocol import messages, params
from llrpkit.protocol.impinj import ImpinjRFPhaseAngle
from thorough import examples

from config.readers import SERIAL_DRIVERS, Driver
from drivers.open import SERIAL
from edge.cli.readers import Family
from edge.readers.decode import FAMILIES, HEADER, decode, load
from edge.readers.scan import SERIAL_FAMILIES
from edge.store.errors import Trouble

CAPTURES = {
    "thingmagic": (
        "FF2822000010001B01FF0101C4110E16400000012700000500000F00803000000000000000000000001545E94A561D",
        "295000,1,000000000000000000001545,-60,1",
    ),
    "r2000": ("A0130189043000E200301666130121155074EF45BF", ",1,E200301666130121155074EF,-60,"),
    "uhfreader18": ("150001030401 0C49440000000000000A00033464 25C0", ",3,49440000000000000A000334,,"),
    "chafon-cf": ("CF0000011200FD8A01000CE280691500004020ED9648B35057", ",1,E280691500004020ED9648B3,-63,"),
    "m100": ("BB02220011C43000E200001D7315016521408FC6B83EC27E", ",,E200001D7315016521408FC6,-60,"),
    "chainway": ("A55A0019833000EFAC800000048400145A0100FD5901030D0A", ",1,EFAC800000048400145A0100,-67.9,"),
    "gx": (
        "5A000112000029000C300833B2DDD90140000000003400020104020003000CE280110C2000774978240A8B08000DD9E634C1",
        ",2,300833B2DDD9014000000000,,",
    ),
    "tsl": (
        b"CS: .iv\r\nEP: 000000000000000000001242\r\nRI: -61\r\nOK:\r\n\r\n".hex(),
        ",,000000000000000000001242,-61,",
    ),
    "llrp": (
        # RO_ACCESS_REPORT with EPC-96, antenna 2, peak RSSI -61, LastSeenUTC 1_700_000_000_000_000, seen 3 times
        "043D 00000030 00000001  00F0 0022 8D E2000015860E028815408029 81 0002 86 C3 84 00060A24181E4000 88 0003"
        " 00F00000",  # and a report that says it has no bytes
        "1700000000000000,2,E2000015860E028815408029,-61,3",
    ),
}


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    return forked.run("decode", *arguments, given=stdin)


def rows_of(family: str, raw: bytes) -> list[str]:
    return [",".join(row.texts()) for row in decode(family, raw).rows]


def test_the_families_of_the_command_are_those_that_can_be_decoded() -> None:
    assert list(Family) == list(FAMILIES)


def test_every_place_that_lists_families_has_them_all() -> None:
    from simulators.cli import Family as SimulatedFamily

    assert set(FAMILIES) == set(get_args(Driver)) == set(SimulatedFamily)
    assert set(SERIAL) == SERIAL_DRIVERS == set(SERIAL_FAMILIES)


@pytest.mark.parametrize("family", CAPTURES)
def test_a_capture_of_each_family(family: str) -> None:
    raw = bytes.fromhex(CAPTURES[family][0])
    assert rows_of(family, raw) == [CAPTURES[family][1]]
    assert rows_of(family, b"\x01\x02" + raw + raw) == [CAPTURES[family][1]] * 2


def test_the_command_reads_hex_text_and_lists_what_it_left_out(tmp_path: Path) -> None:
    capture = tmp_path / "line.txt"
    capture.write_text(
        "A0 13 01 89 04 30 00 E2 00 30 16 66 13 01 21 15\n50 74 EF 45 BF 77 A0 0A 01 89 00 00 1D 00 00 00 01 BC"
    )
    done = run("r2000", str(capture), "--csv")
    assert done.returncode == 0
    assert done.stdout == f"{','.join(HEADER)}\n,1,E200301666130121155074EF,-60,\n"
    told = done.stderr.splitlines()
    assert told[0] == "offset 21: 1 byte: no whole frame begins here: 77"
    assert told[1].startswith("offset 22: 12 bytes: bad checksum BC, should be AE: A0 0A 01")
    assert told[2] == "1 read; 13 bytes left out"


def test_the_command_reads_bytes_from_standard_input_and_prints_a_table() -> None:
    done = run("m100", "-", stdin=bytes.fromhex(CAPTURES["m100"][0] + "BB01FF000115167E"))
    lines = done.stdout.splitlines()
    assert lines[0].split() == list(HEADER)
    assert lines[1].split() == ["E200001D7315016521408FC6", "-60"]
    assert done.stderr == "1 read; 1 frame without a read (1 × no tag answered); 0 bytes left out\n"


def test_an_unknown_family_and_a_missing_file_are_told(tmp_path: Path) -> None:
    assert run("nordic", "-").returncode == 2
    missing = run("llrp", str(tmp_path / "none"))
    assert (missing.returncode, missing.stderr.startswith("tagtrail: cannot read")) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        "A0 04 01 89 01 D1",
        "a004018901d1\n",
        "0xA0,0x04,0x01,0x89,0x01,0xD1",
        "A0:04:01:89:01:D1",
        "\nA00401\n8901D1 \n",
    ],
)
def test_hex_text_in_the_ways_it_is_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(text)
    assert load(tmp_path / "f").hex() == "a004018901d1"


def test_bytes_that_are_no_hex_text_are_taken_as_they_are(tmp_path: Path) -> None:
    for raw in (b"", b"\xa0\x04\x01", b"A0 4\xff", b"\x00A0"):
        (tmp_path / "f").write_bytes(raw)
        assert load(tmp_path / "f") == raw


@pytest.mark.parametrize("text", ["RX: A0 04 01 89 01 D1\n", "12:00:01.5 A0 04 01\r\n", "A0 4G"])
def test_a_log_with_hex_in_it_is_told_from_captured_bytes(text: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(text.encode())
    with pytest.raises(Trouble, match="times, labels and remarks"):
        load(tmp_path / "f")


@pytest.mark.parametrize("end", [b"", b"\xff"])
def test_hex_text_needs_no_more_than_a_few_times_its_size(end: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"A0 04 01 89 01 D1\n" * 50_000 + end)
    tracemalloc.start()
    try:
        load(tmp_path / "f")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_half_a_byte_of_hex_text_and_packet_captures_are_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("A0 04 0")
    with pytest.raises(Trouble, match="odd number"):
        load(tmp_path / "f")
    (tmp_path / "f").write_bytes(bytes.fromhex("d4c3b2a1") + bytes(20))
    with pytest.raises(Trouble, match="tshark"):
        load(tmp_path / "f")


def test_what_the_reader_reports_as_wrong_is_listed() -> None:
    done = decode("r2000", bytes.fromhex("A005018A0122AD") + bytes.fromhex("A0040189 22 B0"))
    assert [(each.at, "no antenna" in each.reason) for each in done.left_out] == [(0, True), (7, True)]


def test_llrp_reports_that_cannot_be_read_cost_only_themselves() -> None:
    good = bytes.fromhex(CAPTURES["llrp"][0])[10:-4]
    parts = [good, bytes.fromhex("00F0 0006 FF00"), good]  # 7F is no parameter that LLRP has
    body = b"".join(parts)
    message = bytes.fromhex("043D") + (10 + len(body)).to_bytes(4) + bytes(4) + body
    keepalive = bytes.fromhex("043E 0000000A 00000007")
    done = decode("llrp", keepalive + message + bytes.fromhex("043D 7FFFFFFF 00000001") + message[:30])
    assert len(done.rows) == 2
    assert done.others == {"KEEPALIVE": 1}
    assert done.left_out[0].at == 10
    assert "1 × unknown tv" in done.left_out[0].reason
    assert sum(len(each.raw) for each in done.left_out[1:]) == 40


@given(raw=st.binary(max_size=300), family=st.sampled_from(sorted(FAMILIES)))
@settings(max_examples=examples(200), deadline=None)  # the first of each family imports its codec
def test_any_bytes_are_accounted_for(raw: bytes, family: str) -> None:
    done = decode(family, raw)
    ends = [0] + [each.at + len(each.raw) for each in done.left_out]
    assert all(each.at >= end for each, end in zip(done.left_out, ends, strict=False))
    assert all(raw[each.at : each.at + len(each.raw)] == each.raw and each.reason for each in done.left_out)
    if not done.rows and not done.others:
        told = raw.strip(b" \t\r\n,") if family == "json" else raw
        assert sum(len(each.raw) for each in done.left_out) == len(told)
    assert np.all([row.epc for row in done.rows])


def test_the_phase_is_shown_only_when_wanted(tmp_path: Path) -> None:
    reports = [
        params.TagReportData(epc_parameter=params.EPC_96(epc=bytes(12)), custom=[ImpinjRFPhaseAngle(phase_angle=1024)]),
        params.TagReportData(epc_parameter=params.EPC_96(epc=bytes(12))),
    ]
    file = tmp_path / "capture.bin"
    file.write_bytes(messages.RO_ACCESS_REPORT(tag_report_datas=reports).to_bytes(message_id=1))
    (plain, *_), (header, turned, unknown) = (
        run("llrp", str(file), "--csv", *more).stdout.splitlines() for more in ([], ["--phase"])
    )
    assert (plain, header) == ("time_us,antenna,epc,rssi_dbm,count", "time_us,antenna,epc,rssi_dbm,count,phase_deg")
    assert (turned.rpartition(",")[2], unknown.rpartition(",")[2]) == ("90.00", "")


def test_json_is_decoded_by_the_profile_that_fits(tmp_path: Path) -> None:
    file = tmp_path / "messages.json"
    file.write_text(
        '{"data":{"eventNum":5938,"format":"epc","idHex":"000000000000000000000343"},'
        '"timestamp":"2024-09-05T01:07:01.785-0600","type":"CUSTOM"}'
        '{"data":{"idHex":"XYZ"}} lost {"type":"heartbeat"}{"data":'
    )
    done = run("json", str(file), "--csv")
    assert done.stdout.splitlines()[1:] == ["1725520021785000,,000000000000000000000343,,1"]
    assert "1 read; 1 frame without a read (1 × message without a read)" in done.stderr
    assert "not usable: 1 × bad epc" in done.stderr
    assert "not JSON, or cut off" in done.stderr
    assert "0 reads" in run("json", str(file), "--profile", "impinj").stderr
    assert "no profile 'x'" in run("json", str(file), "--profile", "x").stderr


@pytest.mark.parametrize(
    ("family", "lines"),
    [
        ("tsl", "EP: 300833B2DDD9014000000000\nRI: -58\nOK:\n\n"),
        ("metratec", "300833B2DDD9014000000000\n-58\nARP 00\nIVF 01\n"),
    ],
)
def test_lines_saved_by_an_editor_are_decoded(tmp_path: Path, family: str, lines: str) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes(lines.encode())
    (row,) = decode(family, load(file, family)).rows
    assert (row.epc, row.rssi_cdbm) == ("300833B2DDD9014000000000", -5800)
