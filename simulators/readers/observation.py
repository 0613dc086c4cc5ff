"""What a simulated reader hears: one tag, once, at one of its ports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

RSSI_UNKNOWN = -32768


class Observation(NamedTuple):
    """A tag heard at antenna port `port` at `time_us` (UTC); `rssi_cdbm` in 0.01 dBm or RSSI_UNKNOWN."""

    time_us: int
    port: int
    epc: bytes
    rssi_cdbm: int
    count: int = 1  # type: ignore[assignment]  # the tuple's own count() is no use here


class SimulatedReader(Protocol):
    """A reader for anyone's client, fed with what it is to have heard."""

    async def start(self) -> str:
        """Start listening; the address for the store file. After `stop`, starts again at the same address."""

    async def stop(self) -> None:
        """Hang up and stop listening."""

    def push(self, observations: Iterable[Observation]) -> None:
        """Hear tags, in order of arrival; they are lost where no client has started an inventory."""
