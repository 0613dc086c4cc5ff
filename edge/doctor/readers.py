"""Readers and antennas, by what the service says of them or, without it, by whether they answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.doctor.findings import Finding, error, ok, unknown, warning
from edge.forwarding import spool
from edge.readers.scan import llrp_addresses, scan_llrp
from edge.store.errors import Trouble
from edge.store.timekeeping import APART_US, duration

SILENT_US = 2 * 3_600_000_000
"""An antenna that has read nothing for so long, while the reader's others read, is suspected …"""
BUSY = 500
"""… if these have so many reads on average."""
LLRP_PORT = 5084
START = "Start it: systemctl start tagtrail@STORE."
SEE_REASONS = "See docs/readers.md, and run tagtrail readers test {}."


def forwarders(live: Mapping[str, Any], now_us: int) -> Iterator[Finding]:
    """Judge the store's other gateways by the live state."""
    for one in live.get("forwarders", ()):
        id_ = one["id"]
        todo = "Look at its log there: journalctl -u tagtrail@STORE. See docs/gateways.md."
        if one["foreign"]:
            listed = ", ".join(one["foreign"])
            yield warning(
                "forwarder",
                f"{id_} sends readers that are not its own: {listed}",
                "Put the same store file on all gateways of the store.",
            )
        if one["link"] == "down":
            away = duration(max(0, now_us - one["since_us"]))
            yield error("forwarder", f"{id_} has been away for {away}: {one['reason']}", todo)
        elif one["lost"]:
            yield warning("forwarder", f"{id_} had no room for reads and deleted the oldest, {one['lost']} times", todo)
        elif one["link"] == "connecting":
            old = duration(one["behind_us"] or 0)
            yield warning("forwarder", f"{id_} is still sending what it kept, {old} old", todo)
        elif one["left_out"]:
            yield warning("forwarder", f"reads of {id_} were left out because its clock was wrong", todo)
        else:
            yield ok("forwarder", f"{id_} is connected")


def standby(live: Mapping[str, Any], now_us: int) -> Iterator[Finding]:
    """Judge the gateway that can take over by the live state."""
    now = live.get("standby")
    if now is None:
        return
    if now["protected"]:
        yield ok("standby", "the standby has everything")
    else:
        since = duration(max(0, now_us - now["since_us"]))
        yield error(
            "standby",
            f"the service has been without its standby for {since}: {now['reason']}",
            "Look at its log there: journalctl -u tagtrail@STORE. See docs/gateways.md.",
        )
    if (witness := now["witness"]) is not None and witness["reason"]:
        yield warning(
            "witness",
            f"the witness can't be used: {witness['reason']}",
            "Without it the standby does not take over by itself. See docs/gateways.md.",
        )


def forwarding(folder: Path) -> Iterator[Finding]:
    """Judge a forwarder on its own gateway, by the folder in which it keeps reads; nothing if there is none."""
    try:
        runs, kept = spool.is_used(folder), spool.kept_bytes(folder)
    except FileNotFoundError:
        return
    except OSError as why:
        yield unknown("forwarder", f"{folder} can't be read: {why.strerror}", "Run this command as root.")
        return
    if runs:
        yield ok("forwarder", f"this gateway forwards, and keeps {kept / 1e6:.1f} MB of reads")
    else:
        yield error("forwarder", "this gateway is a forwarder, which does not run", START)


def standing_by(state: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge the standby on its own gateway, by what its process says."""
    todo = "See docs/gateways.md."
    if state["no_room"]:
        room = "Make room on this gateway's disk."
        yield error("standby", f"this gateway stands by, but can't keep the copy: {state['no_room']}", room)
    elif not state["whole"]:
        yield error("standby", "this gateway stands by, but has no whole copy yet", todo)
    elif not state["connected"]:
        yield error("standby", f"this gateway stands by, but the service is away: {state['reason']}", todo)
    elif state["unfit"]:
        yield error("standby", f"this gateway stands by, but can't take over: {state['unfit']}", todo)
    elif not state["protected"]:
        yield warning("standby", "this gateway stands by, and is being brought up to date", todo)
    else:
        yield ok("standby", "this gateway stands by, and has everything")
    if state["keyless"]:
        yield error(
            "tag key",
            "this gateway has another tag key than the service, or none: after a takeover nobody would be recognised",
            "Install the service's tag key here: docs/install.md, “Storing the tag key separately”.",
        )
    apart_us = abs(state["clock_offset_us"] or 0)
    if apart_us > APART_US:
        yield warning(
            "clock",
            f"the clocks of this gateway and of the service are {duration(apart_us)} apart: after a takeover, zones "
            "would be unknown for as long",
            "Have a time service on both: timedatectl set-ntp true.",
        )
    if state["witness"] is not None and state["witness"]["reason"]:
        yield warning("witness", f"it does not take over by itself: {state['witness']['reason']}", todo)


def by_service(
    live: Mapping[str, Any], antennas: Mapping[str, Sequence[Mapping[str, Any]]], now_us: int
) -> Iterator[Finding]:
    """Judge readers and antennas by the live state. `antennas`: of each reader, see edge.readers.antennas."""
    for reader in live["readers"]:
        id_ = reader["id"]
        todo = SEE_REASONS.format(id_)
        if reader["link"] != "up":
            since = duration(max(0, now_us - reader["since_us"]))
            yield error("reader", f"reader {id_} has been away for {since}: {reader['reason']}", todo)
            continue
        if reader.get("flooded"):
            yield warning(
                "reader",
                f"reader {id_} reports more new tags than a shop has",
                "Look for a device that imitates tags, or for merchandise without a tag class in the store file.",
            )
        yield from _antennas(id_, antennas.get(id_, ()), now_us)


def _antennas(id_: str, antennas: Sequence[Mapping[str, Any]], now_us: int) -> Iterator[Finding]:
    reads = [one["reads"] for one in antennas]
    latest_us = max((one["last_us"] or 0 for one in antennas), default=0)
    silent = []
    for one in antennas:
        others = [count for each, count in zip(antennas, reads, strict=True) if each is not one]
        quiet = one["last_us"] is None or latest_us - one["last_us"] >= SILENT_US
        if quiet and others and sum(others) / len(others) >= BUSY:
            silent.append(one)
    for one in silent:
        name = f"{id_}/{one['port']}"
        yield warning(
            "antenna",
            f"antenna {name} ({one['zone']}) has read nothing for {duration(latest_us - one['last_us'])}, others have"
            if one["last_us"]
            else f"antenna {name} ({one['zone']}) has read nothing since the service started, others have",
            "Check its cable and connector, and that nothing stands in front of it.",
        )
    if not silent:
        last = f"last read {duration(max(0, now_us - latest_us))} ago" if latest_us else "no read since the start"
        yield ok("reader", f"reader {id_} takes inventory, {last}")


async def examine(config: StoreConfig) -> AsyncIterator[Finding]:
    """See whether readers answer, without the service. Nothing is sent to LLRP readers."""
    for reader in config.readers:
        if reader.via is not None:
            yield unknown("reader", f"reader {reader.id} is tried by {reader.via} only")
            continue
        todo = SEE_REASONS.format(reader.id)
        address = reader.address
        if reader.driver == "llrp" and not reader.tls and not address.startswith("listen://"):
            try:
                found = [one async for one in scan_llrp(llrp_addresses([address], LLRP_PORT), 1, 10)]
            except Trouble as trouble:
                yield unknown("reader", f"reader {reader.id} was not tried: {trouble}", todo)
                continue
            if not found:
                yield error("reader", f"reader {reader.id} does not answer at {address}", todo)
            elif not found[0].driver:
                yield error("reader", f"reader {reader.id}: {found[0].text}", todo)
            else:
                yield ok("reader", f"reader {reader.id} answers: {found[0].text}")
        elif address.startswith("/"):
            yield _tty(reader.id, Path(address), todo)
        else:
            yield unknown("reader", f"reader {reader.id} is tried by the service only", todo)


def _tty(id_: str, device: Path, todo: str) -> Finding:
    if not device.exists():
        return error(
            "reader",
            f"reader {id_}: there is no {device}",
            "Check its cable and power, and the udev rule that gives it this name; see docs/install.md.",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return unknown("reader", f"reader {id_}: {device} can't be opened by this user", "Run this command as root.")
    return ok("reader", f"reader {id_}: {device} is there")
