"""Bytes of real serial readers, and what becomes of them: our simulators share our assumptions, these don't.

Each with where it was published. Others stand in test_serial_codecs.py and test_thingmagic_codec.py.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest
from captured_readers import CAPTURED as CAPTURED_READERS
from captured_readers import captured_reader
from serial_hosts import Collector

from drivers import open_session
from drivers.serial import chafon_cf_codec as cf
from drivers.serial import chainway_codec as chainway
from drivers.serial import hopeland_codec as hopeland
from drivers.serial import m100_codec as m100
from drivers.serial import nordicid_codec as nur
from drivers.serial import r2000_codec as r2000
from drivers.serial import session
from drivers.serial import thingmagic_codec as thingmagic
from drivers.serial import tsl_codec as tsl
from drivers.serial import uhfreader18_codec as uhf
from drivers.serial.framing import walk
from drivers.serial.tags import Content, TagRead
from drivers.session import Link, ReaderSettings
from edge.readers.decode import decode
from simulators.readers.observation import Observation
from simulators.readers.streaming_families import hopeland_tag

FAMILIES: dict[str, tuple[Any, Any]] = {
    "thingmagic": (thingmagic.either_at, thingmagic.read),
    "r2000": (r2000.frame_at, r2000.read),
    "uhfreader18": (uhf.frame_at, uhf.read),
    "chafon-cf": (cf.frame_at, cf.read),
    "m100": (m100.frame_at, m100.read),
    "chainway": (chainway.frame_at, chainway.read),
    "hopeland": (hopeland.aa_at, hopeland.read),
    "gx": (hopeland.five_a_at, hopeland.read),
    "nordicid": (nur.frame_at, nur.read),
    "tsl": (tsl.frame_at, tsl.read),
}

# A UHFReader288 behind a serial server, as a public emulator of one answers; the host's bytes come first.
UHF288_WHO = "04FF211995"
UHF288_READER = "11002100030D260331801E0001000001719A"
UHF288_HOST = "06000104FFD439"
UHF288_NOTHING = "0700010101001E4B"
UHF288_TAG = "1500010301010CE20000194604005221003DFF4C95DD"
UHF288_NO_ANTENNA = "050001F8690F"
# An M100 board of four antennas: a comment in its maker's firmware. The version: docs.electron.id/el-uhf-rmt01.
M100_ANTENNA = "BB02220012CD3400E200471551A064265CB7010BB37D01407E"
M100_VERSION = "BB0103000B004D3130302056312E3030227E"
# The same chip with one antenna, in a contract test of a public firmware: a tag, another's user memory, and silence.
M100_TAG = "BB02220011C33400E200470F22D060130435E50102E5CF7E"
M100_USER = "BB0139001F0E3400E20042120230601201CEACC731281A00013100050C0A2800000006EE937E"
M100_NOTHING = "BB01FF000115167E"
# An M6e Nano that has started: community.sparkfun.com/t/44173.
M6E_STARTS = "FF1404000014120800300000022019092301090202000000106C33"
# A Chafon H103 with a 2D engine, from the first session with the hardware; the bar code is "490".
H103_SWEEP = "CFFF0001050000000000F5B5"
H103_ROUNDS = "CFFF0001050100000003CC6A"
H103_NOTHING = "CF0000010112421D"
H103_POWER_SET = "CF000053010047D5"
H103_BAR_CODE = "CF0000010C00000000000602343930030D8DE4"
# R2000 boards: an IND903 in a sports club's README, and a log of 2017 of one whose ports 2 to 4 had no antenna.
IND903_VERSION = "A00501720109DE"
R2000_PORT_SET = "A004017410D7"
R2000_NO_ANTENNA = "A004018922B0"
R2000_TAG = "A0130189743000E2004074850A0103163070E13629"
# Fast switching: an 8-port board in a comment of a public C++ program, and a board behind a serial server whose ports
# 2 to 4 had no antenna, in a public Java client's log (its tag frames were edited: their checksums don't fit).
R2000_FAST_TAG = "A013018AB330000000000000000000000008254C66"
R2000_PORT_LACKS = "A005018A0122AD"
R2000_HOST = "A004018901D1"
# Chainway: a UR4 with firmware 7.40.1 (github DaanVervacke/chainway-serial, tests; the records without their frames),
# and modules in a cutting machine (UM202), a tool cabinet and a handheld (HYM360), each in a log of its own program.
UR4_POWER = "A55A0010270110020003000400230D0A"
UR4_STOP = "A55A00088C840D0A"
UR4_TID = "3400523742303030303539353538E28011702000419F40AC0B9FFE1301"
UR4_USER = "3400523742303030303539353536E28011702000518F40AC0B9F00000000FDCD01"
UR4_PHASE = "34005237423030303035393535380147FE1701"
UR4_EPC = "3000523730303030303534373633E28011702000037D615E0B20FDEF01"
UM202_TAG = "A55A0019833000E200001B66040082172034D500D401B00D0A"
CUTTER_TAG = "A55A0019833000E280699500005014CCA7398600D301760D0A"
CABINET_TAG = "A55A0019833000EFAC800000048400145A0100FD5901030D0A"
HYM360_TAG = "A55A0019833000E20030984107020218005BCD000001290D0A"
# A CL7206B2: tests of a public library for it; the last is a command of the same library, sent to a real one.
CL7206_INFO = "AA0100001B000101100011434C3732303642325F3230313730363036000160424A14"
CL7206_ABILITY = "AA0200000E0024040005000102030400020001527C"
CL7206_START = "AA02100002010171AD"
# Readers of the 5A kind: a web page for one (RS-232 and TCP), a smart cabinet, and the log of an ESP32 with one.
GX_TAG = "5A00011200002B000CE2801160600002094ED74AA6300001014B020003000CE2801160200062A6DAE9092908000E1A5A09645EFC"
GX_CABINET_TAG = "5A000112000029000C300833B2DDD90140000000003400020104020003000CE280110C2000774978240A8B08000DD9E634C1"
GX_ESP_TAG = "5A000112000018000CE2806915600002166510B33130000101FE08000DF732497B"
GX_STARTED = "5A0001021000010029B5"
GX_STOP = "5A000102FF0000885A"
GX_RESTART = "5A000101010000EBD5"
# What a store room's program sends to such a reader, there called "R2000, hopping", with 8 ports.
GX_START_8 = "5A000102100005000000FF01C449"
# Commands that a public program sends to a Nordic ID reader on a drone: start streaming, ping, fetch, clear.
NUR_STREAM = "A5060000005C3900000A14FA"
NUR_PING = "A5030000005901D1F1"
NUR_FETCH = "A5040000005E0701B994"
NUR_CLEAR = "A503000000590555B1"
# TSL: the log of a stock-taking program of a laboratory, and tags that an 1128 read, in its inventory program.
TSL_ECHO = b"CS: .iv\r\n".hex()
TSL_NOTHING = b"ER: 005\r\n".hex()
TSL_OVER = b"OK:\r\n".hex()
TSL_BLANK = b"\n".hex()
TSL_LOG = b"CS: .iv\r\nEP: 000000000000000000001242\r\nRI: -61\r\nOK:\r\n\r\n"
TSL_1128 = b"EP: 41524E4C3030303030310000\r\nEP: 330DE29525C0210005F5F8F2\r\nOK:\r\n\r\n"


class Seen(NamedTuple):
    """What is to come of a frame."""

    family: str
    tag: TagRead | None = None
    note: str = ""
    ends: bool = False
    failure: str = ""
    lacks: int | None = None
    """Port without an antenna."""


def tag(epc: str, rssi_cdbm: int | None = None, antenna: int | None = None) -> TagRead:
    return TagRead(bytes.fromhex(epc), rssi_cdbm=rssi_cdbm, antenna=antenna)


CAPTURED = {
    UHF288_WHO: Seen("uhfreader18", note="command 21 or the answer to it"),
    UHF288_READER: Seen("uhfreader18", note="command 21 or the answer to it"),
    UHF288_HOST: Seen("uhfreader18", note="the host's inventory command"),
    UHF288_NOTHING: Seen("uhfreader18", note="end of a round without tags", ends=True),
    UHF288_TAG: Seen("uhfreader18", tag("E20000194604005221003DFF", antenna=1)),
    UHF288_NO_ANTENNA: Seen("uhfreader18", ends=True, failure="no antenna is connected"),
    M100_ANTENNA: Seen("m100", tag("E200471551A064265CB7010B", -5100, 1)),
    M100_TAG: Seen("m100", tag("E200470F22D060130435E501", -6100)),
    M100_USER: Seen("m100", note="answer to command 39"),
    M100_NOTHING: Seen("m100", note="no tag answered"),
    M100_VERSION: Seen("m100", note="answer to command 03"),
    M6E_STARTS: Seen("thingmagic", note="it has started"),
    H103_SWEEP: Seen("chafon-cf", note="command 0001 or the answer to it"),
    H103_ROUNDS: Seen("chafon-cf", note="command 0001 or the answer to it"),
    H103_NOTHING: Seen("chafon-cf", note="end of a round", ends=True),
    H103_POWER_SET: Seen("chafon-cf", note="command 0053 or the answer to it"),
    H103_BAR_CODE: Seen("chafon-cf", note="a bar code of its 2D engine"),
    IND903_VERSION: Seen("r2000", note="command 72 or the answer to it"),
    R2000_PORT_SET: Seen("r2000", note="command 74 or the answer to it"),
    R2000_NO_ANTENNA: Seen("r2000", ends=True, failure="no antenna is connected"),
    R2000_TAG: Seen("r2000", tag("E2004074850A0103163070E1", -7500, 1)),
    R2000_FAST_TAG: Seen("r2000", tag("000000000000000000000825", -5300, 4)),
    R2000_PORT_LACKS: Seen(
        "r2000", note="port 2: no antenna is connected to one of the configured ports (code 22)", lacks=2
    ),
    R2000_HOST: Seen("r2000", note="the host's inventory command"),
    UR4_POWER: Seen("chainway", note="command 27 or the answer to it"),
    UR4_STOP: Seen("chainway", note="command 8C or the answer to it"),
    UM202_TAG: Seen("chainway", tag("E200001B66040082172034D5", -4400, 1)),
    CUTTER_TAG: Seen("chainway", tag("E280699500005014CCA73986", -4500, 1)),
    CABINET_TAG: Seen("chainway", tag("EFAC800000048400145A0100", -6790, 1)),
    HYM360_TAG: Seen("chainway", tag("E20030984107020218005BCD", None, 1)),
    CL7206_INFO: Seen("hopeland", note="command or answer 01 00"),
    CL7206_ABILITY: Seen("hopeland", note="command or answer 02 00"),
    CL7206_START: Seen("hopeland", note="command or answer 02 10"),
    GX_TAG: Seen("gx", tag("E2801160600002094ED74AA6", None, 1)),
    GX_CABINET_TAG: Seen("gx", tag("300833B2DDD9014000000000", None, 2)),
    GX_ESP_TAG: Seen("gx", tag("E2806915600002166510B331", None, 1)),
    GX_STARTED: Seen("gx", note="command accepted"),
    GX_STOP: Seen("gx", note="command or answer 02 FF"),
    GX_START_8: Seen("gx", note="command or answer 02 10"),
    GX_RESTART: Seen("gx", note="command or answer 01 01"),
    NUR_STREAM: Seen("nordicid", note="command 39 or the answer to it"),
    NUR_PING: Seen("nordicid", note="command 01 or the answer to it"),
    NUR_FETCH: Seen("nordicid", note="command 07 or the answer to it"),
    NUR_CLEAR: Seen("nordicid", note="command 05 or the answer to it"),
    TSL_ECHO: Seen("tsl", note="line CS"),
    TSL_NOTHING: Seen("tsl", note="no tag answered", ends=True),
    TSL_OVER: Seen("tsl", note="end of an answer", ends=True),
    TSL_BLANK: Seen("tsl", note="empty line"),
}


@pytest.mark.parametrize("raw", CAPTURED)
def test_a_captured_frame_says_what_it_says(raw: str) -> None:
    seen = CAPTURED[raw]
    probe, read = FAMILIES[seen.family]
    (piece,) = walk(bytes.fromhex(raw), probe, whole=True)
    assert piece.frame is not None, piece.reason
    content: Content = read(piece.frame)
    assert content.tags == ((seen.tag,) if seen.tag else ())
    assert content.ends == seen.ends
    assert content.unconnected == seen.lacks
    assert seen.failure in content.failure
    assert bool(content.failure) == bool(seen.failure)
    if seen.note:
        assert content.note == seen.note


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_a_family_in_one_stream_leave_nothing_out_but_failures(family: str) -> None:
    mine = {raw: seen for raw, seen in CAPTURED.items() if seen.family == family}
    done = decode(family, bytes.fromhex("".join(mine)))
    assert len(done.rows) == sum(seen.tag is not None for seen in mine.values())
    assert len(done.left_out) == sum(bool(seen.failure or seen.lacks) for seen in mine.values())


@pytest.mark.parametrize(
    ("record", "epc", "rssi_cdbm"),
    [
        (UR4_TID, "523742303030303539353538", -4930),
        (UR4_USER, "523742303030303539353536", -5630),
        (UR4_PHASE, "523742303030303539353538", -4890),
        (UR4_EPC, "523730303030303534373633", -5290),
    ],
)
def test_a_ur4_tells_antenna_and_strength_behind_whatever_else(record: str, epc: str, rssi_cdbm: int) -> None:
    found = chainway.read(chainway.Frame(chainway.TAG, bytes.fromhex(record)))
    assert found.tags == (tag(epc, rssi_cdbm, 1),)


def test_a_log_of_a_tsl_reader_is_read() -> None:
    done = decode("tsl", TSL_LOG + TSL_1128)
    assert [(row.epc, row.rssi_cdbm) for row in done.rows] == [
        ("000000000000000000001242", -6100),
        ("41524E4C3030303030310000", None),
        ("330DE29525C0210005F5F8F2", None),
    ]
    assert done.left_out == []


def test_what_metratecs_library_shows_of_a_round_is_read() -> None:
    """The only public lines, and nobody says that a reader sent them: 64-bit tags at the antenna behind a 12."""
    done = decode("metratec", b"E0040150954F02B1\rE200600311753E33\rARP 12\rIVF 02\r")
    assert [(row.epc, row.antenna) for row in done.rows] == [("E0040150954F02B1", 13), ("E200600311753E33", 13)]


def test_a_hopeland_tag_is_as_long_as_a_real_reader_says() -> None:
    """What an ESP32 logged of a CL7206C2 begins so, with 19 bytes of data; nobody has published more."""
    told = hopeland_tag(Observation(0, 1, bytes(12), -5000))
    assert told.hex().startswith("aa12000013000c")


def test_an_epc_that_looks_like_a_bar_code_is_a_tag_if_an_antenna_saw_it() -> None:
    told = bytes.fromhex("02343930030D")
    for radio in ("FEC00100", "FE000000", "00000100", "00000001"):
        frame = cf.Frame(0, cf.INVENTORY, b"\0" + bytes.fromhex(radio) + bytes((len(told),)) + told)
        assert [each.epc for each in cf.read(frame).tags] == [told]


@pytest.mark.parametrize(
    "told",
    [b"\x02490\x03\r", b"\x02490\x03", b"\x02\x03", b"\x02" + b"https://shop.example/?p=17" * 5 + b"\x03\r\n", b"17\r"],
)
def test_bar_codes_of_any_length_are_no_tags(told: bytes) -> None:
    frame = cf.Frame(0, cf.INVENTORY, bytes(5) + bytes((len(told),)) + told)
    assert cf.read(frame) == Content(note="a bar code of its 2D engine")
    for pushed in (told, b"\1" + bytes((len(told),)) + told + b"\0"):
        assert uhf.read(uhf.Frame(0, uhf.ACTIVE, b"\0" + pushed)) == Content(note="a bar code of its 2D engine")


@pytest.mark.parametrize("told", [b"6901234567892", b"]Q1HELLO", b"\x02HELLO", "会员A".encode(), b"]C10106901\x1d1726"])
def test_text_without_an_end_is_a_bar_code_if_the_frame_says_nothing_of_the_signal(told: bytes) -> None:
    frame = cf.Frame(0, cf.INVENTORY, bytes(5) + bytes((len(told),)) + told)
    assert cf.read(frame) == Content(note="a bar code of its 2D engine")


@pytest.mark.parametrize("epc", ["4D454D424552303030303031", "363930313233343536373839"])
def test_an_epc_that_is_text_is_a_tag_where_an_antenna_or_a_list_says_so(epc: str) -> None:
    told = bytes.fromhex(epc)
    length = bytes((len(told),))
    assert uhf.read(uhf.Frame(0, uhf.ACTIVE, b"\0" + told)).tags == (TagRead(told),)
    heard = cf.read(cf.Frame(0, cf.INVENTORY, bytes.fromhex("00 FE0C 01 00") + length + told))
    assert [each.epc for each in heard.tags] == [told]


@pytest.mark.parametrize("kind", [m100.ANSWER, m100.NOTICE])
@pytest.mark.parametrize("command", [m100.POLL, m100.POLL_MANY])
@pytest.mark.parametrize("antenna", ["", "04"])
def test_an_m100_tells_tags_in_any_of_its_frames(kind: int, command: int, antenna: str) -> None:
    told = bytes.fromhex("CD 3400 E200471551A064265CB7010B B37D" + antenna)
    done = decode("m100", m100.encode(kind, command, told))
    assert [(row.epc, row.rssi_cdbm, row.antenna) for row in done.rows] == [
        ("E200471551A064265CB7010B", -5100, 4 if antenna else None)
    ]


@pytest.mark.parametrize("kind", [m100.ANSWER, m100.NOTICE])
def test_an_m100_says_with_or_without_its_antenna_that_no_tag_answered(kind: int) -> None:
    for data in (b"\x15", b"\x15\1"):
        assert m100.read(m100.Frame(kind, m100.ERROR, data)) == Content(note="no tag answered")
    assert not m100.read(m100.Frame(m100.ANSWER, m100.POLL_MANY, b"\0")).tags


@pytest.mark.parametrize(
    ("family", "frame"),
    [
        ("chafon-cf", cf.encode(0, cf.INVENTORY, b"\x14")),
        ("chafon-cf", cf.encode(0, cf.INVENTORY, b"\x15")),
        ("chafon-cf", cf.encode(0, cf.INVENTORY, b"\xff")),
        ("uhfreader18", uhf.encode(0, uhf.INVENTORY, bytes((uhf.TOO_WEAK,)))),
        ("r2000", r2000.encode(1, r2000.INVENTORY, bytes((r2000.NO_TAG,)))),
    ],
)
def test_a_round_in_which_no_tag_could_be_read_is_no_failure(family: str, frame: bytes) -> None:
    probe, read = FAMILIES[family]
    (piece,) = walk(frame, probe, whole=True)
    assert piece.frame is not None
    content: Content = read(piece.frame)
    assert (content.ends, content.failure, content.tags) == (True, "", ())


def test_a_tag_without_any_radio_fields_is_still_a_tag() -> None:
    epc = bytes.fromhex("E280691500004020ED9648B3")
    frame = cf.Frame(0, cf.INVENTORY, bytes(5) + bytes((len(epc),)) + epc)
    assert [each.epc for each in cf.read(frame).tags] == [epc]


def test_another_program_starts_eight_ports_with_the_same_bytes() -> None:
    assert hopeland.start(hopeland.FIVE_A, list(range(1, 9))).hex().upper() == GX_START_8


HOSTS = {
    "288M, Q 4, session by itself": ("uhfreader18", "04 FF"),
    "288M, Q 1, session 2": ("uhfreader18", "01 02"),
    "288M, Q 4, session 0": ("uhfreader18", "04 00"),
    "288M, Q 3, with TID": ("uhfreader18", "03 00 0006"),
    "288M, Q 2, mask of 16 bits in EPC": ("uhfreader18", "02 00 01 0020 10 E200"),
    "288M, mask, TID, target, antenna, time": ("uhfreader18", "04 01 01 0020 08 E2 0006 00 82 14"),
    "288M, target, antenna, time": ("uhfreader18", "04 00 00 80 03"),
    "18, TID from word 2": ("uhfreader18", "02 04"),
}


@pytest.mark.parametrize("data", HOSTS.values(), ids=HOSTS)
def test_what_hosts_say_is_told_from_answers(data: tuple[str, str]) -> None:
    frame = uhf.encode(0, uhf.INVENTORY, bytes.fromhex(data[1]))
    done = decode(data[0], frame + bytes.fromhex(UHF288_TAG))
    assert (len(done.rows), done.left_out) == (1, [])
    assert done.others["the host's inventory command"] == 1


# The same bytes in a session.


@pytest.mark.parametrize("name", CAPTURED_READERS)
async def test_captured_answers_make_a_session(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.5)
    expected = CAPTURED_READERS[name]
    ports = {port: 70 + port for port in expected.ports}
    sink = Collector()
    async with captured_reader(name) as address:
        running = open_session(
            ReaderSettings("gate", expected.driver, address, ports), sink, lambda: 1_800_000_000_000_000
        )
        task = asyncio.create_task(running.run())
        try:
            await sink.until(lambda: len(sink.all) > 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert sink.states[-1].link is Link.UP
    read = dict(zip([epc.hex().upper() for epc in sink.epcs], sink.all["antenna"].tolist(), strict=True))
    assert read[expected.epc] == 70 + expected.port
