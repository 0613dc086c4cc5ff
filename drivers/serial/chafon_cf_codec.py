"""Chafon's newer serial protocol (CF6xx, M-200 and kin, head CF): frames, no I/O.

    ┌────┬──────┬─────────┬─────┬──────────┬─────────┐
    │ CF │ addr │ cmd u16 │ len │ len × u8 │ crc u16 │      both ways; an answer's first byte is its status
    └────┴──────┴─────────┴─────┴──────────┴─────────┘
     0    1      2         4     5

CRC-16/MCRF4XX of everything before it, high byte first, unlike in the makers' older protocol. Address FF is everyone's.
Big-endian.

    tag (0001)   status 00 │ rssi i16 in 0.1 dBm │ antenna u8 │ channel u8 │ EPC bytes u8 │ EPC
    end (0001)   status 12; 14 or 15 after a tag that could not be read, FF: no more

A 2D engine's bar codes come as tags that no antenna saw: strength, antenna and channel are 0.
"""

from __future__ import annotations

from typing import NamedTuple

from drivers.serial.checksums import crc16_mcrf4xx
from drivers.serial.tags import Content, MalformedRecordError, TagRead, is_bar_code, plain_epc

HEAD = 0xCF
EVERYONE = 0xFF

INVENTORY = 0x0001
STOP = 0x0002
DEVICE = 0x0070

OK = 0x00
INVENTORY_OVER = 0x12
_OVER = (INVENTORY_OVER, 0x14, 0x15, 0xFF)
"""A round that found nothing may also end with a tag that answered too late or not clearly, or with "no more"."""
_OVERHEAD = 7
_TAG_FIXED = 6
_COMMAND_BYTES = 5
_WAYS = (0, 1)
"""First byte of the inventory command: duration in seconds, or in rounds."""
_TENTHS_DBM = range(-2000, 501)
"""Possible signal strengths; others are rejected."""

_STATUS = {
    0x01: "a parameter is invalid",
    0x02: "its module failed",
    0x14: "the tag did not answer in time",
    0x15: "the tag's answer was unreadable",
    0x16: "access was refused",
    0x17: "the command does not exist",
}


class Frame(NamedTuple):
    """Frame of either direction."""

    address: int
    command: int
    data: bytes


def encode(address: int, command: int, data: bytes = b"") -> bytes:
    """Encode a frame, to or from the reader."""
    body = bytes((HEAD, address)) + command.to_bytes(2) + bytes((len(data),)) + data
    return body + crc16_mcrf4xx(body).to_bytes(2)


def inventory(address: int, seconds: int) -> bytes:
    """Encode the command to take inventory for `seconds`; 0: until stopped."""
    return encode(address, INVENTORY, b"\0" + seconds.to_bytes(4))


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe."""
    if buffer[at] != HEAD:
        return ""
    if len(buffer) - at < 5:
        return None
    size = buffer[at + 4] + _OVERHEAD
    raw = buffer[at : at + size]
    if len(raw) < size:
        return None
    expected = crc16_mcrf4xx(raw[:-2])
    if expected != int.from_bytes(raw[-2:]):
        return f"bad checksum {raw[-2:].hex().upper()}, should be {expected:04X}"
    return Frame(raw[1], int.from_bytes(raw[2:4]), raw[5:-2]), size


def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError for an inconsistent tag record."""
    data = frame.data
    if frame.command != INVENTORY or frame.address == EVERYONE or not data:
        return Content(note=f"command {frame.command:04X} or the answer to it")
    if len(data) == _COMMAND_BYTES and data[0] in _WAYS:
        return Content(note="the host's inventory command")
    if data[0] in _OVER:
        return Content(ends=True, note="end of a round")
    if data[0] != OK:
        return Content(ends=True, failure=why(data[0]))
    if len(data) == 1:
        return Content(note="command accepted")
    if len(data) < _TAG_FIXED or len(data) < _TAG_FIXED + data[5]:
        raise MalformedRecordError(f"an EPC of {data[5:6].hex() or 'no'} bytes does not fit into {len(data)}")
    told = data[_TAG_FIXED : _TAG_FIXED + data[5]]
    if not any(data[1:5]) and is_bar_code(told, no_radio=True):
        return Content(note="a bar code of its 2D engine")
    epc = plain_epc(told)
    tenths = int.from_bytes(data[1:3], signed=True)
    rssi_cdbm = 10 * tenths if tenths in _TENTHS_DBM else None
    return Content(tags=(TagRead(epc, rssi_cdbm=rssi_cdbm, antenna=data[3] or None),))


def why(status: int) -> str:
    """Return a reader's status as text for store IT."""
    return f"{_STATUS[status]} (status {status:02X})" if status in _STATUS else f"status {status:02X}"
