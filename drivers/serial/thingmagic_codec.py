"""ThingMagic/JADAK Mercury serial protocol (M6e, Nano, M7e; Silion's modules share the framing): frames, no I/O.

    host to reader                                   reader to host
    ┌────┬─────┬────┬─────────┬─────────┐            ┌────┬─────┬────┬────────┬─────────┬─────────┐
    │ FF │ len │ op │ len × u8│ crc u16 │            │ FF │ len │ op │ status │ len × u8│ crc u16 │
    └────┴─────┴────┴─────────┴─────────┘            └────┴─────┴────┴────────┴─────────┴─────────┘
     0    1     2    3                                0    1     2    3  u16   5

The CRC covers everything between FF and itself. All numbers are big-endian.

Data of a reply to op 22 (read multiple), which continuous reading streams:

    option u8 │ search flags u16 │ [option & 10: metadata flags u16] │ type u8: 1 tag, 2 status, 0 end
    tag: fields in this order, each present if its metadata flag is set
      0001 count u8          0002 RSSI i8 dBm        0004 antenna: tx u4, rx u4; 0 means 16
      0008 kHz u24           0010 ms u32             0020 phase u16
      0040 protocol u8       0080 bits u16, bytes    0100 GPIO u8
      0200 Q u8              0400 link frequency u8  0800 target u8      1000 brand u16
    then bits u16 (of all that follows) │ PC u16 │ XPC words │ EPC │ the tag's own CRC u16
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import partial
from typing import NamedTuple

from drivers.read import EPC_BITS_MAX
from drivers.serial.framing import scan
from drivers.serial.tags import PC_XPC, XPC_W2, Content, MalformedRecordError, TagRead

HEADER = 0xFF
REPLY_OVERHEAD = 7
COMMAND_OVERHEAD = 5

OP_VERSION = 0x03
OP_BOOT = 0x04
"""Sent unasked after booting, with the data of OP_VERSION's answer."""
OP_SET_BAUD = 0x06
OP_READ_MULTIPLE = 0x22
OP_CONTINUOUS = 0x2F
OP_GET_REGION = 0x67
OP_ANTENNAS = 0x91
OP_READ_POWER = 0x92
OP_PROTOCOL = 0x93
OP_REGION = 0x97
OP_OPTION = 0x9A

STATUS_OK = 0x0000
STATUS_NO_TAGS = 0x0400
"""With op 22 and no data: the keepalive of a reader that sees nothing, about once a second."""

COUNT = 0x0001
RSSI = 0x0002
ANTENNA = 0x0004
TIMESTAMP = 0x0010
DATA = 0x0080
METADATA = COUNT | RSSI | ANTENNA | TIMESTAMP
"""Metadata requested by a session: all that a READ row can hold, and no byte more on a slow line."""

# (flag, bytes) in the order of the wire; DATA is variable: its length in bits comes first.
_FIELDS = (
    (COUNT, 1),
    (RSSI, 1),
    (ANTENNA, 1),
    (0x0008, 3),
    (TIMESTAMP, 4),
    (0x0020, 2),
    (0x0040, 1),
    (DATA, 2),
    (0x0100, 1),
    (0x0200, 1),
    (0x0400, 1),
    (0x0800, 1),
    (0x1000, 2),
)
_KNOWN_FLAGS = 0x1FFF
_OPTION_METADATA = 0x10
_BUFFER_FULL = 0x0601
_REASONS = {
    0x0503: "no antenna is connected to one of the configured ports",
    0x0504: "it is too hot and has stopped reading",
    0x0505: "an antenna reflects too much power: check antenna and cable",
}

# The protocol shifts message bits into the bottom of the register and appends no zeros. That is crc_hqx without the
# last two bytes, xored with them, started at what FFFF becomes when 16 zero bits are shifted through it.
_CRC_START = crc_hqx(b"\xff\xff", 0)


class Reply(NamedTuple):
    """Frame from the reader."""

    op: int
    status: int
    data: bytes


class Command(NamedTuple):
    """Frame from the host."""

    op: int
    data: bytes


class StreamEnd(NamedTuple):
    """Notification that the reader has stopped searching."""


def crc(body: bytes) -> int:
    """Compute the protocol's checksum of at least two bytes, from the length byte to the last byte of data."""
    return crc_hqx(body[:-2], _CRC_START) ^ int.from_bytes(body[-2:])


def command(op: int, data: bytes = b"") -> bytes:
    """Encode a frame from host to reader."""
    body = bytes((len(data), op)) + data
    return b"\xff" + body + crc(body).to_bytes(2)


def reply_at(buffer: bytes, at: int) -> tuple[Reply, int] | str | None:
    """See framing.Probe."""
    if buffer[at] != HEADER:
        return ""
    if len(buffer) - at < 2:
        return None
    size = buffer[at + 1] + REPLY_OVERHEAD
    raw = buffer[at : at + size]
    if len(raw) < size:
        return None
    expected = crc(raw[1:-2])
    if expected != int.from_bytes(raw[-2:]):
        return f"bad checksum {raw[-2:].hex().upper()}, should be {expected:04X}"
    return Reply(raw[2], int.from_bytes(raw[3:5]), raw[5:-2]), size


scan_replies = partial(scan, probe=reply_at)
"""Find frames of a reader in a buffer."""


def either_at(buffer: bytes, at: int) -> tuple[Reply | Command, int] | str | None:
    """See framing.Probe: frames of both directions, for a tapped line."""
    found = reply_at(buffer, at)
    if isinstance(found, tuple) or found == "" or len(buffer) - at < 2:
        return found
    command = command_at(buffer, at)
    return command if isinstance(command, tuple) else found


def command_at(buffer: bytes, at: int) -> tuple[Command, int] | str | None:
    """See framing.Probe: frames of a host."""
    if buffer[at] != HEADER:
        return ""
    size = buffer[at + 1] + COMMAND_OVERHEAD if len(buffer) - at > 1 else COMMAND_OVERHEAD
    raw = buffer[at : at + size]
    if len(raw) < size:
        return None
    if crc(raw[1:-2]) != int.from_bytes(raw[-2:]):
        return "bad checksum"
    return Command(raw[2], raw[3:-2]), size


def read(reply: Reply | Command) -> Content:
    """Decode the content of a reply; MalformedRecordError for an inconsistent record."""
    if isinstance(reply, Command):
        return Content(note=f"the host's command {reply.op:02X}")
    if reply.op == OP_BOOT:
        return Content(note="it has started")
    if reply.op not in (OP_READ_MULTIPLE, OP_CONTINUOUS):
        return Content(note=f"answer to command {reply.op:02X}")
    if reply.status == _BUFFER_FULL:
        return Content(ends=True, note="its buffer is full")
    if reply.status == STATUS_NO_TAGS:
        return Content(note="keepalive: no tag")
    if reply.status != STATUS_OK:
        return Content(failure=why(reply.status))
    if reply.op == OP_CONTINUOUS:
        return Content(note="continuous reading started or stopped")
    record = read_record(reply.data)
    if isinstance(record, TagRead):
        return Content(tags=(record,))
    return Content(note="the reader's statistics") if record is None else Content(ends=True, note="end of the search")


def why(status: int) -> str:
    """Return a reader's status as text for store IT."""
    return f"{_REASONS[status]} (status {status:04X})" if status in _REASONS else f"status {status:04X}"


def read_record(data: bytes) -> TagRead | StreamEnd | None:
    """Decode the data of a reply to op 22 with status 0; None for the reader's own statistics."""
    kind_at = 5 if data and data[0] & _OPTION_METADATA else 3
    if len(data) <= kind_at:
        raise MalformedRecordError(f"{len(data)} bytes are too few for a record")
    kind = data[kind_at]
    if kind == 0:
        return StreamEnd()
    if kind == 2:
        return None
    if kind != 1:
        raise MalformedRecordError(f"record type {kind} is unknown")
    flags = int.from_bytes(data[3:5]) if kind_at == 5 else 0
    if flags & ~_KNOWN_FLAGS:
        raise MalformedRecordError(f"metadata flags {flags:04x} are unknown, so nothing behind them can be found")
    values, at = _metadata(data, kind_at + 1, flags)
    antenna = values.get(ANTENNA)
    rssi = values.get(RSSI)
    return TagRead(
        epc=_epc(data, at),
        seen=values.get(COUNT),
        rssi_cdbm=None if rssi is None else 100 * (rssi - 256 if rssi > 127 else rssi),
        antenna=None if antenna is None else antenna >> 4 or 16,
        time_ms=values.get(TIMESTAMP),
    )


def _metadata(data: bytes, at: int, flags: int) -> tuple[dict[int, int], int]:
    """Return the unsigned values of the fields present, and where they end."""
    values: dict[int, int] = {}
    for flag, size in _FIELDS:
        if flags & flag:
            values[flag] = int.from_bytes(data[at : at + size])
            at += size
            if flag == DATA:
                at += (values[flag] + 7) // 8
    return values, at


def _epc(data: bytes, at: int) -> bytes:
    """Return the EPC of the block of PC, XPC, EPC and CRC whose length is at `at`."""
    bits = int.from_bytes(data[at : at + 2])
    block = data[at + 2 : at + 2 + bits // 8]
    if at + 2 > len(data) or len(block) < bits // 8 or bits % 8:
        raise MalformedRecordError(f"EPC block of {bits} bits does not fit in the record")
    start = 2
    if int.from_bytes(block[:2]) & PC_XPC:
        start = 6 if int.from_bytes(block[2:4]) & XPC_W2 else 4
    epc = block[start:-2]
    if len(block) < start + 2 or not epc or len(epc) * 8 > EPC_BITS_MAX:
        raise MalformedRecordError(f"EPC block of {bits} bits holds no EPC of 1 to {EPC_BITS_MAX} bits")
    return epc
