"""How a service is in a line, and whether it is again as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.cues.orders import ask
from edge.forwarding.spool import folder_of, is_used, kept_bytes
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path

LOOK_S = 1.0
ASK_S = 2.0


@dataclass(frozen=True)
class Status:
    """What of a service works: the broker's connection and the readers that take inventory."""

    version: str
    broker: bool
    readers: tuple[str, ...]
    away: tuple[str, ...]

    def __str__(self) -> str:
        away = f", away: {', '.join(self.away)}" if self.away else ""
        broker = "broker connected" if self.broker else "broker away"
        up = len(self.readers)
        return f"Tagtrail {self.version}: {broker}, {up} of {up + len(self.away)} readers up{away}"

    def missing(self, before: Status) -> list[str]:
        """Return what worked before and doesn't now. Readers that are no longer in the store file aren't missed."""
        gone = [f"reader {id_} is away" for id_ in self.away if id_ in before.readers]
        return (["the broker is away"] if before.broker and not self.broker else []) + gone


async def status(config: StoreConfig) -> Status | None:
    """Return the status of a store's service; None if it doesn't answer."""
    live = await read_once(socket_path(config))
    return None if live is None else of(live)


def of(live: Mapping[str, Any]) -> Status:
    """Return the status in a live state."""
    up = {reader["id"]: reader["link"] == "up" for reader in live["readers"]}
    return Status(
        version=live["version"],
        broker=live["broker"]["connected"],
        readers=tuple(id_ for id_ in up if up[id_]),
        away=tuple(id_ for id_ in up if not up[id_]),
    )


async def other(config: StoreConfig) -> str | None:
    """Return in a line how the standby or forwarder is that runs here; None if none does."""
    state = await ask(socket_path(config, "standby"), {"do": "tell"}, ASK_S)
    if "whole" in state:
        return standing(state)
    folder = folder_of(config.database.path)
    with contextlib.suppress(OSError):
        if is_used(folder):
            return f"forwards, and keeps {kept_bytes(folder) / 1e6:.1f} MB of reads"
    return None


def standing(state: Mapping[str, Any]) -> str:
    """Return in a line how a standby is, by what it says."""
    if state["copying"] is not None:
        came, size = state["copying"]
        return f"stands by, and gets a copy of the service's database: {came / 1e6:.0f} of {size / 1e6:.0f} MB at most"
    if state["no_room"]:
        return f"stands by, but can't keep the copy: {state['no_room']}"
    if not state["whole"]:
        return f"stands by, but has no whole copy yet: {state['reason']}"
    if state["unfit"]:
        return f"stands by, but can't take over: {state['unfit']}"
    if not state["connected"]:
        return f"stands by; the service is away: {state['reason']}"
    return "stands by, and " + ("has everything" if state["protected"] else "is being brought up to date")


async def wait_for(config: StoreConfig, before: Status | None, within_s: float) -> Status:
    """Wait until a service answers and has all that it had `before`; Trouble with what is missing after the time."""
    until_s = time.monotonic() + within_s
    while True:
        now = await status(config)
        missing = ["the service does not answer"] if now is None else now.missing(before) if before else []
        if now is not None and not missing:
            return now
        if time.monotonic() >= until_s:
            raise Trouble(f"after {within_s:g} s: {'; '.join(missing)}")
        await asyncio.sleep(LOOK_S)


def load(file: Path) -> Status | None:
    """Read what `as_json` wrote; None if it is empty: nothing was known."""
    try:
        text = file.read_text()
        told = json.loads(text) if text.strip() else None
        if told is None:
            return None
        return Status(told["version"], told["broker"], tuple(told["readers"]), tuple(told["away"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(f"{file} is not the output of tagtrail status --json: {error}") from error


def as_json(status: Status) -> str:
    """Render a status as a JSON object."""
    return json.dumps(asdict(status))
