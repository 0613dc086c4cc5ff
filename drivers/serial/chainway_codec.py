"""Chainway's UHF protocol (UR4, UR8, UR1A, modules CM710 and UM202): frames, no I/O.

    ┌────┬────┬─────────┬─────┬──────────────┬─────┬────┬────┐
    │ A5 │ 5A │ len u16 │ cmd │ (len-8) × u8 │ xor │ 0D │ 0A │      both ways; C8 8C is another head of the same
    └────┴────┴─────────┴─────┴──────────────┴─────┴────┴────┘
     0    1    2         4     5

`len` counts the whole frame; `xor` is that of len to the last data byte. 0D 0A occurs inside too: only the length says
where a frame ends. An answer's command is one more than the question's. Big-endian.

    tag (83; 81 for a single round)    PC u16 │ EPC │ [TID, user memory, phase, frequency] │ rssi i16 │ antenna u8

RSSI is in 0.1 dBm; older modules give whole dBm in the lower byte, and 0 above it.
"""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import NamedTuple

from drivers.serial.tags import Content, MalformedRecordError, TagRead, epc_of, once, readable

HEADS = (b"\xa5\x5a", b"\xc8\x8c")
TAIL = b"\r\n"

GET_VERSION = 0x02
SET_ANTENNAS = 0x28
SET_MODE = 0x70
SINGLE = 0x80
START = 0x82
TAG = 0x83
STOP = 0x8C
GET_MAINBOARD = 0xC8

OK = b"\x01"
EPC_ONLY = bytes(4)
"""Data of SET_MODE: not kept at power off, no TID and no user memory."""

_OVERHEAD = 8
_BYTES_MAX = 4096
_TENTHS_DBM = range(-1500, 0)
_OLD_DBM = range(0x80, 0x100)
_TAIL_BYTES = 3


class Frame(NamedTuple):
    """Frame of either direction."""

    command: int
    data: bytes


def encode(command: int, data: bytes = b"", head: bytes = HEADS[0]) -> bytes:
    """Encode a frame, to or from the reader."""
    body = (len(data) + _OVERHEAD).to_bytes(2) + bytes((command,)) + data
    return head + body + bytes((reduce(xor, body),)) + TAIL


def antennas(ports: list[int]) -> bytes:
    """Encode the command to search on `ports` (from 1), until power off."""
    return encode(SET_ANTENNAS, b"\0" + sum(1 << port - 1 for port in ports).to_bytes(2))


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe."""
    head = buffer[at : at + 2]
    if not any(known.startswith(head) for known in HEADS):
        return ""
    size = int.from_bytes(buffer[at + 2 : at + 4])
    if len(buffer) - at < 4:
        return None
    if not _OVERHEAD <= size <= _BYTES_MAX:
        return f"a frame can't have {size} bytes"
    raw = buffer[at : at + size]
    if len(raw) < size:
        return None
    if raw[-2:] != TAIL:
        return f"0D 0A is not where the length puts it ({raw[-2:].hex(' ').upper()})"
    if (expected := reduce(xor, raw[2:-3])) != raw[-3]:
        return f"bad checksum {raw[-3]:02X}, should be {expected:02X}"
    frame = Frame(raw[4], raw[5:-3])
    return readable(frame, size, read)


@once
def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError for an inconsistent tag record."""
    command, data = frame.command, frame.data
    if command == TAG:
        return Content(tags=(_tag(data),))
    if command == SINGLE + 1:
        return Content(tags=(_tag(data),)) if len(data) > _TAIL_BYTES else Content(note="no tag answered")
    return Content(note=f"command {command:02X} or the answer to it")


def _tag(data: bytes) -> TagRead:
    pc = int.from_bytes(data[:2])
    end = 2 + 2 * (pc >> 11)
    if len(data) < 2 or len(data) < end:
        raise MalformedRecordError(f"PC {pc:04X} says {end - 2} bytes, there are {max(len(data) - 2, 0)}")
    epc = epc_of(pc, data[2:end])
    told = data[end:][-_TAIL_BYTES:]
    if len(told) < _TAIL_BYTES:
        return TagRead(epc, rssi_cdbm=_cdbm(told) if len(told) == 2 else None)
    return TagRead(epc, rssi_cdbm=_cdbm(told[:2]), antenna=told[2] or None)


def _cdbm(raw: bytes) -> int | None:
    tenths = int.from_bytes(raw, signed=True)
    if tenths in _OLD_DBM:
        return 100 * (tenths - 0x100)
    return 10 * tenths if tenths in _TENTHS_DBM else None
