"""The whole examination, by hand or daily in the service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.cues.orders import ask
from edge.doctor import broker, machine, readers, stored
from edge.doctor.findings import ORDER, Finding, State, error
from edge.forwarding.spool import folder_of
from edge.store.live_socket import follow, read_once, socket_path

ASK_S = 2.0
Live = Mapping[str, Any]
Antennas = Mapping[str, Sequence[Mapping[str, Any]]]


async def by_hand(config: StoreConfig, config_file: Path, version: str, clock: Callable[[], int]) -> list[Finding]:
    """Examine a gateway: with what its service says if it runs, else with trials of our own."""
    live = await read_once(socket_path(config))
    if live is None:
        standby = await ask(socket_path(config, "standby"), {"do": "tell"}, ASK_S)
        if "whole" in standby:
            found = await asyncio.to_thread(_without_service, config_file, version)
            return _told([*found, *readers.standing_by(standby)], config_file)
        if not config.database.path.exists() and (forwards := [*readers.forwarding(folder_of(config.database.path))]):
            found = await asyncio.to_thread(_without_service, config_file, version)
            return _told([*found, *forwards], config_file)
        found = await asyncio.to_thread(_of_machine, config, config_file, version, None, clock())
        found += [one async for one in broker.examine(config, config_file)]
        found += [one async for one in readers.examine(config)]
        return _told(found, config_file)
    antennas = {}
    for reader in live["readers"]:
        async for state in follow(socket_path(config), reader["id"]):
            antennas[reader["id"]] = state["antennas"]
            break
    return await in_service(config, config_file, version, live, antennas)


async def in_service(
    config: StoreConfig, config_file: Path, version: str, live: Live, antennas: Antennas
) -> list[Finding]:
    """Examine a gateway with its service's live state."""
    now_us = live["as_of_us"]
    found = await asyncio.to_thread(_of_machine, config, config_file, version, live, now_us)
    found += [broker.by_service(live), *broker.certificates(live), *readers.by_service(live, antennas, now_us)]
    found += readers.forwarders(live, now_us)
    found += readers.standby(live, now_us)
    return _told(found, config_file)


def as_text(findings: Sequence[Finding]) -> str:
    """Render the findings as lines: the worst first, each with what to do."""
    width = max(len(one.what) for one in findings)
    rows = []
    for one in findings:
        rows.append(f"{SIGNS[one.state]}  {one.what:{width}}  {one.said}")
        if one.todo and one.state is not State.OK:
            rows.append(f"{'':{len(SIGNS[one.state])}}  {'':{width}}  → {one.todo}")
    return "\n".join(rows)


SIGNS = {State.OK: "ok     ", State.WARNING: "warning", State.ERROR: "ERROR  ", State.UNKNOWN: "?      "}


def as_json(findings: Sequence[Finding]) -> str:
    """Render the findings as a JSON list of objects."""
    return json.dumps([asdict(one) for one in findings], ensure_ascii=False)


def _without_service(file: Path, version: str) -> list[Finding]:
    """A machine that is not meant to run the service."""
    return [*stored.store_file(file), *machine.examine(version, file, live_version=None), machine.clock(None, "")]


def _of_machine(config: StoreConfig, file: Path, version: str, live: Live | None, now_us: int) -> list[Finding]:
    found = [
        *stored.store_file(file),
        *machine.examine(version, file, live_version=None if live is None else str(live["version"])),
        *stored.database(config, now_us),
        stored.backup(config, time.time()),
        *stored.directory(config, now_us),
        *stored.page(config),
    ]
    if live is None:
        found.append(machine.clock(None, ""))
        found.append(error("service", "the service is not running", readers.START))
        return found
    found.append(machine.clock(live["clock"]["trust"], live["clock"]["reason"]))
    if (process := live.get("process")) is not None:  # of an older release it is not told
        found += machine.written(process["up_s"], process["written_bytes"])
    found.append(stored.backlog({name: depth["pending"] for name, depth in live["outbox"].items()}))
    if trouble := live["database"]["trouble"]:
        found.append(error("database", f"the service can't write the database: {trouble}", SEE_LOG))
    return found + [
        error("service", f"{job['job']} fails ({job['times']} ×): {job['reason']}", SEE_LOG) for job in live["failing"]
    ]


SEE_LOG = "Look at the service's log: journalctl -u tagtrail@STORE -p warning."


def _told(found: Sequence[Finding], config_file: Path) -> list[Finding]:
    """Return the worst first, with the name of the unit's instance in what to do."""
    found = [replace(one, todo=one.todo.replace("STORE", config_file.stem)) for one in found]
    return sorted(found, key=lambda one: ORDER.index(one.state))
