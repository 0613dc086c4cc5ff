"""Lamps and beepers at readers' outputs: switched on for some seconds when a member of a tier enters a zone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from config import StoreConfig
from config.readers import Output

AGAIN_S = 600.0
"""A member who goes back and forth isn't announced again within this many wall seconds."""
FRESH_US = 60_000_000
"""Arrivals older than this aren't announced: buffered reads, or a restart."""
KEPT = 1000

Switch = Callable[[str, int, bool], None]
"""Switch an output of a reader."""


class Lamps:
    """Lamps of the store: call `came` for each member who may be new in a zone; `switch` is called in turn."""

    def __init__(self, config: StoreConfig, switch: Switch) -> None:
        self._switch = switch
        self._by_zone: dict[str, list[tuple[str, Output]]] = {}
        for reader in config.readers:
            for lamp in reader.outputs:
                self._by_zone.setdefault(lamp.zone, []).append((reader.id, lamp))
        self._off: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._announced: dict[tuple[str, str], float] = {}

    @property
    def any(self) -> bool:
        """True if there is any lamp."""
        return bool(self._by_zone)

    @property
    def tiers(self) -> set[str]:
        """Tiers that any lamp announces."""
        return {tier for lamps in self._by_zone.values() for _, lamp in lamps for tier in lamp.tiers}

    def came(self, member: str, tier: str, zone: str, at_us: int, now_us: int) -> None:
        """Take a member who is in a zone since a time of the store clock."""
        lamps = [(reader, lamp) for reader, lamp in self._by_zone.get(zone, ()) if tier in lamp.tiers]
        if not lamps or now_us - at_us > FRESH_US:
            return
        loop = asyncio.get_running_loop()
        last_s = self._announced.get((member, zone))
        if last_s is not None and loop.time() - last_s < AGAIN_S:
            return
        if len(self._announced) >= KEPT:
            del self._announced[min(self._announced, key=lambda who: self._announced[who])]
        self._announced[member, zone] = loop.time()
        for reader, lamp in lamps:
            place = reader, lamp.port
            if place in self._off:
                self._off[place].cancel()
            else:
                self._switch(*place, True)
            self._off[place] = loop.call_later(lamp.seconds, self._end, place)

    def _end(self, place: tuple[str, int]) -> None:
        del self._off[place]
        self._switch(*place, False)
