"""Bytes of real LLRP readers, and what becomes of them: our simulator shares our assumptions, these don't.

EdgeX: github.com/edgexfoundry/device-rfid-llrp-go, pkg/llrp/testdata (Apache-2.0). LTK: github.com/opencps/llrp-toolkit
LTK/Tests/dx101/dx101_a.bin (Apache-2.0). Bodies are without the message's header, as EdgeX has them.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
from llrp_peers import Obedient, forever, now_us, peer, session

from drivers.llrp import codec
from drivers.llrp.decoder import ReportDecoder
from drivers.llrp.events import why_ended
from drivers.read import epc_bytes
from drivers.session import Link
from simulators.readers.llrp_replies import CAPTURED_IDENTITIES

R420_CAPABILITIES = bytes.fromhex(
    "011f00080000000000890198000440000000651a001e886a000a352e31342e302e323430008b000800010000008b00080002000a008b0008"
    "0003000b008b00080004000c008b00080005000d008b00080006000e008b00080007000f008b000800080010008b000800090011008b0008"
    "000a0012008b0008000b0013008b0008000c0014008b0008000d0015008b0008000e0016008b0008000f0017008b000800100018008b0008"
    "00110019008b00080012001a008b00080013001b008b00080014001c008b00080015001d008b00080016001e008b00080017001f008b0008"
    "00180020008b000800190021008b0008001a0022008b0008001b0023008b0008001c0024008b0008001d0025008b0008001e0026008b0008"
    "001f0027008b000800200028008b000800210029008b00080022002a008b00080023002b008b00080024002c008b00080025002d008b0008"
    "0026002e008b00080027002f008b000800280030008b000800290031008b0008002a0032008d000800040004008c00090001000101008c00"
    "090002000101008c00090003000101008c00090004000101008e001c48010000000000010000002000000001000005e400000008008f04ad"
    "03480001009004a500910008000103e80091000800020401009100080003041a0091000800040433009100080005044c0091000800060465"
    "009100080007047e009100080008049700910008000904b000910008000a04c900910008000b04e200910008000c04fb00910008000d0514"
    "00910008000e052d00910008000f0546009100080010055f0091000800110578009100080012059100910008001305aa00910008001405c3"
    "00910008001505dc00910008001605f5009100080017060e0091000800180627009100080019064000910008001a065900910008001b0672"
    "00910008001c068b00910008001d06a400910008001e06bd00910008001f06d600910008002006ef00910008002107080091000800220721"
    "009100080023073a0091000800240753009100080025076c0091000800260785009100080027079e00910008002807b700910008002907d0"
    "00910008002a07e900910008002b080200910008002c081b00910008002d083400910008002e084d00910008002f0866009100080030087f"
    "009100080031089800910008003208b100910008003308ca00910008003408e300910008003508fc0091000800360915009100080037092e"
    "0091000800380947009100080039096000910008003a097900910008003b099200910008003c09ab00910008003d09c400910008003e09dd"
    "00910008003f09f60091000800400a0f0091000800410a280091000800420a410091000800430a5a0091000800440a730091000800450a8c"
    "0091000800460aa50091000800470abe0091000800480ad70091000800490af000910008004a0b0900910008004b0b2200910008004c0b3b"
    "00910008004d0b5400910008004e0b6d00910008004f0b860091000800500b9f0091000800510bb8009200d580009300d001000032000ddf"
    "c2000ddbda000e2036000de792000de59e000e241e000e00f6000dd022000e2612000e0ea2000e1e42000e06d2000e1c4e000dfb1a000e08"
    "c6000def62000e222a000dfd0e000e04de000df34a000de1b6000dff02000dddce000dc65e000e1096000df156000df926000e1866000dcc"
    "3a000dca46000dc852000dd9e6000df732000e1a5a000ded6e000e02ea000deb7a000de3aa000e128a000dd216000dd5fe000e0cae000e16"
    "72000dd40a000df53e000de986000e0aba000dd7f2000e147e000dce2e014801440149002000000000800002020009c400000005dc000018"
    "6a0000186a000000000149002000000001800102020009c400000005dc0000186a0000186a0000000001490020000000028002000300042e"
    "50000007d000004e2000004e200000000001490020000000038003000300029a68000007d000004e2000004e200000000001490020000000"
    "04800200020009c400000005dc00001be400001be40000000001490020000003e80000000000009c40000005dc0000186a0000186a000000"
    "0001490020000003ea0000000000009c40000005dc0000186a0000186a0000000001490020000003eb0000000000009c40000005dc000018"
    "6a0000186a0000000001490020000003ec0000000000009c40000005dc0000186a0000186a0000000001490020000003ed0000000000009c"
    "40000005dc0000186a0000186a0000000001470007400002"
)
"""Impinj Speedway R420, firmware 5.14. EdgeX, GetReaderCapabilitiesResponse-000."""

R420_CONFIGURATION = bytes.fromhex(
    "011f00080000000000da000f000008001625ffff1125d600dd0009800001000000dd0009000002000000dd0009000003000000dd00090000"
    "04000000de002e000100df0006000100e0000a000100000051014a001800014f000803e800000150000b4000200000000000de002e000200"
    "df0006000100e0000a000100000051014a001800014f000803e800000150000b4000200000000000de002e000300df0006000100e0000a00"
    "0100000051014a001800014f000803e800000150000b4000200000000000de002e000400df0006000100e0000a000100000051014a001800"
    "014f000803e800000150000b4000200000000000f4004300f5000700000000f5000700010000f5000700020000f5000700030000f5000700"
    "048000f5000700050000f5000700060000f5000700070000f5000700088000ed001202000100ee000b1600015c00050000ef00050100d900"
    "087aa9afe600dc0009000000000000e100080001000000e100080002000000e100080003000000e100080004000000db000700010000db00"
    "0700020000db000700030000db000700040000e2000500"
)
"""The same reader, SpeedwayR-11-25-D6. EdgeX, GetReaderConfigResponse-000."""

R420_REPORT = bytes.fromhex("00f0001f8d3000abcdef0000000000000381000186d0820005a9e4bef862e0")
"""EdgeX, ROAccessReport-001."""

R420_CLOSES = bytes.fromhex("00f600140080000c0005ac35bd20d1da01010004")
"""EdgeX, ReaderEventNotification-000: a ConnectionCloseEvent."""


R1000_IDENTITY = bytes.fromhex("011f00080000000000da000f000008001625ffff000212")
"""Impinj Speedway R1000, firmware 2.5: how its configuration begins. LTK."""

R1000_STARTS_ROSPEC = bytes.fromhex("043f000000270000000000f6001d0080000c00042b1928b900f700f9000d000000000100000000")
"""Whole message: its ROSpec 1 begins. LTK."""

R1000_REPORT = bytes.fromhex(
    "00f000448d300833b2ddd9cafebabe801e89000000018e00018a000181000286d18700278200042b1928ba31838400042b192c4c4ab38802"
    "e48c30008b315c90000004d2"
)
"""The first of 64 tags in a report that it gathered for a minute. LTK."""
FX9500_IDENTITY = bytes.fromhex("011f00080000000000da000f000008c47dccffff31846600dd0009800001ff1000dd0009800002ff10")
"""Zebra FX9500, firmware 1.6.5: Identification and two AntennaProperties, put together from the fields that are printed
in github.com/sllurp/sllurp/issues/115."""
R420_IDENTITY = bytes.fromhex("011f00080000000000da000f000008001625ffff10ba4700dd0009800001000000dd0009000002000000")
"""Another Speedway, two ports: how its configuration begins. github.com/sllurp/sllurp, tests (GPL-3.0)."""
XPORTAL_GREETING = bytes.fromhex("043f000000205ff5d6a300f600160080000c00054f296b53fa4b010000060000")
"""Impinj xPortal, firmware 5.4. github.com/sllurp/sllurp/issues/56."""
FR900_GREETING = bytes.fromhex("043f00000020000000000 0f600160080000c00063e90aab9cce0010000060000".replace(" ", ""))
"""Bluebird FR900, from a packet capture in a public script, as the report below."""
FR900_REPORT = bytes.fromhex(
    "043d0000003a0000000000f0003000f10016008085047000049050503155303400702300810001"
    "86b78c440003ff000e00005e95000000380016"
)
FX9600_EMPTY_REPORT = bytes.fromhex("043d0000000a00000000")
"""Zebra FX9600. github.com/sllurp/sllurp/issues/115."""


class Body:
    """An answer as it was captured, for any message id."""

    def __init__(self, kind: int, body: bytes) -> None:
        self._kind, self._body = kind, body

    def to_bytes(self, message_id: int) -> bytes:
        return struct.pack("!HII", 1 << 10 | self._kind, 10 + len(self._body), message_id) + self._body


def answer(kind: int, body: bytes) -> codec.Message:
    return codec.decode(Body(kind, body).to_bytes(1))


def reads_of(message: bytes) -> list[tuple[int, str, int, int]]:
    """Antenna, EPC, RSSI and count of each read in a message."""
    decoded = ReportDecoder({port: port for port in range(1, 5)}).decode(
        np.frombuffer(bytearray(message), np.uint8), 0, len(message)
    )
    return [
        (int(r["antenna"]), epc_bytes(r["epc"], int(r["epc_bits"])).hex(), int(r["rssi_cdbm"]), int(r["count"]))
        for r in decoded.reads
    ]


def test_capabilities() -> None:
    assert codec.capabilities_of(answer(11, R420_CAPABILITIES)) == codec.Capabilities(
        maker=25882,
        model=2001002,
        firmware="5.14.0.240",
        antennas=4,
        can_hold=True,
        can_warn=True,
        rospecs=1,
        specs_a_rospec=32,
        select_filters=2,
        powers={index: 975 + 25 * index for index in range(1, 82)},
        modes={0: 640_000, 1: 320_000, 2: 68_500, 3: 21_325, 4: 160_000}
        | dict.fromkeys((1000, 1002, 1003, 1004, 1005), 40_000),
        hop_table=1,
    )


@pytest.mark.parametrize(
    ("configuration", "identity", "label"),
    [
        (R420_CONFIGURATION, "001625FFFF1125D6", "00:16:25:11:25:D6"),
        (R420_IDENTITY, "001625FFFF10BA47", "00:16:25:10:BA:47"),
        (R1000_IDENTITY, "001625FFFF000212", "00:16:25:00:02:12"),
        (FX9500_IDENTITY, "C47DCCFFFF318466", "C4:7D:CC:31:84:66"),
    ],
)
def test_identities_are_the_macs_on_the_labels(configuration: bytes, identity: str, label: str) -> None:
    told = codec.identity_of(answer(12, configuration))
    assert told == identity
    for written in (label, label.lower(), label.replace(":", "-"), identity, identity.replace("FFFF", "FFFE", 1)):
        assert codec.plain(written) == codec.plain(told)
    assert codec.shown(told) == f"{identity} (MAC {label})"
    assert codec.shown(label) == label


def test_a_mac_may_have_zeros_in_front_to_fill_its_eight_bytes() -> None:
    assert codec.plain("000084248DEE1234") == codec.plain("84:24:8d:ee:12:34")
    assert codec.plain("0000AAFFFEBBCCDD") == codec.plain("00:00:AA:BB:CC:DD")


def test_the_simulated_readers_tell_identities_of_that_form() -> None:
    for told in CAPTURED_IDENTITIES:
        assert told[3:5] == b"\xff\xff"


def test_greetings_and_the_last_word() -> None:
    for greeting in (XPORTAL_GREETING, FR900_GREETING):
        assert codec.event_of(codec.decode(greeting))["ConnectionAttemptEvent"]["Status"] == "Success"
    assert "ConnectionCloseEvent" in codec.event_of(answer(63, R420_CLOSES))


def test_a_rospec_that_begins_has_not_ended() -> None:
    event = codec.event_of(codec.decode(R1000_STARTS_ROSPEC))["ROSpecEvent"]
    assert event["ROSpecID"] == 1
    assert why_ended(event, 1) is None
    ends = R1000_STARTS_ROSPEC[:-9] + b"\1" + R1000_STARTS_ROSPEC[-8:]
    assert why_ended(codec.event_of(codec.decode(ends))["ROSpecEvent"], 1)
    assert why_ended(codec.event_of(codec.decode(ends))["ROSpecEvent"], 2) is None
    instead = R1000_STARTS_ROSPEC[:-9] + b"\2\0\0\0\1\0\0\0\7"
    assert "ROSpec 7" in (why_ended(codec.event_of(codec.decode(instead))["ROSpecEvent"], 1) or "")


def test_reports() -> None:
    assert reads_of(Body(61, R420_REPORT).to_bytes(1)) == [(1, "3000abcdef00000000000003", -4800, 1)]
    assert reads_of(Body(61, R1000_REPORT).to_bytes(1)) == [(2, "300833b2ddd9cafebabe801e", -4700, 740)]
    assert reads_of(FR900_REPORT) == [(1, "85047000049050503155303400702300", -7300, 1)]
    assert reads_of(FX9600_EMPTY_REPORT) == []


ODD_CAPABILITIES = {
    "as it is": R420_CAPABILITIES,
    "padded": R420_CAPABILITIES + b"\0\0",
    "padded with a byte": R420_CAPABILITIES + b"\0",
    "a parameter behind it that says it is longer": R420_CAPABILITIES + b"\x03\xff\x00\x40\x00\x00",
    "a Custom shorter than its head": R420_CAPABILITIES + b"\x03\xff\x00\x08\x00\x00\x65\x1a",
    "a Custom shorter than its head in front": R420_CAPABILITIES[:8]
    + b"\x03\xff\x00\x06\x00\x00"
    + R420_CAPABILITIES[8:],
    "padding in the middle": R420_CAPABILITIES[:8] + b"\0\0\0" + R420_CAPABILITIES[8:],
    "a parameter that nobody knows": R420_CAPABILITIES[:8] + b"\x03\x20\x00\x05\xff" + R420_CAPABILITIES[8:],
    "cut within its last parameter": R420_CAPABILITIES[:-5],
}


@pytest.mark.parametrize("body", ODD_CAPABILITIES.values(), ids=ODD_CAPABILITIES)
def test_what_is_needed_of_odd_capabilities_is_read(body: bytes) -> None:
    can = codec.capabilities_of(answer(11, body))
    assert (can.maker, can.antennas, can.can_hold, can.rospecs) == (25882, 4, True, 1)


@pytest.mark.parametrize(
    "body",
    [
        *ODD_CAPABILITIES.values(),
        R420_CAPABILITIES[:8],
        R420_CAPABILITIES[:8] + b"\0\x89\0\x02",
        R420_CAPABILITIES[:20],
    ],
)
async def test_no_odd_byte_of_the_capabilities_keeps_a_reader_out(body: bytes) -> None:
    reader = recorded(capabilities=body)
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) > 0)
        assert sink.links == [Link.CONNECTING, Link.UP]


@pytest.mark.parametrize("identity", ["00:16:25:11:25:D6", "001625FFFF1125D6", "001625fffe1125d6", "0016251125D6"])
async def test_a_recorded_reader_takes_inventory_under_the_mac_of_its_label(identity: str) -> None:
    reader = recorded()
    async with peer(reader) as (port, _), session(port, identity=identity) as sink:
        await sink.until(lambda: len(sink.all) > 0)
        assert sink.statuses[-1].detail["identity"] == "001625FFFF1125D6"
        assert sink.statuses[-1].detail["profile"] == "impinj"
        assert set(sink.all["rssi_cdbm"]) == {-4800}


async def test_another_mac_is_told_with_both_as_labels_have_them() -> None:
    reader = recorded()
    async with peer(reader) as (port, _), session(port, identity="00:16:25:11:25:D7") as sink:
        reason = await sink.until_down()
    assert "is 001625FFFF1125D6 (MAC 00:16:25:11:25:D6), not 00:16:25:11:25:D7 as the store file says" in reason
    assert "ADD_ROSPEC" not in reader.asked


def recorded(capabilities: bytes = R420_CAPABILITIES, configuration: bytes = R420_CONFIGURATION) -> Obedient:
    """A reader that tells of itself what the R420 told, and goes on reporting one of its reads."""
    report = Body(61, R420_REPORT).to_bytes(1)
    return Obedient(
        at_us=now_us(),
        beside=lambda _, writer: forever(writer, report, 0.05),
        answers={"GET_READER_CAPABILITIES": Body(11, capabilities), "GET_READER_CONFIG": Body(12, configuration)},
    )
