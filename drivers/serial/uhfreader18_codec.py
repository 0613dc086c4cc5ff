"""UHFReader18 and UHFReader288M serial protocols (Chafon, RRU9809, CF-RU5102 and kin): frames, no I/O.

    host to reader                              reader to host
    ┌─────┬──────┬─────┬────────┬──────────┐    ┌─────┬──────┬─────┬────────┬────────┬──────────┐
    │ len │ addr │ cmd │ data … │ crc u16le│    │ len │ addr │ cmd │ status │ data … │ crc u16le│
    └─────┴──────┴─────┴────────┴──────────┘    └─────┴──────┴─────┴────────┴────────┴──────────┘
     0     1      2     3                        0     1      2     3        4

`len` counts what follows it; CRC-16/MCRF4XX of everything before it. There is no head: a frame may begin at any byte,
and only its checksum says that it did; one without a sense is taken for chance. Address FF is everyone's.

Data of answers to an inventory (01), by the reader's generation:

    18      tags u8 │ tags × (bytes u8 │ EPC)
    288M    antenna, a bit each │ tags u8 │ tags × (bytes u8 │ EPC │ rssi u8)      no known scale of dBm
    status  01 all told · 02 time is up · 03 more follows · 04 its memory is full · 26 statistics of the round

In active mode the reader sends EE by itself: status 00 │ EPC; newer ones antenna │ bytes u8 │ EPC │ rssi u8.
EPCs are whole words. With that, and one antenna a frame, data that fit 288M's form are of it: 18's never do.
"""

from __future__ import annotations

from typing import NamedTuple

from drivers.serial.checksums import crc16_mcrf4xx
from drivers.serial.tags import Content, MalformedRecordError, TagRead, is_bar_code, once, plain_epc, readable

EVERYONE = 0xFF

INVENTORY = 0x01
READER = 0x21
ACTIVE = 0xEE

OK = 0x00
DONE, TIME_UP, MORE, FULL, STATISTICS = 0x01, 0x02, 0x03, 0x04, 0x26
NO_ANTENNA = 0xF8
NO_TAG, TOO_WEAK = 0xFB, 0xFA
NOT_UNDERSTOOD = (0xFD, 0xFE, 0xFF)
_BYTES_MIN = 4
_FIRST_PORT = 0x80
_SESSIONS = (0, 1, 2, 3, 0xFF)
_MASK_FIXED, _MEMORY_MAX = 4, 3
READER_BYTES_288 = 12
"""Data bytes of a 288M's answer to READER; an 18's has eight."""

_OVER = {
    NO_TAG: "no tag answered",
    TOO_WEAK: "a tag answered too weakly",
    STATISTICS: "statistics of the round",
}
"""Rounds that end without a tag though the reader is well."""
_STATUS = {
    0xF8: "no antenna is connected to a port, or it is damaged",
    0xF9: "the command failed",
    0xFD: "the command's length is wrong",
    0xFE: "it does not know the command or it came broken",
    0xFF: "a parameter is invalid",
}


class Frame(NamedTuple):
    """Frame of either direction; `data` of an answer begins with its status."""

    address: int
    command: int
    data: bytes


def encode(address: int, command: int, data: bytes = b"") -> bytes:
    """Encode a frame, to or from the reader."""
    body = bytes((len(data) + 4, address, command)) + data
    return body + crc16_mcrf4xx(body).to_bytes(2, "little")


def inventory(address: int, port: int | None, scan_ms: int = 300) -> bytes:
    """Encode the command for one round: of an 18, or of a 288M on `port` (from 1) for `scan_ms`, session 0, Q 4."""
    if port is None:
        return encode(address, INVENTORY)
    return encode(address, INVENTORY, bytes((4, 0, 0, _FIRST_PORT + port - 1, scan_ms // 100)))


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe."""
    if buffer[at] < _BYTES_MIN:
        return ""
    size = buffer[at] + 1
    raw = buffer[at : at + size]
    if len(raw) < size:
        return None
    if crc16_mcrf4xx(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        return ""
    frame = Frame(raw[1], raw[2], raw[3:-2])
    return readable(frame, size, read)


@once
def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError if it has no known shape."""
    if frame.command not in (INVENTORY, ACTIVE) or not frame.data:
        return Content(note=f"command {frame.command:02X} or the answer to it")
    status, data = frame.data[0], frame.data[1:]
    if frame.command == ACTIVE:
        if is_bar_code(data) or (len(data) > 3 and data[1] == len(data) - 3 and is_bar_code(data[2:-1])):
            return Content(note="a bar code of its 2D engine")
        return Content(tags=(_active(data),)) if status == OK else Content(note=f"status {status:02X}")
    if status in (DONE, TIME_UP, MORE, FULL):
        if status in (MORE, FULL) and data in (b"", b"\0"):
            return Content(note="the host's inventory command")  # an answer of more tags than one has tags
        try:
            tags = _tags(data) if data else ()
        except MalformedRecordError:
            if _by_host(data):
                return Content(note="the host's inventory command")
            raise
        return Content(tags=tags, ends=status != MORE, note="" if tags else "end of a round without tags")
    if status in _OVER:
        return Content(ends=True, note=_OVER[status])
    if status < 0xF0:
        return Content(note="the host's inventory command")
    return Content(ends=True, failure=why(status))


def why(status: int) -> str:
    """Return a reader's status as text for store IT."""
    return f"{_STATUS[status]} (status {status:02X})" if status in _STATUS else f"status {status:02X}"


def _tags(data: bytes) -> tuple[TagRead, ...]:
    antenna = _antenna(data[0])
    tags = _list(data[1:], antenna, 1) if antenna else None
    if tags is None:
        tags = _list(data, None, 0)
    if tags is None:
        tags = _list(data[1:], None, 1)
    if tags is None:
        raise MalformedRecordError(f"{len(data)} bytes are no list of tags")
    return tags


def _list(data: bytes, antenna: int | None, behind: int) -> tuple[TagRead, ...] | None:
    """Decode tags counted by the first byte, each with `behind` bytes after its EPC; None unless that uses all data."""
    if not data:
        return None
    tags = []
    at = 1
    for _ in range(data[0]):
        size = data[at] if at < len(data) else 0
        epc = data[at + 1 : at + 1 + size]
        at += 1 + size + behind
        if at > len(data):
            return None
        try:
            tags.append(TagRead(plain_epc(epc), antenna=antenna))
        except MalformedRecordError:
            return None
    return tuple(tags) if at == len(data) else None


def _active(data: bytes) -> TagRead:
    # The length of a whole EPC is even, so its second byte can't be taken for the length of another form.
    if len(data) > 3 and data[1] == len(data) - 3 and data[1] % 2 == 0:
        return TagRead(plain_epc(data[2:-1]), antenna=_antenna(data[0]))
    return TagRead(plain_epc(data))


def _by_host(data: bytes) -> bool:
    """True for what follows Q in a host's command to a 288M, or the TID's address in that to an 18: no list of tags.

    Session (one byte, alone enough) │ [mask: memory u8, bit u16, bits u8, bytes] │ [TID: word u8, words u8] │
    [target u8, antenna u8, scan time u8]
    """
    if len(data) == 1:
        return True
    if data[0] not in _SESSIONS:
        return False
    rest = data[1:]
    if len(rest) >= _MASK_FIXED and 1 <= rest[0] <= _MEMORY_MAX:
        rest = rest[_MASK_FIXED + (rest[3] + 7) // 8 :]
    return len(rest) in (0, 2) or (len(rest) in (3, 5) and rest[-3] <= 1 and rest[-2] >= _FIRST_PORT)


def _antenna(mask: int) -> int | None:
    """Return the single antenna of a mask; None if it has none or several."""
    return mask.bit_length() if mask and not mask & mask - 1 else None
