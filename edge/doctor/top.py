"""`tagtrail top`: the gateway at a glance, live on a terminal, without people."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from config import StoreConfig
from edge.doctor.health import judge, lag_s
from edge.doctor.machine import mb_a_day
from edge.store.errors import Trouble
from edge.store.live_socket import socket_path
from edge.store.live_state import LiveClient, Now, State
from edge.words.numbers import duration

WAIT_S = 1.0
ANSWER_S = 5.0
COLOURS = {"ok": "green", "degraded": "yellow", "failing": "red", "up": "green", "connecting": "yellow", "down": "red"}
ABOVE_READERS = 8
"""Lines around the readers; the rest of the terminal is theirs, those that are away first."""


@dataclass(frozen=True)
class Process:
    """What the system says of the service's process; None where it doesn't."""

    memory_mb: float | None = None
    cpu_s: float | None = None


def process_of(pid: int) -> Process:
    """Read memory and processor time of a process, see proc(5)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        # The name, in parentheses, may contain blanks.
        spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, IndexError, ValueError):
        return Process()
    return Process(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, sum(map(int, spent)) / os.sysconf("SC_CLK_TCK"))


async def watch(config: StoreConfig, console: Console, *, once: bool) -> None:
    """Draw the live state until interrupted; `once`: a single time. Trouble if no service answers at first."""
    client = LiveClient(socket_path(config))
    reading = asyncio.create_task(client.run())
    try:
        until_s = asyncio.get_running_loop().time() + ANSWER_S
        while client.now is None:
            if asyncio.get_running_loop().time() > until_s:
                raise Trouble("the service does not answer: is it running?")
            await client.wait(client.version, WAIT_S)
        if once:
            console.print(draw(config, client, console.height))
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(draw(config, client, console.height), refresh=True)
                await client.wait(client.version, WAIT_S)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def draw(config: StoreConfig, client: LiveClient, lines: int) -> RenderableType:
    """Render the last live state, and whether it is still live."""
    assert client.now is not None
    return view(config, client.now, process_of(client.now.pid), lines, live=client.state is State.LIVE)


def view(config: StoreConfig, now: Now, process: Process, lines: int, *, live: bool = True) -> RenderableType:
    """Render a live state for a terminal with so many lines."""
    health = judge(now)
    wrong = [*health.fails, *(f"{one.what}: {one.said}" for one in now.doctor.found)]
    below = max(len(now.outbox), min(len(now.zones), 12)) + 4 + len(wrong)
    return Group(
        *_head(config, now, process, health.status, live),
        _readers(now, max(4, lines - ABOVE_READERS - below)),
        Columns([_outbox(now), _zones(now, 12)], padding=(0, 3)),
        *(Text(f"! {line}", style="red") for line in wrong),
    )


def _head(config: StoreConfig, now: Now, process: Process, status: str, live: bool) -> list[RenderableType]:
    at = dt.datetime.fromtimestamp(now.as_of_us / 1e6, config.store.tz)
    state = Text(f" {status} ", style=f"reverse {COLOURS[status]}") if live else Text(" NO ANSWER ", "reverse red")
    first = Text.assemble(("Tagtrail ", "bold"), f"{now.version}  {now.store}  {at:%Y-%m-%d %H:%M:%S}  ", state)
    memory = "?" if process.memory_mb is None else f"{process.memory_mb:.0f} MB"
    share = process.cpu_s and now.process.up_s and process.cpu_s / now.process.up_s
    a_day_mb = mb_a_day(now.process.up_s, now.process.written_bytes)
    day = "" if a_day_mb is None else f", written {a_day_mb:,.0f} MB/day"
    broker = "broker connected" if now.broker.connected else "broker away"
    page = (
        "no page"
        if now.page is None
        else "page away"
        if now.page_took_s is None
        else f"page {now.page_took_s * 1000:.0f} ms"
    )
    return [
        first,
        Text(
            f"up {duration(now.process.up_s)}, memory {memory}{f', cpu {share:.1%}' if share else ''}{day}, "
            f"database {now.database.bytes / 2**20:.0f} of {now.database.quota_bytes / 2**20:.0f} MB, {page}"
        ),
        Text(
            f"{now.reads_per_s:,.0f} reads/s, {now.reads:,} reads, {now.counters.get('late', 0):,} late, "
            f"engine {lag_s(now):.1f} s behind, queue {now.queue.reads:,}, clock {now.clock.trust}"
        ),
        Text(f"{now.tags_present:,} tags present, {now.visits:,} visits, {now.journeys:,} journeys; "
             f"{broker}{': ' + now.broker.reason if now.broker.reason else ''}"),
    ]  # fmt: skip


def _readers(now: Now, most: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for column, justify in (
        ("READER", "left"),
        ("LINK", "left"),
        ("READS/S", "right"),
        ("READS", "right"),
        ("SINCE", "right"),
    ):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("", no_wrap=True, ratio=1)  # a long reason is cut off, not the names of readers
    order = sorted(now.readers, key=lambda reader: (reader.link == "up", -reader.reads_per_s))
    for reader in order[:most]:
        since = duration((now.as_of_us - reader.since_us) / 1e6)
        link = Text(reader.link, style=COLOURS[reader.link])
        table.add_row(reader.id, link, f"{reader.reads_per_s:,.0f}", f"{reader.reads:,}", since, reader.reason)
    if len(order) > most:
        table.add_row(f"and {len(order) - most} more")
    return table


def _outbox(now: Now) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("EVENTS", "SENT", "WAITING", "OLDEST", "LAST ACK"):
        table.add_column(column, justify="left" if column == "EVENTS" else "right", no_wrap=True)
    for name, backlog in now.outbox.items():
        acked = "–" if backlog.acked_s is None else duration(backlog.acked_s)
        waits = duration(backlog.oldest_s) if backlog.pending else "–"
        table.add_row(name, f"{backlog.sent:,}", f"{backlog.pending:,}", waits, acked)
    return table


def _zones(now: Now, most: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ZONE", no_wrap=True)
    table.add_column("TAGS", justify="right")
    order = sorted(now.zones, key=lambda zone: (zone.state == "ok", -sum(zone.by_class.values())))
    for zone in order[:most]:
        unknown = Text("unknown", style="red")
        table.add_row(zone.id, str(sum(zone.by_class.values())) if zone.state == "ok" else unknown)
    return table
