"""Observe a reader, through a session of one's own or the service that holds it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from drivers import open_session
from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, Reads
from drivers.session import Contact, Gap, Link, Notice, ReaderSettings, ReaderStatus
from edge.readers.antennas import BINS, bars, bins
from edge.store.compose import Shop, compose
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path
from edge.words.counts import counted

CONNECT_S = 30.0
"""Longest time until a reader takes inventory: probing of baud rates, greetings, its own start."""
TAGS_MAX = 100_000


@dataclass
class Heard:
    """Reads of one antenna port."""

    reads: int = 0
    tags: set[bytes] = field(default_factory=set)
    levels_cdbm: list[int] = field(default_factory=list)

    def add(self, reads: Reads) -> None:
        """Count reads."""
        self.reads += int(reads["count"].sum())
        if len(self.tags) < TAGS_MAX:
            self.tags.update(read["epc"].tobytes() for read in reads)
        known = reads["rssi_cdbm"][reads["rssi_cdbm"] != RSSI_UNKNOWN]
        self.levels_cdbm = (self.levels_cdbm + known.tolist())[-TAGS_MAX:]

    def histogram(self) -> str:
        """Return a bar per bin of antennas.HISTOGRAM_DBM; empty without any RSSI."""
        if not self.levels_cdbm:
            return ""
        return bars(np.bincount(bins(np.array(self.levels_cdbm, np.int16)), minlength=BINS).tolist())

    def median_dbm(self) -> float | None:
        return float(np.median(self.levels_cdbm)) / 100 if self.levels_cdbm else None


class Listener:
    """Sink that keeps what a person wants to see of one reader; `also` gets every batch, and its phases."""

    def __init__(
        self,
        settings: ReaderSettings,
        also: Callable[[str, Reads, NDArray[np.int16] | None], None] = lambda reader, batch, phases: None,
    ) -> None:
        self.heard = {port: Heard() for port in sorted(settings.ports)}
        self.unknown_antenna = 0
        self.notes: list[str] = []
        self.contacts: dict[int, int] = {}
        """Number of changes by input."""
        self.last: ReaderStatus | None = None
        self.up = asyncio.Event()
        self.reading_since_s: float | None = None
        """time.monotonic() of the reader's first read."""
        self._port_of = {antenna: port for port, antenna in settings.ports.items()}
        self._also = also
        self._phases: NDArray[np.int16] | None = None

    async def reads(self, reader: str, batch: Reads) -> None:
        for antenna in np.unique(batch["antenna"]).tolist():
            rows = batch[batch["antenna"] == antenna]
            if antenna == ANTENNA_UNKNOWN:
                self.unknown_antenna += len(rows)
            else:
                self.heard[self._port_of[antenna]].add(rows)
        self._also(reader, batch, self._phases)
        self._phases = None

    def phases(self, reader: str, phases: NDArray[np.int16]) -> None:
        self._phases = phases

    def status(self, status: ReaderStatus) -> None:
        self.last = status
        if status.link is Link.UP:
            self.up.set()
            self.reading_since_s = self.reading_since_s or time.monotonic()
        else:
            self.up.clear()

    def gap(self, gap: Gap) -> None:
        self.notes.append(f"reads were lost: {gap.reason}")

    def notice(self, notice: Notice) -> None:
        self.notes.append(notice.text)

    def contact(self, contact: Contact) -> None:
        self.contacts[contact.port] = self.contacts.get(contact.port, 0) + 1


def reader_of(config: StoreConfig, id_: str) -> tuple[Shop, ReaderSettings]:
    """Return the reader with an id; Trouble lists the existing ones."""
    shop = compose(config)
    for settings in shop.readers:
        if settings.id == id_:
            return shop, settings
    raise Trouble(
        f"no reader {id_!r} in the store file; readers are: {', '.join(r.id for r in shop.readers) or 'none'}"
    )


async def service_state(config: StoreConfig) -> dict[str, Any] | None:
    """Return the live state of the store's service; None if it isn't running."""
    return await read_once(socket_path(config))


def live_antennas(first: dict[str, Any], last: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return port, zone, reads, reads a second and histogram between two live states, as texts."""
    seconds = max(0.5, (last["as_of_us"] - first["as_of_us"]) / 1e6 / last.get("speed", 1))
    for before, now in zip(first["antennas"], last["antennas"], strict=True):
        reads = now["reads"] - before["reads"]
        levels = [n - m for n, m in zip(now["histogram"], before["histogram"], strict=True)]
        yield str(now["port"]), now["zone"], str(reads), f"{reads / seconds:.1f}", bars(levels)


def live_reader(state: dict[str, Any], id_: str) -> dict[str, Any]:
    """Return the service's entry for a reader; Trouble if it runs with a store file that lacks it."""
    for entry in state["readers"]:
        if entry["id"] == id_:
            return dict(entry)
    raise Trouble(f"the service (process {state['pid']}) runs with a store file that has no reader {id_!r}: restart it")


async def listen(
    settings: ReaderSettings,
    listener: Listener,
    seconds: float | None,
    tick: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
) -> bool:
    """Run a session for `seconds` from the first read, or until `stop`; returns whether it ever read.

    Gives up after CONNECT_S. `tick` is called a few times a second.
    """
    loop = asyncio.get_running_loop()
    try:
        session = open_session(settings, listener, lambda: time.time_ns() // 1000)
    except ValueError as error:
        raise Trouble(str(error)) from error
    running = asyncio.create_task(session.run())
    ends_s, was_up = loop.time() + CONNECT_S, False
    try:
        while not (stop and stop.is_set()) and not running.done():
            if listener.up.is_set() and not was_up:
                was_up = True
                ends_s = float("inf") if seconds is None else loop.time() + seconds
            if loop.time() >= ends_s:
                break
            tick()
            await asyncio.sleep(0.1)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return was_up


def by_antenna(shop: Shop, settings: ReaderSettings, listener: Listener) -> Iterator[tuple[str, ...]]:
    """Return port, zone, reads, reads a second, tags, median RSSI and its histogram, as texts."""
    began_s = listener.reading_since_s
    seconds = max(1.0, time.monotonic() - began_s) if began_s else 1.0
    for port, heard in listener.heard.items():
        median_dbm = heard.median_dbm()
        yield (
            str(port),
            shop.zones[int(shop.layout.antenna_zone[settings.ports[port]])],
            str(heard.reads),
            f"{heard.reads / seconds:.1f}",
            str(len(heard.tags)),
            "" if median_dbm is None else f"{median_dbm:.0f}",
            heard.histogram(),
        )


def findings(settings: ReaderSettings, listener: Listener, was_up: bool) -> Iterator[tuple[str, str]]:
    """Return what works ("ok"), what doesn't ("no") and what is unknown ("?") about an observed reader."""
    last = listener.last
    if last is None or not was_up:
        yield "no", f"connection: {last.reason if last else 'the session did not begin'}"
        return
    yield "ok", f"connection: {settings.address} answers and reads"
    if last.link is not Link.UP:
        yield "no", f"connection was lost again: {last.reason}"
    elif "nothing is connected" in last.reason:
        yield "no", f"antennas: {last.reason}"
    if last.detail:
        yield "ok", "reader: " + ", ".join(f"{name} {text}" for name, text in last.detail.items())
    if last.clock_offset_us is not None:
        near = abs(last.clock_offset_us) <= 1_000_000
        advice = "" if near else "; it is corrected, but give the reader an NTP server"
        yield "ok" if near else "?", f"clock: {last.clock_offset_us / 1e6:+.3f} s against this gateway{advice}"
    for port, heard in listener.heard.items():
        if heard.reads:
            level = "" if (dbm := heard.median_dbm()) is None else f", median {dbm:.0f} dBm"
            yield "ok", f"port {port}: {counted(heard.reads, 'read')} of {counted(len(heard.tags), 'tag')}{level}"
        else:
            yield "?", f"port {port}: no tag was seen; hold one before the antenna and test again"
    if listener.unknown_antenna:
        yield "?", f"{counted(listener.unknown_antenna, 'read')} came from ports that the store file does not have"
    for port in settings.inputs:
        if n := listener.contacts.get(port):
            yield "ok", f"input {port}: {counted(n, 'change')}"
        elif port in last.inputs:
            yield "?", f"input {port}: no change was seen; walk through the door and test again"
    for note in dict.fromkeys(listener.notes):
        yield "?", f"the reader says: {note}"
