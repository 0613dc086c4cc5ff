"""Protocols of Hopeland/CLOU readers (head AA) and of their relatives with head 5A: frames, no I/O.

    ┌────┬───────────────┬─────┬────┬────────────────────┬─────────┬──────────┬─────────┐
    │ AA │               │ ctl │ id │ [addr u8 if ctl&20]│ len u16 │ len × u8 │ crc u16 │      both ways
    │ 5A │ type 00 │ v 01│     │    │                    │         │          │         │
    └────┴───────────────┴─────┴────┴────────────────────┴─────────┴──────────┴─────────┘

`ctl`: 10 the reader speaks unasked · 20 the line is RS-485 · lower half: 0 error, 1 reader, 2 radio. The checksum is of
all between head and itself: CRC-16/UMTS behind AA, CRC-16/XMODEM behind 5A. Big-endian. With ctl and id in hex:

    tag (12 00)        EPC bytes u16 │ EPC │ PC u16 │ antenna u8 │ parameters: number u8, value
    end (12 01)        0 done · 1 stopped · 2 its hardware failed
    start (02 10)      antennas, a bit each: u8 behind AA, u32 behind 5A │ 1 until stopped │ parameters; answer: 0 = yes
    stop (02 FF)       answer: 0
    alive (11 12)      number u32, to be sent back as 01 12, or the reader closes a network connection

A parameter is of fixed size, or its length comes first (u16). Its RSSI (1) has no known scale; one in dBm is 14 hex
behind 5A. A reader that stores tags numbers them (8 behind AA, 22 hex behind 5A) and wants each back as 01 1D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from drivers.serial.checksums import crc16_umts, crc16_xmodem
from drivers.serial.tags import PC_XPC, XPC_W2, Content, MalformedRecordError, TagRead, plain_epc

ERROR, READER, RADIO = 0, 1, 2
"""Kinds of messages."""
INFO, CONFIRM, TAG_CONFIRM = 0x00, 0x12, 0x1D
ABILITY, INVENTORY, STOP = 0x00, 0x10, 0xFF
TAG, OVER = 0x00, 0x01
"""Radio messages that the reader sends unasked."""
TAGS = (TAG, 0x20, 0x30)
"""With EPC, and with more of the tag's memory behind it."""
CONTINUOUS = 1
UNASKED, RS485 = 0x10, 0x20

DONE, STOPPED = 0, 1

_KIND_MAX = 5
_DATA_MAX = 2048
"""The AA protocol allows 1024; a wrong length must not hold back frames for long."""
_VARIABLE = -1
_DBM = range(-150, 21)

_START_REFUSED = {
    1: "it does not have the antennas in the store file",
    6: "it refuses a parameter",
}
_ERRORS = {
    1: "a checksum was wrong",
    2: "it does not know the command",
    4: "it can't do that now",
    5: "its list of commands is full",
    6: "parameters were missing",
    7: "the frame was too long",
}


@dataclass(frozen=True)
class Dialect:
    """What the two protocols do differently."""

    head: bytes
    crc: Callable[[bytes], int]
    mask_bytes: int
    """Size of the antennas' bits in the command to start."""
    sizes: Mapping[int, int]
    """Bytes of a tag's parameters by their numbers; _VARIABLE: the length comes first."""
    sequence: int
    """Parameter that numbers stored tags."""
    dbm: int | None
    """Parameter with the RSSI in dBm."""


_SHARED = {1: 1, 2: 1, 3: _VARIABLE, 4: _VARIABLE, 5: _VARIABLE, 6: 1, 7: 8}
AA = Dialect(b"\xaa", crc16_umts, 1, _SHARED | {8: 4, 9: 4, 10: 1, 11: 8, 12: _VARIABLE}, sequence=8, dbm=None)
FIVE_A = Dialect(
    b"\x5a\x00\x01",
    crc16_xmodem,
    4,
    _SHARED
    | {8: 4, 9: 1, 10: _VARIABLE, 0x11: 2, 0x12: 2, 0x13: 2, 0x14: 2, 0x15: 2, 0x20: _VARIABLE, 0x21: 4, 0x22: 4},
    sequence=0x22,
    dbm=0x14,
)


class Frame(NamedTuple):
    """Frame of either direction."""

    kind: int
    id: int
    data: bytes
    unasked: bool = False
    address: int | None = None
    dialect: Dialect = AA


def encode(frame: Frame) -> bytes:
    """Encode a frame, to or from the reader."""
    rs485 = frame.address is not None
    control = frame.kind | (UNASKED if frame.unasked else 0) | (RS485 if rs485 else 0)
    head = frame.dialect.head
    body = head[1:] + bytes((control, frame.id)) + (bytes((frame.address or 0,)) if rs485 else b"")
    body += len(frame.data).to_bytes(2) + frame.data
    return head[:1] + body + frame.dialect.crc(body).to_bytes(2)


def start(dialect: Dialect, ports: list[int]) -> bytes:
    """Encode the command to read on `ports` (from 1) until stopped."""
    mask = sum(1 << port - 1 for port in ports).to_bytes(dialect.mask_bytes)
    return encode(Frame(RADIO, INVENTORY, mask + bytes((CONTINUOUS,)), dialect=dialect))


def aa_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe: frames with head AA."""
    return _frame_at(AA, buffer, at)


def five_a_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe: frames with head 5A."""
    return _frame_at(FIVE_A, buffer, at)


def _frame_at(dialect: Dialect, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    head = dialect.head
    if buffer[at] != head[0]:
        return ""
    if not (buffer.startswith(head, at) or head.startswith(buffer[at : at + len(head)])):
        return "type or version of the protocol is unknown"
    behind = at + len(head)
    if len(buffer) <= behind:
        return None
    control = buffer[behind]
    if control & 0xC0 or control & 0x0F > _KIND_MAX:
        return f"kind {control:02X} is unknown"
    data_at = behind + (5 if control & RS485 else 4)
    if len(buffer) < data_at:
        return None
    length = int.from_bytes(buffer[data_at - 2 : data_at])
    if length > _DATA_MAX:
        return f"a frame can't have {length} bytes of data"
    end = data_at + length
    checksum = buffer[end : end + 2]
    if len(checksum) < 2:
        return None
    if (expected := dialect.crc(buffer[at + 1 : end])) != int.from_bytes(checksum):
        return f"bad checksum {checksum.hex().upper()}, should be {expected:04X}"
    address = buffer[data_at - 3] if control & RS485 else None
    frame = Frame(control & 0x0F, buffer[behind + 1], buffer[data_at:end], bool(control & UNASKED), address, dialect)
    return frame, end + 2 - at


def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError for an inconsistent tag record."""
    kind, number, data = frame.kind, frame.id, frame.data
    if kind == ERROR:
        why = _ERRORS.get(data[0], f"error {data[0]}") if data else "an error"
        return Content(note=f"the reader reports: {why}")
    if kind == RADIO and frame.unasked and number in TAGS:
        return Content(tags=(_tag(frame)[0],))
    if kind == RADIO and frame.unasked and number == OVER:
        if data[:1] in (b"\0", b"\1"):
            return Content(ends=True, note="end of reading")
        return Content(ends=True, failure=f"its hardware failed (reason {data.hex() or 'none'})")
    if (kind, number, len(data)) == (RADIO, INVENTORY, 1):
        if data == b"\0":
            return Content(note="command accepted")
        return Content(ends=True, failure=f"{_START_REFUSED.get(data[0], 'it refuses to start')} (status {data[0]})")
    who = "message" if frame.unasked else "command or answer"
    return Content(note=f"{who} {kind | (UNASKED if frame.unasked else 0):02X} {number:02X}")


def reply(frame: Frame) -> bytes:
    """Return what the reader wants back for a frame; empty for most."""
    if not frame.unasked:
        return b""
    if (frame.kind, frame.id) == (READER, CONFIRM):
        return encode(Frame(READER, CONFIRM, frame.data, address=frame.address, dialect=frame.dialect))
    # Most readers number nothing: their tags aren't split a second time.
    if frame.kind == RADIO and frame.id in TAGS and frame.dialect.sequence in frame.data:
        try:
            sequence = _tag(frame)[1].get(frame.dialect.sequence)
        except MalformedRecordError:
            return b""
        if sequence is not None:
            return encode(Frame(READER, TAG_CONFIRM, sequence, address=frame.address, dialect=frame.dialect))
    return b""


def _tag(frame: Frame) -> tuple[TagRead, dict[int, bytes]]:
    """Decode a tag and its parameters."""
    data, dialect = frame.data, frame.dialect
    length = int.from_bytes(data[:2])
    end = 2 + length
    if len(data) < end + 3:
        raise MalformedRecordError(f"an EPC of {length} bytes does not fit into {len(data)}")
    pc, antenna = int.from_bytes(data[end : end + 2]), data[end + 2]
    epc = data[2:end]
    if pc & PC_XPC and len(epc) == 2 * (pc >> 11):  # unless the reader has taken the XPC words off already
        epc = epc[4 if int.from_bytes(epc[:2]) & XPC_W2 else 2 :]
    parameters = _parameters(data[end + 3 :], dialect.sizes)
    rssi = None
    if dialect.dbm is not None and (raw := parameters.get(dialect.dbm)) is not None:
        dbm = int.from_bytes(raw, signed=True)
        rssi = 100 * dbm if dbm in _DBM else None
    return TagRead(plain_epc(epc), rssi_cdbm=rssi, antenna=antenna or None), parameters


def _parameters(data: bytes, sizes: Mapping[int, int]) -> dict[int, bytes]:
    """Split parameters by their numbers; those behind one of unknown size are left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and (size := sizes.get(data[at])) is not None:
        number, at = data[at], at + 1
        if size == _VARIABLE:
            size, at = int.from_bytes(data[at : at + 2]), at + 2
        if at + size > len(data):
            raise MalformedRecordError(f"parameter {number:02X} does not fit into the frame")
        found[number] = data[at : at + size]
        at += size
    return found
