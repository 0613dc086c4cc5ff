"""Decode RO_ACCESS_REPORTs to READ rows in the receive buffer, tens of millions of reports a second.

Layouts (LLRP 1.1, sections 17.1 to 17.2.7; all big-endian, lengths count their own header):

    message  | 3 reserved | 3 version | 10 type = 61 | u32 length | u32 id | TLVs …
    TLV      | 0 | 5 reserved | 10 type | u16 length | fields, parameters …
    TV       | 1 | 7 type | fields of a size that the type alone tells
    240   TagReportData: EPCData (TLV 241: u16 bits, the bits from the left) or EPC-96 (TV 13), optional TVs, TLVs
    1023  Custom: u32 vendor, u32 subtype, fields

A READ row is ten little-endian 64-bit words: time, eight of EPC, and antenna | rssi << 16 | count << 32 | bits << 48;
the kernels write these words. Every kernel of the drivers stands in this file: Numba's cache does not notice a change
in a kernel of another file (nor in a constant of one: kernels use only those that the standard or READ fixes).
Signatures are given, so that importing compiles (or loads) and no call ever does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivers.llrp.codec import HEADER_BYTES, MESSAGE_BYTES_MAX, RO_ACCESS_REPORT
from drivers.read import ANTENNA_UNKNOWN, EPC_BITS_MAX, READ, RSSI_UNKNOWN, Reads
from drivers.session import PHASE_UNKNOWN

RECEIVED, UTC, UPTIME = 0, 1, 2
"""Source of a row's time: time of receipt (the reader gave none), the reader's UTC clock, its uptime."""

COUNTERS = (
    "messages",
    "reads",
    "unknown_antenna",  # read kept, but its port is in no antenna of the store file
    "no_epc",  # from here on: reports that gave no read
    "unknown_tv",
    "broken_length",
    "epc_too_long",
    "bad_time",
    "broken_message",  # messages whose rest could not be walked
)


@dataclass(frozen=True)
class Decoded:
    """Result of `ReportDecoder.decode`; the caller owns the arrays."""

    reads: Reads
    """(n,) READ; `time_us` is still the reader's own, or 0 where it gave none."""
    source: NDArray[np.uint8]
    """(n,) RECEIVED, UTC or UPTIME."""
    phase: NDArray[np.int16]
    """(n,) RF phase in 4096 steps a turn (Impinj), PHASE_UNKNOWN where the report has none."""
    newest_us: tuple[int, int]
    """Latest reader time among the rows from UTC and from UPTIME, -1 without such rows."""
    used: int
    """Position behind the last report message; there begins another message, part of one, or something that isn't
    LLRP."""


class ReportDecoder:
    """Decoder of one connection's report stream. It carries state: an enabled parameter that is absent has its last
    value (14.2.3).
    `ports` maps the reader's antenna ports (1 to 65535) to global antenna numbers.
    """

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._ports = np.full(max(ports, default=0) + 1, ANTENNA_UNKNOWN, np.uint16)
        for port, antenna in ports.items():
            self._ports[port] = antenna
        self._carried = np.array([0, RSSI_UNKNOWN, 1, -1, -1, -1, -1], np.int64)
        self._tally = np.zeros(len(COUNTERS), np.int64)
        self._newest = np.empty(3, np.int64)

    def decode(self, buffer: NDArray[np.uint8], start: int, end: int) -> Decoded:
        """Decode the complete, consecutive RO_ACCESS_REPORTs from `start`; `buffer` is writable, contiguous u8.

        ValueError if the span leaves the buffer. Nothing in the bytes raises: see `counters`.
        """
        if not 0 <= start <= end <= len(buffer):
            raise ValueError(f"span {start}…{end} of a buffer of {len(buffer)} bytes")
        stop, reports = _survey(buffer, start, end, MESSAGE_BYTES_MAX)
        reads = np.empty(reports, READ)
        source = np.empty(reports, np.uint8)
        phase = np.empty(reports, np.int16)
        if stop == start:
            return Decoded(reads, source, phase, (-1, -1), stop)
        rows = reads.view(np.uint64).reshape(reports, READ.itemsize // 8)
        n = _decode(buffer, start, stop, self._ports, self._carried, rows, source, phase, self._newest, self._tally)
        newest_us = int(self._newest[UTC]), int(self._newest[UPTIME])
        return Decoded(reads[:n], source[:n], phase[:n], newest_us, stop)

    @property
    def counters(self) -> dict[str, int]:
        """Numbers of decoded and rejected items by reason (COUNTERS), since the connection began."""
        return dict(zip(COUNTERS, self._tally.tolist(), strict=True))


_PORT, _PEAK, _COUNT, _FIRST_UTC, _LAST_UTC, _FIRST_UP, _LAST_UP = range(7)
"""Places in the carried state: LLRP's last value of each type, -1 where there was none."""

_MESSAGES, _READS, _UNKNOWN_ANTENNA, _NO_EPC, _UNKNOWN_TV, _BROKEN, _TOO_LONG, _BAD_TIME, _BROKEN_MESSAGE = range(9)

_TAG_REPORT_DATA, _EPC_DATA, _CUSTOM = 240, 241, 1023
_IMPINJ, _IMPINJ_PHASE, _IMPINJ_PEAK_RSSI = 25882, 56, 57
_TIME_MAX = 1 << 62
_BITS_MAX = EPC_BITS_MAX

_TV_BYTES = np.zeros(128, np.int64)
"""Total size of a TV by type (17.2.7.3), 0 for undefined types."""
_TV_BYTES[1:21] = [3, 9, 9, 9, 9, 2, 3, 3, 5, 3, 3, 3, 13, 3, 3, 5, 3, 5, 3, 3]


_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(signature: str) -> Callable[[_F], _F]:
    """Compile a kernel: the decorator of all kernels of the drivers."""
    return cast("Callable[[_F], _F]", njit(signature, cache=True, nogil=True, boundscheck=False, error_model="numpy"))


# Indices are signed for arithmetic and made unsigned to index: no wrap-around code, so that loads of neighbouring
# bytes become one.
@kernel("int64(uint8[::1], int64)")
def _u16(buf: Any, at: Any) -> Any:
    return (np.int64(buf[np.uint64(at)]) << 8) | np.int64(buf[np.uint64(at + 1)])


@kernel("int64(uint8[::1], int64)")
def _u32(buf: Any, at: Any) -> Any:
    return (
        (np.int64(buf[np.uint64(at)]) << 24)
        | (np.int64(buf[np.uint64(at + 1)]) << 16)
        | (np.int64(buf[np.uint64(at + 2)]) << 8)
        | np.int64(buf[np.uint64(at + 3)])
    )


@kernel("uint64(uint8[::1], int64)")
def _u64(buf: Any, at: Any) -> Any:
    return (
        (np.uint64(buf[np.uint64(at)]) << np.uint64(56))
        | (np.uint64(buf[np.uint64(at + 1)]) << np.uint64(48))
        | (np.uint64(buf[np.uint64(at + 2)]) << np.uint64(40))
        | (np.uint64(buf[np.uint64(at + 3)]) << np.uint64(32))
        | (np.uint64(buf[np.uint64(at + 4)]) << np.uint64(24))
        | (np.uint64(buf[np.uint64(at + 5)]) << np.uint64(16))
        | (np.uint64(buf[np.uint64(at + 6)]) << np.uint64(8))
        | np.uint64(buf[np.uint64(at + 7)])
    )


@kernel("UniTuple(int64, 2)(uint8[::1], int64, int64, int64)")
def _survey(buf: Any, start: Any, end: Any, longest: Any) -> Any:
    """Return the position behind the last complete report message, and the number of TagReportData before it."""
    at, reports = start, 0
    while end - at >= HEADER_BYTES:
        length = _u32(buf, at + 2)
        version = (np.int64(buf[np.uint64(at)]) >> 2) & 7
        if (_u16(buf, at) & 0x3FF) != RO_ACCESS_REPORT or version < 1 or version > 3:
            break
        if length < HEADER_BYTES or length > longest or length > end - at:
            break
        stop = at + length
        at += HEADER_BYTES
        while stop - at >= 4:
            size = _u16(buf, at + 2)
            if size < 4 or size > stop - at:
                break
            if (_u16(buf, at) & 0x83FF) == _TAG_REPORT_DATA:
                reports += 1
            at += size
        at = stop
    return at, reports


@kernel(
    "int64(uint8[::1], int64, int64, uint16[::1], int64[::1], uint64[:, ::1], uint8[::1], int16[::1], int64[::1],"
    "int64[::1])",
)
def _decode(
    buf: Any,
    start: Any,
    end: Any,
    ports: Any,
    carried: Any,
    rows: Any,
    source: Any,
    phase: Any,
    newest: Any,
    tally: Any,
) -> Any:
    """Decode the messages that `_survey` found complete; returns the number of rows written."""
    port, peak, count = carried[_PORT], carried[_PEAK], carried[_COUNT]
    first_utc, last_utc = carried[_FIRST_UTC], carried[_LAST_UTC]
    first_up, last_up = carried[_FIRST_UP], carried[_LAST_UP]
    newest_utc, newest_up = -1, -1
    n = 0
    message = start
    while message < end:
        message_end = message + _u32(buf, message + 2)
        at = message + HEADER_BYTES
        message = message_end
        tally[_MESSAGES] += 1
        while at < message_end:
            if message_end - at < 4:
                tally[_BROKEN_MESSAGE] += 1
                break
            kind, size = _u16(buf, at) & 0x83FF, _u16(buf, at + 2)
            if size < 4 or size > message_end - at:
                tally[_BROKEN_MESSAGE] += 1
                break
            stop = at + size
            if kind != _TAG_REPORT_DATA:
                at = stop
                continue
            at += 4
            epc_at, epc_bits, precise, turn = 0, 0, RSSI_UNKNOWN, PHASE_UNKNOWN
            got_last, got_first = False, False
            trouble = 0
            while at < stop:
                first, left = buf[np.uint64(at)], stop - at
                # Steps of known size where they are common: a size from a table would have to be loaded before the
                # next parameter's address is known, and the processor would wait for it each time.
                if first == 0x8D and left >= 13:
                    epc_at, epc_bits = at + 1, 96
                    at += 13
                    continue
                if first == 0x81 and left >= 3:
                    port = _u16(buf, at + 1)
                    at += 3
                    continue
                if first == 0x86 and left >= 2:
                    peak = np.int64(np.int8(buf[np.uint64(at + 1)])) * 100
                    at += 2
                    continue
                if first == 0x88 and left >= 3:
                    count = _u16(buf, at + 1)
                    at += 3
                    continue
                if first >= 0x82 and first <= 0x85 and left >= 9:
                    stamp = _u64(buf, at + 1)
                    if stamp >= np.uint64(_TIME_MAX):
                        trouble = _BAD_TIME
                        break
                    if first == 0x84:
                        last_utc, got_last = np.int64(stamp), True
                    elif first == 0x82:
                        first_utc, got_first = np.int64(stamp), True
                    elif first == 0x85:
                        last_up, got_last = np.int64(stamp), True
                    else:
                        first_up, got_first = np.int64(stamp), True
                    at += 9
                    continue
                if first & 0x80:
                    size = _TV_BYTES[np.uint64(first & 0x7F)]
                    if size == 0 or size > left:
                        trouble = _UNKNOWN_TV if size == 0 else _BROKEN
                        break
                    at += size
                    continue
                if left < 4:
                    trouble = _BROKEN
                    break
                kind, size = _u16(buf, at) & 0x3FF, _u16(buf, at + 2)
                if size < 4 or size > left:
                    trouble = _BROKEN
                    break
                if kind == _EPC_DATA:
                    if size < 6:
                        trouble = _BROKEN
                        break
                    epc_at, epc_bits = at + 6, _u16(buf, at + 4)
                    if epc_bits > _BITS_MAX:
                        trouble = _TOO_LONG
                        break
                    if (epc_bits + 7) >> 3 > size - 6:
                        trouble = _BROKEN
                        break
                elif kind == _CUSTOM and size >= 14 and _u32(buf, at + 4) == _IMPINJ:
                    subtype = _u32(buf, at + 8)
                    if subtype == _IMPINJ_PEAK_RSSI:
                        precise = np.int64(np.int16(_u16(buf, at + 12)))  # type: ignore[assignment]
                    elif subtype == _IMPINJ_PHASE:
                        turn = _u16(buf, at + 12) & 0xFFF
                at += size
            at = stop
            if trouble == 0 and epc_bits == 0:
                trouble = _NO_EPC
            if trouble != 0:
                tally[trouble] += 1
                continue

            # A LastSeen that was left out repeats the last one, yet is never before the FirstSeen that was sent.
            if last_utc >= 0 or first_utc >= 0:
                time = last_utc if last_utc >= 0 and (got_last or not got_first) else max(first_utc, last_utc)
                source[np.uint64(n)] = UTC
                newest_utc = max(newest_utc, time)
            elif last_up >= 0 or first_up >= 0:
                time = last_up if last_up >= 0 and (got_last or not got_first) else max(first_up, last_up)
                source[np.uint64(n)] = UPTIME
                newest_up = max(newest_up, time)
            else:
                time = 0
                source[np.uint64(n)] = RECEIVED

            antenna = ANTENNA_UNKNOWN
            if port < ports.size:
                antenna = ports[np.uint64(port)]
            if antenna == ANTENNA_UNKNOWN:
                tally[_UNKNOWN_ANTENNA] += 1
            rssi = precise if precise != RSSI_UNKNOWN else peak
            phase[np.uint64(n)] = turn
            row = rows[np.uint64(n)]
            row[0] = np.uint64(time)
            if epc_bits == 96:
                row[1] = _u64(buf, epc_at)
                row[2] = np.uint64(_u32(buf, epc_at + 8)) << np.uint64(32)
                for word in range(3, 9):
                    row[word] = 0
            else:
                bits: Any = epc_bits
                for word in range(1, 9):
                    value = np.uint64(0)
                    take: Any = min(max(bits, 0), 64)
                    for byte in range((take + 7) >> 3):
                        value |= np.uint64(buf[np.uint64(epc_at + byte)]) << np.uint64(56 - 8 * byte)
                    if 0 < take < 64:
                        value &= ~np.uint64(0) << np.uint64(64 - take)
                    row[word] = value
                    epc_at += 8
                    bits -= 64
            row[9] = np.uint64(np.int64(antenna) | (rssi & 0xFFFF) << 16 | max(count, 1) << 32 | epc_bits << 48)
            n += 1
    carried[_PORT], carried[_PEAK], carried[_COUNT] = port, peak, count
    carried[_FIRST_UTC], carried[_LAST_UTC] = first_utc, last_utc
    carried[_FIRST_UP], carried[_LAST_UP] = first_up, last_up
    newest[UTC], newest[UPTIME] = newest_utc, newest_up
    tally[_READS] += n
    return n
