"""Content of frames of serial readers, for all families."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar, cast

from drivers.read import EPC_BITS_MAX

F = TypeVar("F")

_BAR_CODE = re.compile(rb"\x02[^\x03]*\x03[\t\r\n]*|[ -~\x80-\xff\x1d]+[\t\r\n]+", re.DOTALL)
"""Text as scan engines frame it: between STX and ETX, or ended by a line's end or a tab; 1D separates GS1's fields."""
_TEXT = re.compile(rb"[\x02-\x04]?[ -~\x1d]+[\x03\x04\t\r\n]*")

FRAMES = 128
"""More than come at a time."""

PC_XPC = 0x0200
XPC_W2 = 0x8000


class MalformedRecordError(ValueError):
    """Frame with a correct checksum but inconsistent content."""


class TagRead(NamedTuple):
    """Tag as the reader reports it; None where it gave nothing. `time_ms`: since its search cycle began."""

    epc: bytes
    seen: int | None = None
    rssi_cdbm: int | None = None
    antenna: int | None = None
    time_ms: int | None = None


class Content(NamedTuple):
    """Content of one frame."""

    tags: tuple[TagRead, ...] = ()
    ends: bool = False
    """True if the search is over and the reader waits for the next command."""
    failure: str = ""
    """Reason why the reader doesn't read, for store IT."""
    antenna: int | None = None
    """Antenna of a search that is over."""
    unconnected: int | None = None
    """Port without an antenna; the reader continues with the others."""
    note: str = ""
    """Meaning of a frame without tags."""


def once(read: Callable[[F], Content]) -> Callable[[F], Content]:
    """Let a codec's `read` keep the contents of the latest frames: its probe asks whether each is `readable`, and the
    session then what it says."""
    return cast("Callable[[F], Content]", lru_cache(maxsize=FRAMES)(read))


def readable(frame: F, size: int, read: Callable[[F], Content]) -> tuple[F, int] | str:
    """Return a frame with its size as framing.Probe does, or the reason why its content can't be read."""
    try:
        read(frame)
    except MalformedRecordError as error:
        return str(error)
    return frame, size


def epc_of(pc: int, body: bytes) -> bytes:
    """Extract the EPC from what a tag sent between PC and CRC, without the XPC words that the PC may announce.
    MalformedRecordError unless its length is that of the PC (Gen2, 6.3.2.1.2.2) and possible.
    """
    if len(body) != 2 * (pc >> 11):
        raise MalformedRecordError(f"PC {pc:04X} says {2 * (pc >> 11)} bytes, there are {len(body)}")
    if pc & PC_XPC:
        body = body[4 if int.from_bytes(body[:2]) & XPC_W2 else 2 :]
    return plain_epc(body)


def plain_epc(epc: bytes) -> bytes:
    """Return `epc` itself; MalformedRecordError if Gen2 has no EPCs of that length."""
    if not epc or len(epc) % 2 or 8 * len(epc) > EPC_BITS_MAX:
        raise MalformedRecordError(f"an EPC can't have {8 * len(epc)} bits")
    return epc


def is_bar_code(told: bytes, *, no_radio: bool = False) -> bool:
    """True for a bar code that a 2D engine has put in an EPC's place. `no_radio`: the frame says nothing of the signal
    either, so that all text is one, and all that no EPC is as long as.
    """
    if no_radio and told:
        return len(told) % 2 == 1 or bool(_TEXT.fullmatch(told) or _BAR_CODE.fullmatch(told))
    return bool(_BAR_CODE.fullmatch(told))
