"""Frames of the serial families: published ones byte for byte, and what must hold of any bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from drivers.read import EPC_BITS_MAX
from drivers.serial import chafon_cf_codec as cf
from drivers.serial import chainway_codec as chainway
from drivers.serial import hopeland_codec as hopeland
from drivers.serial import m100_codec as m100
from drivers.serial import metratec_codec as metratec
from drivers.serial import nordicid_codec as nur
from drivers.serial import r2000_codec as r2000
from drivers.serial import thingmagic_codec as thingmagic
from drivers.serial import tsl_codec as tsl
from drivers.serial import uhfreader18_codec as uhf
from drivers.serial.checksums import crc16_ibm_3740, crc16_mcrf4xx, crc16_umts, crc16_xmodem
from drivers.serial.framing import Framer, scan, walk
from drivers.serial.tags import Content, MalformedRecordError, TagRead
from simulators.readers.observation import Observation
from simulators.readers.polled_families import metratec_round, nur_tags, tsl_tag
from simulators.readers.serial_families import cf_tag, m100_tag, r2000_tag, uhf_tags
from simulators.readers.streaming_families import chainway_tag, hopeland_tag
from simulators.readers.thingmagic import tag_reply


class Family(NamedTuple):
    """How a family's frames are found, read and made, and whether they carry antenna and strength."""

    probe: Callable[[bytes, int], Any]
    read: Callable[[Any], Content]
    encode: Callable[[Observation], bytes]
    ports: bool = False
    rssi: bool = False


FAMILIES = {
    "thingmagic": Family(thingmagic.reply_at, thingmagic.read, lambda seen: tag_reply(seen, 0), True, True),
    "r2000": Family(r2000.frame_at, r2000.read, lambda seen: r2000_tag(seen, r2000.INVENTORY), True, True),
    "m100": Family(m100.frame_at, m100.read, m100_tag, False, True),
    "chafon-cf": Family(cf.frame_at, cf.read, cf_tag, True, True),
    "uhfreader18": Family(uhf.frame_at, uhf.read, lambda seen: uhf_tags([seen], uhf.MORE, False)),
    "chainway": Family(chainway.frame_at, chainway.read, chainway_tag, True, True),
    "hopeland": Family(hopeland.aa_at, hopeland.read, hopeland_tag, True),
    "gx": Family(hopeland.five_a_at, hopeland.read, lambda seen: hopeland_tag(seen, hopeland.FIVE_A), True, True),
    "nordicid": Family(nur.frame_at, nur.read, lambda seen: nur_tags([seen]), True, True),
    "tsl": Family(tsl.frame_at, tsl.read, lambda seen: tsl_tag(seen) + b"OK:\r\n\r\n", False, True),
    "metratec": Family(
        metratec.frame_at, metratec.read, lambda seen: metratec_round([seen], seen.port - 1), True, True
    ),
    "288m": Family(uhf.frame_at, uhf.read, lambda seen: uhf_tags([seen], uhf.MORE, True), True),
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
CHECKED = {name: family for name, family in FAMILIES.items() if name not in ("tsl", "metratec")}
"""Families whose frames have a checksum: a line of text is only known to be torn if it is no longer possible."""
every_checked_family = pytest.mark.parametrize("family", CHECKED.values(), ids=CHECKED)

PUBLISHED = {
    "A0130189043000E200301666130121155074EF45BF": ("r2000", "E200301666130121155074EF", 1, -6000),
    "A01301898C3000300833B2DDD901400000000137BB": ("r2000", "300833B2DDD9014000000001", 1, -7400),
    "A013018B10300030096637 81DB02974876FC6A672B": ("r2000", "3009663781DB02974876FC6A", 1, -2600),
    "BB0222 0011C93400 30751FEB705C5904E3D50D70 3A76 EF7E": ("m100", "30751FEB705C5904E3D50D70", None, -5500),
    "BB0222 0011C43000 E200001D7315016521408FC6 B83E C27E": ("m100", "E200001D7315016521408FC6", None, -6000),
    "CF00000112 00FD8A01000C E280691500004020ED9648B3 5057": ("chafon-cf", "E280691500004020ED9648B3", 1, -6300),
    "13000103010C 000000000000000000000313 3F39": ("uhfreader18", "000000000000000000000313", None, None),
    "15000103 01010C 000000000000000000000313 6B B1A5": ("288m", "000000000000000000000313", 1, None),
    "15000103 04010C 49440000000000000A000334 64 25C0": ("288m", "49440000000000000A000334", 3, None),
    "0D000103 010104 00323038 6D A3D2": ("288m", "00323038", 1, None),
    "1100EE00 2000708C2B380B2D00000000 E056": ("uhfreader18", "2000708C2B380B2D00000000", None, None),
}

observations = st.builds(
    Observation,
    time_us=st.just(0),
    port=st.integers(1, 8),
    epc=st.integers(1, EPC_BITS_MAX // 16).flatmap(lambda words: st.binary(min_size=2 * words, max_size=2 * words)),
    rssi_cdbm=st.integers(-128, -2).map(lambda dbm: 100 * dbm),
    count=st.just(1),
)


def framer_of(family: Family) -> Framer[Any]:
    return Framer(partial(scan, probe=family.probe))


def tags_in(family: Family, frames: list[Any]) -> list[TagRead]:
    return [tag for frame in frames for tag in family.read(frame).tags]


def drained(framer: Framer[Any]) -> list[Any]:
    found = []
    while framer.pending:
        found += framer.gap()
    return found


def bitwise_mcrf4xx(body: bytes) -> int:
    register = 0xFFFF
    for byte in body:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x8408 if register & 1 else register >> 1
    return register


@pytest.mark.parametrize(
    ("checksum", "value"),
    [(crc16_mcrf4xx, 0x6F91), (crc16_xmodem, 0x31C3), (crc16_ibm_3740, 0x29B1), (crc16_umts, 0xFEE8)],
)
def test_the_checksums_have_their_check_values(checksum: Callable[[bytes], int], value: int) -> None:
    assert checksum(b"123456789") == value


@given(st.binary(max_size=300))
def test_the_checksum_is_the_register_shifted_bit_by_bit(body: bytes) -> None:
    assert crc16_mcrf4xx(body) == bitwise_mcrf4xx(body)


@pytest.mark.parametrize("frame", PUBLISHED, ids=lambda text: text.replace(" ", "")[:16])
def test_published_reads(frame: str) -> None:
    name, epc, antenna, rssi_cdbm = PUBLISHED[frame]
    raw = bytes.fromhex(frame)
    found = scan(raw, FAMILIES[name].probe)
    assert (len(found.frames), found.used, found.skipped) == (1, len(raw), 0)
    assert tags_in(FAMILIES[name], found.frames) == [TagRead(bytes.fromhex(epc), rssi_cdbm=rssi_cdbm, antenna=antenna)]


def test_two_tags_in_one_frame() -> None:
    raw = bytes.fromhex("2000010302 0C000000000000000000000313 0C000000000000000000000314 9AC9")
    (frame,) = scan(raw, uhf.frame_at).frames
    assert [tag.epc[-1] for tag in uhf.read(frame).tags] == [0x13, 0x14]
    assert not uhf.read(frame).ends


@pytest.mark.parametrize(
    ("encoded", "published"),
    [
        (r2000.encode(1, r2000.INVENTORY, b"\x01"), "A004018901D1"),
        (r2000.encode(1, r2000.SET_ANTENNA, b"\x00"), "A0040174 00E7"),
        (r2000.encode(1, r2000.INVENTORY_SESSION, b"\x01\x00\x01"), "A006018B010001CC"),
        (m100.encode(m100.COMMAND, m100.POLL), "BB00220000227E"),
        (m100.encode(m100.COMMAND, m100.POLL_MANY, bytes.fromhex("222710")), "BB00270003222710837E"),
        (m100.encode(m100.COMMAND, m100.STOP), "BB00280000287E"),
        (m100.encode(m100.COMMAND, 0xB6, bytes.fromhex("07D0")), "BB00B6000207D08F7E"),
        (uhf.encode(0, uhf.READER), "040021D96A"),
        (cf.encode(cf.EVERYONE, cf.DEVICE), "CFFF0070002415"),
        (cf.encode(cf.EVERYONE, cf.STOP), "CFFF000200E761"),
        (chainway.encode(chainway.START, bytes(2)), "A55A000A820000880D0A"),
        (chainway.encode(chainway.STOP), "A55A00088C840D0A"),
        (hopeland.start(hopeland.AA, [1]), "AA02100002010171AD"),
        (hopeland.encode(hopeland.Frame(2, hopeland.STOP, b"")), "AA02FF0000A40F"),
        (hopeland.encode(hopeland.Frame(2, hopeland.ABILITY, b"")), "AA02000000A803"),
        (hopeland.start(hopeland.FIVE_A, [1, 2, 3, 4]), "5A0001021000050000000F01D788"),
        (hopeland.encode(hopeland.Frame(2, hopeland.STOP, b"", dialect=hopeland.FIVE_A)), "5A000102FF0000885A"),
        (hopeland.encode(hopeland.Frame(2, hopeland.ABILITY, b"", dialect=hopeland.FIVE_A)), "5A0001020000004739"),
    ],
)
def test_commands_are_the_published_bytes(encoded: bytes, published: str) -> None:
    assert encoded == bytes.fromhex(published)


def test_fast_switching_names_four_places_or_eight() -> None:
    assert r2000.inventory_fast(1, [1, 3], 2)[4:-1] == bytes.fromhex("0001 0201 FF01 FF01 00 02")
    assert r2000.inventory_fast(1, [2, 8], 1)[4:-1] == bytes.fromhex("0101 0701" + 6 * "FF01" + "00 01")


@pytest.mark.parametrize(
    ("family", "frame", "content"),
    [
        ("r2000", "A00A01890000110000 0005B6", Content(ends=True, antenna=1, note="end of a round")),
        ("r2000", "A00A018A000000 00000000CB", Content(ends=True, note="end of a round")),
        ("m100", "BB01FF000115167E", Content(note="no tag answered")),
        ("m100", "BB01280001002A7E", Content(note="answer to command 28")),
        ("288m", "0700010101001E4B", Content(ends=True, note="end of a round without tags")),
    ],
)
def test_frames_without_tags(family: str, frame: str, content: Content) -> None:
    (found,) = scan(bytes.fromhex(frame), FAMILIES[family].probe).frames
    assert FAMILIES[family].read(found) == content


def test_a_missing_antenna_is_told_by_its_port() -> None:
    (frame,) = scan(bytes.fromhex("A005018A0122AD"), r2000.frame_at).frames
    assert r2000.read(frame).unconnected == 2
    (frame,) = scan(r2000.encode(1, r2000.INVENTORY, b"\x22"), r2000.frame_at).frames
    assert "no antenna is connected" in r2000.read(frame).failure
    assert r2000.read(frame).ends


def test_failures_are_told() -> None:
    assert "no antenna" in uhf.read(uhf.Frame(0, uhf.INVENTORY, b"\xf8")).failure
    assert "no free frequency" in m100.read(m100.Frame(m100.ANSWER, m100.ERROR, b"\x20")).failure
    assert "status 7F" in cf.read(cf.Frame(0, cf.INVENTORY, b"\x7f")).failure
    assert cf.read(cf.Frame(0, cf.INVENTORY, b"\x12")).ends
    assert "too hot" in thingmagic.read(thingmagic.Reply(0x22, 0x0504, b"")).failure


@pytest.mark.parametrize("frame", ["A00A018900001D00000001BC", "A013018A0C3000543030383039303032 37D8DB308D"])
def test_published_frames_with_a_wrong_checksum_are_refused(frame: str) -> None:
    raw = bytes.fromhex(frame)
    (piece,) = walk(raw, r2000.frame_at, whole=True)
    assert (piece.size, piece.frame) == (len(raw), None)
    assert f"bad checksum {raw[-1]:02X}" in piece.reason


@pytest.mark.parametrize("phase", [b"", b"\x01\x02"])
def test_the_phase_behind_an_r2000_read_is_told_by_the_pc(phase: bytes) -> None:
    seen = Observation(0, 6, bytes(range(12)), -5000)
    (frame,) = scan(r2000_tag(seen, r2000.INVENTORY_FAST, phase=phase), r2000.frame_at).frames
    assert r2000.read(frame).tags == (TagRead(seen.epc, rssi_cdbm=-5000, antenna=6),)


def test_an_r2000_frame_must_be_of_the_known_address_and_shape() -> None:
    tag = r2000_tag(Observation(0, 1, bytes(12), -5000), r2000.INVENTORY)
    assert scan(tag, partial(r2000.frame_at, address=2)).frames == []
    assert scan(r2000.encode(1, 0x12, bytes(3)), r2000.frame_at).frames == []
    wrong_pc = r2000.encode(1, r2000.INVENTORY, b"\x04\x20\x00" + bytes(12) + b"\x40")
    assert scan(wrong_pc, r2000.frame_at).frames == []


def test_a_7e_inside_an_m100_frame_is_no_end() -> None:
    seen = Observation(0, 1, b"\x7e" * 12, -200)
    (frame,) = scan(m100_tag(seen), m100.frame_at).frames
    assert m100.read(frame).tags[0].epc == seen.epc


def test_extended_protocol_words_are_no_part_of_the_epc() -> None:
    data = b"\x04" + bytes.fromhex("3A00 0001 E2000015860E028815408029 45")
    (frame,) = scan(r2000.encode(1, r2000.INVENTORY, data), r2000.frame_at).frames
    assert r2000.read(frame).tags[0].epc.hex().upper() == "E2000015860E028815408029"


@pytest.mark.parametrize("q", [0, 1, 4, 15])
def test_a_hosts_inventory_command_is_no_answer_whatever_its_q(q: int) -> None:
    command = uhf.encode(0, uhf.INVENTORY, bytes((q, 0, 0, 0x83, 3)))
    (frame,) = scan(command, uhf.frame_at).frames
    assert uhf.read(frame) == Content(note="the host's inventory command")
    assert uhf.inventory(0, 4) == uhf.encode(0, uhf.INVENTORY, bytes((4, 0, 0, 0x83, 3)))
    short = uhf.Frame(0, uhf.INVENTORY, b"\x03\x01\x02\x83\x03")
    assert uhf.read(short).tags == (TagRead(b"\x83\x03"),)


def test_an_antenna_mask_of_several_names_none() -> None:
    data = bytes.fromhex("03 03 01 02 ABCD 60")
    assert uhf.read(uhf.Frame(0, uhf.INVENTORY, data)).tags == (TagRead(b"\xab\xcd"),)


@every_family
@given(seen=observations)
def test_what_is_encoded_is_decoded(family: Family, seen: Observation) -> None:
    raw = family.encode(seen)
    found = scan(raw, family.probe)
    assert (found.used, found.skipped) == (len(raw), 0)
    (tag,) = tags_in(family, found.frames)
    assert tag.epc == seen.epc
    assert tag.rssi_cdbm == (seen.rssi_cdbm if family.rssi else None)
    assert tag.antenna == (seen.port if family.ports else None)


@given(seen=observations, rssi_cdbm=st.integers(-32768, 32767).map(lambda tenths: 10 * tenths))
def test_chafon_strengths_have_a_tenth_of_a_db(seen: Observation, rssi_cdbm: int) -> None:
    (frame,) = scan(cf_tag(seen._replace(rssi_cdbm=rssi_cdbm)), cf.frame_at).frames
    assert cf.read(frame).tags[0].rssi_cdbm == (rssi_cdbm if -20_000 <= rssi_cdbm <= 5_000 else None)


@given(st.lists(observations, max_size=3), st.booleans(), st.integers(1, 8))
def test_lists_of_tags_are_told_apart_by_themselves(tags: list[Observation], antenna: bool, port: int) -> None:
    tags = [seen._replace(port=port, epc=seen.epc[:24]) for seen in tags]
    (frame,) = scan(uhf_tags(tags, uhf.DONE, antenna), uhf.frame_at).frames
    content = uhf.read(frame)
    assert content.ends
    assert content.tags == tuple(TagRead(seen.epc, antenna=port if antenna else None) for seen in tags)


@every_family
@given(noise=st.binary(max_size=400))
@settings(max_examples=examples(60))
def test_no_bytes_break_a_decoder(family: Family, noise: bytes) -> None:
    pieces = list(walk(noise, family.probe, whole=True))
    assert [piece.at for piece in pieces] == [sum(p.size for p in pieces[:n]) for n in range(len(pieces))]
    assert sum(piece.size for piece in pieces) == len(noise)
    for piece in pieces:
        assert (piece.frame is None) == bool(piece.reason)
        if piece.frame is not None:
            try:
                family.read(piece.frame)
            except MalformedRecordError:
                continue


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "288m"])
@given(data=st.binary(max_size=80), which=st.sampled_from([0x00, 0x01, 0x22, 0x89, 0x8A, 0x8B, 0xEE, 0xFF]))
@settings(max_examples=examples(150))
def test_no_content_breaks_a_decoder(name: str, data: bytes, which: int) -> None:
    frames: dict[str, list[Any]] = {
        "r2000": [r2000.Frame(1, which, data)],
        "m100": [m100.Frame(kind, which, data) for kind in range(3)],
        "chafon-cf": [cf.Frame(0, cf.INVENTORY, data)],
        "uhfreader18": [uhf.Frame(0, which, data)],
        "thingmagic": [thingmagic.Reply(which, 0, data)],
        "chainway": [chainway.Frame(command, data) for command in (chainway.TAG, chainway.SINGLE + 1, which)],
        "hopeland": [hopeland.Frame(2, which, data, unasked) for unasked in (False, True)],
        "gx": [hopeland.Frame(2, which, data, True, dialect=hopeland.FIVE_A)],
        "nordicid": [nur.Frame(nur.FETCH, b"\0" + data, flags) for flags in (0, nur.MEMORY)],
        "tsl": [tsl.Frame(tsl.TAG, data.hex(), ((tsl.RSSI, str(which)),))],
        "metratec": [metratec.Frame((data.hex().upper(), f"-{which}", "IVF 01"))],
    }
    for frame in frames[name]:
        try:
            content = FAMILIES[name].read(frame)
        except MalformedRecordError:
            continue
        assert all(0 < 8 * len(tag.epc) <= EPC_BITS_MAX for tag in content.tags)


@every_family
@given(tags=st.lists(observations, min_size=1, max_size=6), chance=st.randoms(use_true_random=False))
@settings(max_examples=examples(40))
def test_frames_are_found_however_the_bytes_are_cut(
    family: Family, tags: list[Observation], chance: random.Random
) -> None:
    stream = b"".join(family.encode(seen) for seen in tags)
    framer = framer_of(family)
    found: list[Any] = []
    while stream:
        size = chance.choice((1, 2, 7, 50, 300))
        found += framer.feed(stream[:size])
        stream = stream[size:]
    assert [tag.epc for tag in tags_in(family, found)] == [seen.epc for seen in tags]
    assert (framer.skipped, framer.pending) == (0, False)


@every_checked_family
@given(parts=st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=40)), min_size=1, max_size=8))
@settings(max_examples=examples(80))
def test_every_good_frame_is_found_among_garbage(family: Family, parts: list[bytes | None]) -> None:
    seen = Observation(0, 1, bytes.fromhex("E2000015860E028815408029"), -5500)
    framer = framer_of(family)
    found: list[Any] = []
    for part in parts:
        found += framer.feed(family.encode(seen) if part is None else part)
    found += drained(framer)
    assert [tag.epc for tag in tags_in(family, found)].count(seen.epc) == parts.count(None)


@every_checked_family
def test_a_torn_frame_costs_only_itself(family: Family) -> None:
    raw = family.encode(Observation(0, 1, bytes.fromhex("E2000015860E028815408029"), -5500))
    for lost in range(1, len(raw)):
        framer = framer_of(family)
        found = framer.feed(raw[:-lost] + raw + raw)
        found += drained(framer)
        assert len(tags_in(family, found)) == 2, lost
        assert framer.skipped == len(raw) - lost


def test_rubbish_is_told_from_where_a_frame_seemed_to_begin() -> None:
    good = bytes.fromhex("A004018901D1")
    raw = b"\x11\x22" + good + bytes.fromhex("A00A018900001D00000001BC") + good + b"\xa0\x13\x01"
    assert [(p.at, p.size, p.frame is not None) for p in walk(raw, r2000.frame_at, whole=True)] == [
        (0, 2, False),
        (2, 6, True),
        (8, 12, False),
        (20, 6, True),
        (26, 3, False),
    ]
    assert [p.at + p.size for p in walk(raw, r2000.frame_at)][-1] == 26


@every_family
@given(parts=st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=40)), min_size=1, max_size=8))
@settings(max_examples=examples(40))
def test_a_listing_has_the_frames_and_the_garbage_that_a_session_finds(
    family: Family, parts: list[bytes | None]
) -> None:
    frame = family.encode(Observation(0, 1, bytes(range(12)), -5500, 1))
    line = b"".join(frame if part is None else part for part in parts)
    pieces, found = list(walk(line, family.probe)), scan(line, family.probe)
    assert [piece.frame for piece in pieces if piece.frame is not None] == found.frames
    assert sum(piece.size for piece in pieces) == found.used
    assert sum(piece.size for piece in pieces if piece.frame is None) == found.skipped
    assert found.extensible is None or found.used < len(line)
