"""Formats of pushed JSON, as data: where in a message a read and its values are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

Pointer = str
"""JSON pointer (RFC 6901) through objects only: "/data/idHex"; "" is the value itself."""


class Sign(Enum):
    """Meaning of a value that is not a read."""

    STATE = auto()  # state of the inventory, as text
    ENDED = auto()  # the inventory has ended
    OVERFLOW = auto()  # the reader has dropped events
    DISCONNECTED = auto()  # an antenna port lost its antenna


@dataclass(frozen=True)
class Format:
    """Where the values are. Pointers start at the read; what it lacks is looked up in the message around it. Several
    pointers are tried in turn."""

    reads: Pointer = ""
    """From a message to its read, or to its list of reads."""
    epc: tuple[Pointer, ...] = ()
    """EPCs in hex."""
    epc_base64: tuple[Pointer, ...] = ()
    """EPCs in base64, of either alphabet; used where there is none in hex."""
    antenna: tuple[Pointer, ...] = ()
    rssi: tuple[Pointer, ...] = ()
    rssi_unit: str = "dbm"
    """dbm or cdbm (0.01 dBm)."""
    time: tuple[Pointer, ...] = ()
    """ISO 8601, or seconds to nanoseconds since 1970, told apart by their size."""
    count: tuple[Pointer, ...] = ()
    phase: tuple[Pointer, ...] = ()
    """Degrees."""
    sequence: tuple[Pointer, ...] = ()
    """Number that increases by one with each message or read."""
    identity: tuple[Pointer, ...] = ()
    """The reader's MAC address."""
    signs: tuple[tuple[Pointer, Sign], ...] = ()
    lines: bool = False
    """True if a newline always ends a message: after an error in a stream, reading resumes at the next line."""
    stream_path: str = "/"
    """Path of the stream, if the address has none."""
    keepalive_s: float | None = None
    """Interval at which a silent stream carries a sign of life."""
    rest: bool = False
    """True for Impinj's REST interface beside the stream: state and start of the inventory."""


IMPINJ = Format(
    epc=("/tagInventoryEvent/epcHex",),
    epc_base64=("/tagInventoryEvent/epc",),
    antenna=("/tagInventoryEvent/antennaPort",),
    rssi=("/tagInventoryEvent/peakRssiCdbm",),
    rssi_unit="cdbm",
    time=("/tagInventoryEvent/lastSeenTime", "/timestamp"),
    phase=("/tagInventoryEvent/phaseAngle",),
    signs=(
        ("/inventoryStatusEvent/inventoryStatus", Sign.STATE),
        ("/inventoryStatusEvent/status", Sign.STATE),
        ("/inventoryTerminatedEvent", Sign.ENDED),
        ("/overflowEvent", Sign.OVERFLOW),
        ("/antennaDisconnectedEvent/antennaPort", Sign.DISCONNECTED),
    ),
    lines=True,
    stream_path="/api/v1/data/stream",
    keepalive_s=30.0,
    rest=True,
)
ZEBRA = Format(
    epc=("/data/idHex",),
    antenna=("/data/antenna",),
    rssi=("/data/peakRssi",),
    time=("/timestamp",),
    count=("/data/reads", "/data/seenCount"),
    phase=("/data/phase",),
    sequence=("/data/eventNum",),
    identity=("/data/MAC",),
)
KEONN = Format(
    reads="/reads",
    epc=("/epc",),
    antenna=("/antenna",),
    rssi=("/rssi",),
    time=("/ts",),
    identity=("/devmac",),
)
SPEEDWAY = Format(
    reads="/tag_reads",
    epc=("/epc",),
    antenna=("/antennaPort",),
    rssi=("/peakRssi",),
    time=("/lastSeenTimestamp", "/firstSeenTimestamp"),
    count=("/tagSeenCount",),
    identity=("/mac_address",),
)
FORMATS: Mapping[str, Format] = MappingProxyType(
    {"impinj": IMPINJ, "zebra": ZEBRA, "keonn": KEONN, "speedway": SPEEDWAY}
)
"""Formats by profile; `generic` has the one of the store file."""


def generic(mapping: Mapping[str, str]) -> Format:
    """Return the format of a `mapping` table in the store file; ValueError without a pointer to the EPC."""
    if "epc" not in mapping:
        raise ValueError("the mapping has no pointer to the EPC")
    encoded = "epc_base64" if mapping.get("epc_as") == "base64" else "epc"
    given = {name: (mapping[name],) for name in ("antenna", "rssi", "time", "count", "sequence") if name in mapping}
    return Format(
        reads=mapping.get("reads", ""),
        rssi_unit=mapping.get("rssi_unit", "dbm"),
        **{encoded: (mapping["epc"],)},  # type: ignore[arg-type]
        **given,  # type: ignore[arg-type]
    )
