"""Mercury frames: published ones byte for byte, and what must hold of any bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from drivers.read import EPC_BITS_MAX
from drivers.serial import thingmagic_codec as codec
from drivers.serial.framing import Framer
from drivers.serial.tags import MalformedRecordError, TagRead
from drivers.serial.thingmagic_codec import Reply, StreamEnd, command, read_record, scan_replies
from simulators.readers.observation import Observation
from simulators.readers.thingmagic import reply, tag_reply

TAG = bytes.fromhex("FF2822000010001B01FF0101C4110E16400000012700000500000F00803000000000000000000000001545E94A561D")
# Printed by its source without the checksum: metadata up to the Gen2 target, 144 bits of TID embedded.
RICH_RECORD = bytes.fromhex(
    "10011F0FFF0101DD110D37FC000000B300AE050090FF00062F8029010E0154000D5FFBFFFFDC0080020000"
    "0080"
    "3400E20000158 60E028815408029 3B72".replace(" ", "")
)
VERSION = bytes.fromhex("FF140300001501040 0A1000201202007032007030000000010DEE7".replace(" ", ""))

OPTIONAL = (codec.COUNT, codec.RSSI, codec.ANTENNA, codec.TIMESTAMP)

epcs = st.integers(1, EPC_BITS_MAX // 16).flatmap(lambda words: st.binary(min_size=2 * words, max_size=2 * words))
observations = st.builds(
    Observation,
    time_us=st.just(0),
    port=st.integers(1, 16),
    epc=epcs,
    rssi_cdbm=st.integers(-128, 127).map(lambda dbm: 100 * dbm),
    count=st.integers(1, 255),
)


def bitwise_crc(body: bytes) -> int:
    register = 0xFFFF
    for byte in body:
        for bit in range(7, -1, -1):
            top = register >> 15
            register = (register << 1 | byte >> bit & 1) & 0xFFFF
            if top:
                register ^= 0x1021
    return register


def test_the_checksum_has_its_check_value() -> None:
    assert codec.crc(b"123456789") == 0xA69D


@given(st.binary(min_size=2, max_size=300))
def test_the_checksum_is_the_register_shifted_bit_by_bit(body: bytes) -> None:
    assert codec.crc(body) == bitwise_crc(body)


@pytest.mark.parametrize(
    "frame",
    [
        "FF102F00000122000005072210001B03E801FFDD2B",
        "FF032F0000025E86",
        "FF00031D0C",
        "FF0197084BB5",
        "FF029208FC49A5",
        "FF039102010142C5",
        "FF02930005517D",
        "FF039A010C00A35D",
        "FF04060001C200A460",
    ],
)
def test_commands_are_the_published_bytes(frame: str) -> None:
    published = bytes.fromhex(frame)
    assert command(published[2], published[3:-2]) == published


def test_a_captured_read() -> None:
    found = scan_replies(TAG)
    assert (len(found.frames), found.used, found.skipped) == (1, len(TAG), 0)
    assert read_record(found.frames[0].data) == TagRead(
        epc=bytes.fromhex("000000000000000000001545"), seen=1, rssi_cdbm=-6000, antenna=1, time_ms=295
    )


def test_a_captured_version() -> None:
    assert scan_replies(VERSION).frames == [Reply(0x03, 0, VERSION[5:-2])]


def test_a_read_with_embedded_memory_and_gen2_metadata() -> None:
    assert read_record(RICH_RECORD) == TagRead(
        epc=bytes.fromhex("E2000015860E028815408029"), seen=1, rssi_cdbm=-3500, antenna=1, time_ms=179
    )


def test_statistics_and_the_end_of_a_search_are_no_tags() -> None:
    assert read_record(bytes.fromhex("00011F0282008200011A")) is None
    assert read_record(bytes.fromhex("10001B001700")) == StreamEnd()


@pytest.mark.parametrize(("xpc", "pc"), [("", "3000"), ("0001", "3A00"), ("80010002", "4200")])
def test_extended_protocol_words_are_no_part_of_the_epc(xpc: str, pc: str) -> None:
    epc = "E2000015860E028815408029"
    block = bytes.fromhex(pc + xpc + epc + "0000")
    tag = read_record(bytes.fromhex("10001B000001") + (8 * len(block)).to_bytes(2) + block)
    assert tag == TagRead(bytes.fromhex(epc), None, None, None, None)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "10001B0017",  # ends before its type
        "10001B001709",  # unknown type
        "10001B800001",  # unknown metadata
        "10001B000001",  # no EPC block
        "10001B0000010080300000",  # block shorter than it says
        "10001B0000010020 3000 0000",  # no EPC in the block
        "10001B0000010011 3000 0000",  # not whole bytes
        "10001B0000010030 8200 8000 0000",  # XPC words longer than the block
    ],
)
def test_a_record_that_contradicts_itself_is_refused(record: str) -> None:
    with pytest.raises(MalformedRecordError):
        read_record(bytes.fromhex(record))


def test_an_epc_longer_than_gen2_allows_is_refused() -> None:
    block = bytes.fromhex("F800") + bytes(64) + bytes(2)
    with pytest.raises(MalformedRecordError, match="496"):
        read_record(bytes.fromhex("10001B000001") + (8 * len(block)).to_bytes(2) + block)


@given(observations, st.integers(0, 0xFFFFFFFF), st.integers(0, 31))
def test_what_is_encoded_is_decoded(seen: Observation, time_ms: int, which: int) -> None:
    flags = sum(
        flag for n, flag in enumerate((codec.COUNT, codec.RSSI, codec.ANTENNA, codec.TIMESTAMP)) if which >> n & 1
    )
    frame = tag_reply(seen, time_ms, flags)
    (found,) = scan_replies(frame).frames
    assert read_record(found.data) == TagRead(
        epc=seen.epc,
        seen=seen.count if flags & codec.COUNT else None,
        rssi_cdbm=seen.rssi_cdbm if flags & codec.RSSI else None,
        antenna=seen.port if flags & codec.ANTENNA else None,
        time_ms=time_ms if flags & codec.TIMESTAMP else None,
    )


@given(st.binary(max_size=600))
def test_no_bytes_break_the_decoder(noise: bytes) -> None:
    framer = Framer(scan_replies)
    found = framer.feed(noise)
    while framer.pending:
        found += framer.gap()
    assert framer.skipped + sum(len(frame.data) + codec.REPLY_OVERHEAD for frame in found) == len(noise)


@given(st.binary(max_size=80))
def test_no_record_breaks_the_decoder(record: bytes) -> None:
    for data in (record, b"\x10\x00\x1b" + record, RICH_RECORD[:5] + b"\x01" + record):
        try:
            tag = read_record(data)
        except MalformedRecordError:
            continue
        if isinstance(tag, TagRead):
            assert 0 < 8 * len(tag.epc) <= EPC_BITS_MAX


@given(st.lists(observations, min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=examples(50))
def test_frames_are_found_however_the_bytes_are_cut(tags: list[Observation], chance: random.Random) -> None:
    frames = [tag_reply(seen, ms) for ms, seen in enumerate(tags)]
    stream = b"".join(frames)
    framer = Framer(scan_replies)
    found: list[Reply] = []
    while stream:
        size = chance.choice((1, 2, 7, 50, 300))
        found += framer.feed(stream[:size])
        stream = stream[size:]
    assert [reply(frame.op, frame.status, frame.data) for frame in found] == frames
    assert framer.skipped == 0
    assert not framer.pending


def test_a_bad_checksum_costs_one_byte_so_a_frame_inside_survives() -> None:
    # The first frame has lost its tail: its length swallows the beginning of the second.
    for lost in range(1, len(TAG)):
        framer = Framer(scan_replies)
        found = framer.feed(TAG[:-lost] + TAG + TAG)
        while framer.pending:  # an FF in the torn frame may claim more bytes than have come
            found += framer.gap()
        assert [frame.data for frame in found] == [TAG[5:-2]] * 2, lost
        assert framer.skipped == len(TAG) - lost


@given(st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=40)), min_size=1, max_size=12))
def test_every_good_frame_is_found_among_garbage(parts: list[bytes | None]) -> None:
    framer = Framer(scan_replies)
    found: list[Reply] = []
    for part in parts:
        found += framer.feed(TAG if part is None else part)
    while framer.pending:
        found += framer.gap()
    assert [frame.data for frame in found].count(TAG[5:-2]) == parts.count(None)


def test_a_gap_gives_up_one_byte_and_finds_what_hid_behind_it() -> None:
    framer = Framer(scan_replies)
    assert framer.feed(b"\xff\xf0" + TAG) == []  # claims 247 bytes
    assert framer.pending
    assert [frame.data for frame in framer.gap()] == [TAG[5:-2]]
    assert (framer.pending, framer.skipped) == (False, 2)
