"""Nordic ID's NUR protocol (Sampo, Stix, AR and NUR modules): frames, no I/O.

    ┌────┬─────────┬───────────┬──────┬─────┬──────────────┬─────────┐
    │ A5 │ len u16 │ flags u16 │ head │ cmd │ (len-3) × u8 │ crc u16 │      both ways; an answer's data begin with its
    └────┴─────────┴───────────┴──────┴─────┴──────────────┴─────────┘      status, 0 if all is well
     0    1         3           5      6     7

`len` counts cmd to crc; `head` is FF xor all before it; `crc` is CRC-16/IBM-3740 of cmd and data. Little-endian.
`flags`: 1 the reader speaks unasked · 2 tags carry memory · 4 it wants command 02 back.

A round (31) answers with how many tags it has stored; 07 fetches them and, with 01, clears the store:

    tag   bytes u8 │ rssi i8 │ rssi % u8 │ ms u16 │ kHz u32 │ [bytes of memory u8] │ PC u16 │ channel u8 │ antenna u8
          │ EPC │ [memory]                                                            antennas count from 0
"""

from __future__ import annotations

from typing import NamedTuple

from drivers.serial.checksums import crc16_ibm_3740
from drivers.serial.tags import PC_XPC, XPC_W2, Content, MalformedRecordError, TagRead, plain_epc

HEAD = 0xA5
UNASKED, MEMORY, WANTS_ACK = 1, 2, 4
"""Flags."""

PING = 0x01
ACK = 0x02
FETCH = 0x07
READER_INFO = 0x09
STOP = 0x0E
SETUP = 0x22
INVENTORY = 0x31
BOOT = 0x80
"""Said unasked when it has started."""

OK = 0x00
NO_TAG = 0x20
AIR = range(0x20, 0x30)
"""Statuses of a round that the tags or the air are to blame for."""

SETUP_MASK_8 = 1 << 8
SETUP_ANTENNA = 1 << 11
SETUP_MASK_32 = 1 << 25
"""Members of the setup, in the order in which their values follow the flags."""
ANY_ANTENNA = 0xFF

_HEADER_BYTES = 6
_PAYLOAD_MIN = 3
_RECORD_BYTES = 12
_STATUSES = {
    0x01: "it does not know the command",
    0x05: "it refuses a parameter",
    0x0D: "it is not ready",
}


class Frame(NamedTuple):
    """Frame of either direction."""

    command: int
    data: bytes
    flags: int = 0


def encode(frame: Frame) -> bytes:
    """Encode a frame, to or from the reader."""
    body = bytes((frame.command,)) + frame.data
    header = bytes((HEAD,)) + (len(body) + 2).to_bytes(2, "little") + frame.flags.to_bytes(2, "little")
    return header + bytes((_sum(header),)) + body + crc16_ibm_3740(body).to_bytes(2, "little")


def fetch(clear: bool = True) -> bytes:
    """Encode the command to fetch the stored tags."""
    return encode(Frame(FETCH, bytes((clear,))))


def antennas(ports: list[int], wide: bool) -> bytes:
    """Encode the command to switch between `ports` (from 1); old readers have no `wide` masks."""
    mask = sum(1 << port - 1 for port in ports)
    if wide:
        data = (
            (SETUP_ANTENNA | SETUP_MASK_32).to_bytes(4, "little") + bytes((ANY_ANTENNA,)) + mask.to_bytes(4, "little")
        )
    else:
        data = (SETUP_MASK_8 | SETUP_ANTENNA).to_bytes(4, "little") + bytes((mask & 0xFF, ANY_ANTENNA))
    return encode(Frame(SETUP, data))


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe."""
    if buffer[at] != HEAD:
        return ""
    header = buffer[at : at + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES:
        return None
    if header[5] != _sum(header[:5]):
        return f"bad checksum of the header {header[5]:02X}, should be {_sum(header[:5]):02X}"
    length = int.from_bytes(header[1:3], "little")
    if length < _PAYLOAD_MIN:
        return f"a frame can't have {length} bytes behind its header"
    body = buffer[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
    if len(body) < length:
        return None
    told = int.from_bytes(body[-2:], "little")
    if (expected := crc16_ibm_3740(body[:-2])) != told:
        return f"bad checksum {told:04X}, should be {expected:04X}"
    frame = Frame(body[0], body[1:-2], int.from_bytes(header[3:5], "little"))
    return frame, _HEADER_BYTES + length


def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError for an inconsistent tag record."""
    command, data = frame.command, frame.data
    if frame.flags & UNASKED:
        return Content(note="it has started" if command == BOOT else f"message {command:02X}")
    if command == INVENTORY and len(data) == 1:
        if data[0] == OK or data[0] in AIR:
            return Content(ends=True, note="no tag answered")
        return Content(ends=True, failure=f"{_STATUSES.get(data[0], 'its round failed')} (status {data[0]:02X})")
    if command == FETCH and data and data[0] in (OK, NO_TAG):
        return Content(tags=_tags(data[1:], bool(frame.flags & MEMORY)), ends=True, note="no tag is stored")
    return Content(note=f"command {command:02X} or the answer to it")


def reply(frame: Frame) -> bytes:
    """Return what the reader wants back for a frame; empty for most."""
    return encode(Frame(ACK, b"")) if frame.flags & UNASKED and frame.flags & WANTS_ACK else b""


def stored(frame: Frame) -> int | None:
    """Return the number of tags stored if this answers a round that was no failure."""
    if frame.command != INVENTORY or frame.flags & UNASKED or frame.data[:1] != bytes((OK,)) or len(frame.data) < 5:
        return None
    return int.from_bytes(frame.data[3:5], "little")


def reader_info(data: bytes) -> dict[str, str]:
    """Decode the answer to READER_INFO behind its status: texts with their lengths first, then version and counts."""
    at = 4 if data[:4] == b"\x01IDR" else 0  # the oldest have no version and no second serial number
    names = ("serial", "", "model", "", "hardware") if at else ("serial", "model", "", "hardware")
    told = {}
    for name in names:
        end = at + 1 + (data[at] if at < len(data) else 0)
        if name and (text := data[at + 1 : end].decode("ascii", "replace").strip("\0 ")):
            told[name] = text
        at = end
    if len(data) >= at + 7:
        version = data[at : at + 3]
        told |= {"firmware": f"{version[0]}.{version[1]}-{chr(version[2])}", "ports": str(data[at + 6])}
    return told


def _tags(data: bytes, memory: bool) -> tuple[TagRead, ...]:
    tags = []
    at = 0
    overhead = _RECORD_BYTES + memory
    while at < len(data) and data[at]:
        block = data[at + 1 : at + 1 + data[at]]
        if len(block) < data[at] or len(block) < overhead:
            raise MalformedRecordError(f"a tag of {data[at]} bytes does not fit into {len(data) - at - 1}")
        more = block[8] if memory else 0
        pc_at = 8 + memory
        pc, antenna = int.from_bytes(block[pc_at : pc_at + 2], "little"), block[pc_at + 3]
        if more > len(block) - overhead:
            raise MalformedRecordError(f"{more} bytes of memory do not fit into a tag of {len(block)}")
        epc = block[overhead : len(block) - more]
        if pc & PC_XPC:
            epc = epc[4 if int.from_bytes(epc[:2]) & XPC_W2 else 2 :]
        rssi = int.from_bytes(block[:1], signed=True)
        tags.append(TagRead(plain_epc(epc), rssi_cdbm=100 * rssi, antenna=antenna + 1 if antenna < 0xFF else None))
        at += 1 + len(block)
    return tuple(tags)


def _sum(header: bytes) -> int:
    value = 0xFF
    for byte in header:
        value ^= byte
    return value
