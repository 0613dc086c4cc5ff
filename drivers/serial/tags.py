"""What frames of serial readers tell, whatever their family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from drivers.read import EPC_BITS_MAX

PC_XPC = 0x0200
XPC_W2 = 0x8000


class MalformedRecordError(ValueError):
    """A frame with a good checksum whose content contradicts itself."""


class TagRead(NamedTuple):
    """A tag as the reader reports it; None where the reader gave nothing. `time_ms` since its search cycle began."""

    epc: bytes
    seen: int | None = None
    rssi_cdbm: int | None = None
    antenna: int | None = None
    time_ms: int | None = None


@dataclass(frozen=True)
class Content:
    """What one frame tells."""

    tags: tuple[TagRead, ...] = ()
    ends: bool = False
    """The search is over: the reader waits to be told to go on."""
    failure: str = ""
    """Why the reader does not read, for store IT."""
    antenna: int | None = None
    """Where the reader searched, of a search that is over."""
    unconnected: int | None = None
    """A port without an antenna; the reader goes on with the others."""
    note: str = ""
    """What a frame without tags is."""


def epc_of(pc: int, body: bytes) -> bytes:
    """The EPC of what a tag sent between PC and CRC: without the extended protocol words that the PC may announce.

    MalformedRecordError unless it is as long as the PC says (Gen2, 6.3.2.1.2.2) and a possible EPC.
    """
    if len(body) != 2 * (pc >> 11):
        raise MalformedRecordError(f"PC {pc:04X} says {2 * (pc >> 11)} bytes, there are {len(body)}")
    if pc & PC_XPC:
        body = body[4 if int.from_bytes(body[:2]) & XPC_W2 else 2 :]
    return plain_epc(body)


def plain_epc(epc: bytes) -> bytes:
    """`epc` itself; MalformedRecordError if Gen2 has none of that length."""
    if not epc or len(epc) % 2 or 8 * len(epc) > EPC_BITS_MAX:
        raise MalformedRecordError(f"an EPC can't have {8 * len(epc)} bits")
    return epc
