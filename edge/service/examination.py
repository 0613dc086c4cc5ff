"""The daily examination of the gateway: told on the page, in health and in the journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.doctor.examine import Antennas, in_service
from edge.doctor.findings import Finding, State
from sync.contract import MAX_FINDINGS, Found

log = logging.getLogger("tagtrail.doctor")

FIRST_S = 600.0
"""After the start: readers and broker have had time to connect."""
DAILY_S = 86_400.0
AGAIN_S = 3600.0
"""While something is wrong: what has been put right should not be told for a day."""


class Examination:
    """Examines the gateway until cancelled. `snapshot`: the live state; `antennas`: of all readers."""

    def __init__(
        self,
        config: StoreConfig,
        config_file: Path,
        version: str,
        snapshot: Callable[[], dict[str, Any]],
        antennas: Callable[[], Antennas],
        *,
        first_s: float = FIRST_S,
    ) -> None:
        self._config, self._config_file, self._version = config, config_file, version
        self._snapshot, self._antennas = snapshot, antennas
        self._first_s = first_s
        self._at_us: int | None = None
        self._bad: tuple[Finding, ...] = ()
        self._logged: set[Finding] = set()
        self.found: tuple[Found, ...] | None = None
        """What is wrong, the worst first; None before the first examination."""

    async def run(self) -> None:
        """Examine, again and again."""
        await asyncio.sleep(self._first_s)
        while True:
            await self.examine()
            await asyncio.sleep(AGAIN_S if self._bad else DAILY_S)

    async def examine(self) -> None:
        """Examine once; what is new is logged."""
        live = self._snapshot()
        findings = await in_service(self._config, self._config_file, self._version, live, self._antennas())
        self._at_us = live["as_of_us"]
        self._bad = tuple(one for one in findings if one.bad)
        self.found = tuple(
            Found(what=one.what, state="error" if one.state is State.ERROR else "warning", said=one.said, todo=one.todo)
            for one in self._bad[:MAX_FINDINGS]
        )
        for one in self._bad:
            if one not in self._logged:
                level = logging.ERROR if one.state is State.ERROR else logging.WARNING
                log.log(level, "%s: %s → %s", one.what, one.said, one.todo)
        self._logged = set(self._bad)

    def told(self) -> dict[str, Any]:
        """Return the findings for the live state."""
        return {"at_us": self._at_us, "found": [asdict(one) for one in self._bad[:MAX_FINDINGS]]}
