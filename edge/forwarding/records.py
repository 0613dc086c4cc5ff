"""What a forwarder keeps on disk and sends: numbered records in frames, the same bytes in both places.

    frame:  length (4 bytes, big-endian) | CRC-32 of the payload (4) | payload: MessagePack of a Record

Antennas of reads are ports here, so that both sides may number theirs as their own store file says.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import msgspec
import numpy as np
import zstandard

from drivers.read import READ, Reads
from drivers.session import Contact, Gap, Notice, ReaderStatus
from dwell.read import joined

HEADER = struct.Struct(">II")
FRAME_BYTES_MAX = 1 << 20
READS_MAX = 8192
"""Reads of a record: of the largest size they fit into a frame without compression."""
LEVEL = 1
LIMIT_US = 1 << 62
BASE = "not a Tagtrail record"


class Malformed(Exception):
    """Bytes that are no frame or no record."""


class Begun(msgspec.Struct, tag="begun", array_like=True, frozen=True):
    """A file of the spool begins; the state of each reader follows. `life`: of the process that wrote it, within which
    records are numbered; `boot`: of the machine, within which its monotonic clock counts."""

    life: str
    boot: str


class Read(msgspec.Struct, tag="reads", array_like=True, frozen=True):
    """Reads: how many of which reader, in this order, and the READ array, compressed by Zstandard."""

    readers: list[tuple[str, int]]
    packed: bytes


class Linked(msgspec.Struct, tag="link", array_like=True, frozen=True):
    status: ReaderStatus


class Missed(msgspec.Struct, tag="gap", array_like=True, frozen=True):
    gap: Gap


class Said(msgspec.Struct, tag="notice", array_like=True, frozen=True):
    notice: Notice


class Switched(msgspec.Struct, tag="contact", array_like=True, frozen=True):
    contact: Contact


class Dropped(msgspec.Struct, tag="dropped", array_like=True, frozen=True):
    """Everything between two times is lost, of all readers."""

    from_us: int
    to_us: int
    reason: str


class Alive(msgspec.Struct, tag="alive", array_like=True, frozen=True):
    """Nothing else happened for a second."""


class Now(msgspec.Struct, tag="now", array_like=True, frozen=True):
    """What time it is, and the last record there is. Sent only, not kept: its number is 0. `base_us`: the service's
    store time minus the forwarder's monotonic time, by what the service sends; None: not yet known."""

    life: str
    seq: int
    boot: str
    base_us: int | None
    kept_bytes: int


What = Begun | Read | Linked | Missed | Said | Switched | Dropped | Alive | Now


class Record(msgspec.Struct, array_like=True, frozen=True):
    """`at_us`: when it was written by the forwarder's clock (store time), `mono_us`: by its monotonic clock; `trusted`:
    whether the former was to be trusted."""

    seq: int
    at_us: int
    mono_us: int
    trusted: bool
    what: What


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_packer = zstandard.ZstdCompressor(LEVEL)
_unpacker = zstandard.ZstdDecompressor()


def frame(payload: bytes) -> bytes:
    """Return a payload with its header."""
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def encoded(record: Record) -> bytes:
    """Return a record as a frame."""
    return frame(_encoder.encode(record))


def decoded(payload: bytes) -> Record:
    """Return the record of a payload; Malformed."""
    try:
        record = _decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"{BASE}: {error}") from error
    if not (0 <= record.at_us < LIMIT_US and abs(record.mono_us) < LIMIT_US and 0 <= record.seq < LIMIT_US):
        raise Malformed(f"{BASE}: a number is out of range")
    return record


def checked_length(header: bytes) -> tuple[int, int]:
    """Return length and CRC of a header; Malformed if no frame is that long."""
    length, crc = HEADER.unpack(header)
    if not 0 < length <= FRAME_BYTES_MAX:
        raise Malformed(f"a frame of {length} bytes")
    return length, crc


def checked(payload: bytes, crc: int) -> bytes:
    """Return a payload; Malformed if it is not the one that was sent."""
    if zlib.crc32(payload) != crc:
        raise Malformed("a frame whose checksum is wrong")
    return payload


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield end and payload of the whole and sound frames at the beginning of `data`."""
    at = 0
    while at + HEADER.size <= len(data):
        try:
            length, crc = checked_length(data[at : at + HEADER.size])
            end = at + HEADER.size + length
            if end > len(data):
                return
            payload = checked(data[at + HEADER.size : end], crc)
        except Malformed:
            return
        yield end, payload
        at = end


def packed(batches: list[tuple[str, Reads]]) -> Read:
    """Return reads of readers as a record's content; READS_MAX in all at most."""
    reads = joined([batch for _, batch in batches])
    return Read([(reader, len(batch)) for reader, batch in batches], _packer.compress(reads.tobytes()))


def unpacked(read: Read) -> tuple[Reads, list[tuple[str, slice]]]:
    """Return the reads, and which are whose; Malformed."""
    n = sum(count for _, count in read.readers)
    try:
        size = zstandard.frame_content_size(read.packed)
        if size != n * READ.itemsize or n > READS_MAX or any(count < 1 for _, count in read.readers):
            raise Malformed(f"{BASE}: {n} reads in {size} bytes")
        reads = np.frombuffer(bytearray(_unpacker.decompress(read.packed)), READ)
    except (zstandard.ZstdError, ValueError) as error:
        raise Malformed(f"{BASE}: {error}") from error
    if (reads["time_us"] < 0).any() or (reads["time_us"] >= LIMIT_US).any():
        raise Malformed(f"{BASE}: a time is out of range")
    whose, at = [], 0
    for reader, count in read.readers:
        whose.append((reader, slice(at, at + count)))
        at += count
    return reads, whose
