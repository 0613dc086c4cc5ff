"""The broker: name, address, certificate, password and access rules.

While the service runs, it has the connection, and what it says counts. Without it, a connection of our own is tried,
and the store's own state is written and read, as the service would.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from config import StoreConfig, topics
from edge.database import reader as database
from edge.doctor.findings import Finding, error, ok, unknown, warning
from edge.store import broker
from edge.store.credentials import CREDSTORE, at_its_source
from edge.store.errors import Trouble
from sync.contract import State
from sync.mqtt import BrokerError, MqttConnection, MqttSettings, RefusedError, connect

FIRST_S, ECHO_S = 1.0, 10.0
"""Time for what the broker has kept, and for what was just written."""
WARN_DAYS = 30
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SEE_RULES = "Let this user of the broker write and read the store's topics; see docs/contract, “Access rules”."


def by_service(live: Mapping[str, Any]) -> Finding:
    """Judge the broker by what the service says of it."""
    said = live["broker"]
    if said["connected"] and not said["reason"]:
        return ok("broker", "the broker is connected")
    if said["connected"]:
        return warning("broker", f"the broker is connected, but: {said['reason']}", SEE_RULES)
    return error("broker", f"the broker is away: {said['reason']}", todo_for(said["reason"]))


def todo_for(reason: str) -> str:
    """Return what to do about a reason for which there is no connection."""
    said = reason.lower()
    hints = (
        ("operation not permitted", ALLOW_ADDRESS),
        ("certificate", "Check the certificates and their dates, and [mqtt] ca: openssl s_client shows the broker's."),
        ("not authorized", "Check [mqtt] username and the password file, and the broker's users."),
        ("bad user name", "Check [mqtt] username and the password file, and the broker's users."),
        ("credential", "Check that the file exists and that the service may read it; see docs/install.md, “Secrets”."),
        ("name", "Check [mqtt] url and the gateway's name server."),
        ("refused", "Check [mqtt] url and its port, and that the broker runs."),
    )
    return next((todo for sign, todo in hints if sign in said), "Check the network between the gateway and the broker.")


ALLOW_ADDRESS = "Allow the address in a drop-in: systemctl edit tagtrail@STORE, then [Service] IPAddressAllow=ADDRESS."


def certificates(live: Mapping[str, Any]) -> list[Finding]:
    """Judge certificates by what the service says of them."""
    return [_certificate(one["what"], one["days"], own=bool(one["file"])) for one in live.get("certificates", ())]


def _certificate(what: str, days: int, *, own: bool) -> Finding:
    todo = "Renew it, and restart the service." if own else "Let the broker's certificate be renewed."
    if days < 0:
        return error("certificates", f"the certificate {what} has expired", todo)
    if days <= WARN_DAYS:
        return warning("certificates", f"the certificate {what} expires in {days} d", todo)
    return ok("certificates", f"the certificate {what} holds for another {days} d")


async def examine(config: StoreConfig, config_file: Path) -> AsyncIterator[Finding]:
    """Try the broker as the service would, without it."""
    settings = with_credentials(broker.settings(config, "-doctor"), config_file.stem)
    try:
        addresses = await addresses_of(settings.host, settings.port)
    except OSError as failed:
        why = failed.strerror or str(failed)
        yield error("broker", f"the name {settings.host} was not found ({why})", todo_for("name"))
        return
    allowed = await asyncio.to_thread(unit_allows, config_file.stem)
    barred = [one for one in addresses if allowed is not None and not any(one in network for network in allowed)]
    if barred:
        yield error("broker address", f"the unit may not connect to {barred[0]}", ALLOW_ADDRESS)
    elif allowed is not None:
        yield ok("broker address", f"the unit may connect to {', '.join(map(str, addresses))}")
    if missing := _not_readable(settings):
        yield unknown("broker", f"the broker was not tried: only root can read {missing}", "Run this command as root.")
        return
    try:
        async with connect(settings) as connection:
            yield await _rules(connection, config)
            if connection.until_s is not None:
                yield _certificate("broker", int((connection.until_s - time.time()) // 86_400), own=False)
    except BrokerError as failed:
        yield error("broker", str(failed), todo_for(str(failed)))


def with_credentials(settings: MqttSettings, name: str) -> MqttSettings:
    """Replace credentials, which only the service has, by the files that systemd takes them from."""
    password_file, key = (at_its_source(file, name) for file in (settings.password_file, settings.key))
    return replace(settings, password_file=password_file, key=key)


async def addresses_of(host: str, port: int) -> list[Address]:
    """Resolve a name; OSError if that fails."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(at[0]) for *_, at in found]


def unit_allows(name: str) -> Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] | None:
    """Return the networks to which the unit may connect; None if systemd doesn't say, or if all are allowed."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not Path("/run/systemd/system").is_dir():
        return None
    said = subprocess.run(
        [systemctl, "show", "--property=LoadState,IPAddressDeny,IPAddressAllow", f"tagtrail@{name}"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    ).stdout
    return parse_allowed(said)


def parse_allowed(said: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network] | None:
    """Parse the answer of systemctl show."""
    told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded" or not told.get("IPAddressDeny"):
        return None
    return [ipaddress.ip_network(text) for text in told.get("IPAddressAllow", "").split()]


async def _rules(connection: MqttConnection, config: StoreConfig) -> Finding:
    """Write the store's state as the broker has it, or else as that of a store that is away, and wait for it."""
    store = config.store.id
    state = topics.topic(store, "state")
    try:
        await connection.subscribe([topics.topic(store, "down/ack/+"), state])
        there = await _state(connection, state, FIRST_S) or _away(config)
        if there is None:
            return ok("broker", "the broker lets this store in; its access rules show when the service has run once")
        await connection.publish(state, there, retain=True)
        if await _state(connection, state, ECHO_S) is None:
            return warning("broker", "the broker takes the store's state, but doesn't give it back", SEE_RULES)
    except RefusedError as refused:
        return error("broker", str(refused), SEE_RULES)
    return ok("broker", "the broker takes and gives back what this store writes")


def _away(config: StoreConfig) -> bytes | None:
    """Return what the service leaves when it stops; None if it has never run."""
    try:
        with closing(database.connect(config.database.path)) as conn:
            (epoch,) = conn.execute("SELECT value FROM fact WHERE name = 'epoch'").fetchone()
    except (sqlite3.Error, Trouble):
        return None
    told = State(
        store=config.store.id, online=False, version="-", epoch=epoch, config_generation="-", directory_generation=0
    )
    return told.model_dump_json().encode()


async def _state(connection: MqttConnection, topic: str, within_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(within_s):
            while True:
                for message in await connection.receive():
                    if message.topic == topic:
                        return message.payload
    except TimeoutError:
        return None


def _not_readable(settings: MqttSettings) -> Path | None:
    files = (settings.password_file, settings.key)
    return next((file for file in files if file and CREDSTORE in file.parents and not os.access(file, os.R_OK)), None)
