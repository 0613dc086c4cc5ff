"""Input of simulated readers: observations of tags at antenna ports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

RSSI_UNKNOWN = -32768


class Observation(NamedTuple):
    """Tag heard at antenna port `port` at `time_us` (UTC); `rssi_cdbm` in 0.01 dBm or RSSI_UNKNOWN."""

    time_us: int
    port: int
    epc: bytes
    rssi_cdbm: int
    count: int = 1  # type: ignore[assignment]  # the tuple's own count() is no use here


class SimulatedReader(Protocol):
    """Simulated reader for any client, fed with observations."""

    async def start(self) -> str:
        """Start listening; returns the address for the store file. After `stop`, restarts at the same address."""

    async def stop(self) -> None:
        """Disconnect and stop listening."""

    def push(self, observations: Iterable[Observation]) -> None:
        """Take observations in order of arrival; they are lost unless a client has started an inventory."""


def dbm_of(seen: Observation, low: int, high: int) -> int:
    """Return the RSSI in whole dBm within a family's limits; the lower one if it is unknown."""
    given = low if seen.rssi_cdbm == RSSI_UNKNOWN else round(seen.rssi_cdbm / 100)
    return max(low, min(high, given))


def pc_of(epc: bytes) -> bytes:
    """Return the protocol control word of a tag with this EPC."""
    return (len(epc) // 2 << 11).to_bytes(2)
