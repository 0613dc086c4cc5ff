"""Find readers: LLRP and HTTP on given addresses, serial readers on given ports; slowly, and without side effects."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from glob import glob
from typing import Any, NamedTuple

from drivers.llrp import codec
from drivers.llrp.wire import Address
from drivers.open import serial_family
from drivers.serial.session import ReaderError, SerialSession
from drivers.serial.transport import Line, TransportError, open_line
from drivers.session import Contact, Gap, Notice, ReaderSettings, ReaderStatus
from edge.store.errors import Trouble

ADDRESSES_MAX = 4096
CONNECT_S = 1.5
GREETING_S = 3.0
GREETING_BYTES_MAX = 1 << 20
"""Limit for the greeting, before which a reader may deliver its backlog."""
STATUS_PATH = "/api/v1/status"
SERIAL_PLACES = ("/dev/rfid/*", "/dev/ttyUSB*", "/dev/ttyACM*")
SERIAL_FAMILIES = (
    "thingmagic",
    "r2000",
    "m100",
    "chafon-cf",
    "chainway",
    "hopeland",
    "gx",
    "nordicid",
    "tsl",
    "metratec",
    "uhfreader18",
)
"""Serial families in the order of trial: the last one's frames have no head, which others may misunderstand."""


class Finding(NamedTuple):
    """Result for an address; no `driver` if no known reader is there."""

    address: str
    driver: str
    text: str


def llrp_addresses(given: Sequence[str], port: int) -> list[Address]:
    """Expand hosts, host:port and CIDR networks to single addresses; Trouble for invalid ones, or too many."""
    found: list[Address] = []
    for text in given:
        if "/" in text:
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise Trouble(f"{text} is no network: {error}") from error
            if network.num_addresses > ADDRESSES_MAX:
                raise Trouble(f"{text} has {network.num_addresses} addresses; scan {ADDRESSES_MAX} at most at a time")
            found += [Address(str(host), port) for host in network.hosts()]
            continue
        try:
            address = Address.parse(text)
        except ValueError as error:
            raise Trouble(str(error)) from error
        alone = text in (address.host, f"[{address.host}]")
        found.append(Address(address.host, port) if alone else address)
    if len(found) > ADDRESSES_MAX:
        raise Trouble(f"{len(found)} addresses are too many; scan {ADDRESSES_MAX} at most at a time")
    return list(dict.fromkeys(found))


def serial_ports() -> list[str]:
    """Return the serial ports of this machine that a reader may be connected to, by udev's names where possible."""
    return sorted(path for pattern in SERIAL_PLACES for path in glob(pattern))


async def search(
    given: Sequence[str], *, port: int = 5084, at_once: int = 4, per_s: float = 10
) -> AsyncIterator[Finding]:
    """Iterate over what is found at hosts and networks (LLRP), http(s)://host (JSON), devices and tcp://host:port
    (serial); Trouble for invalid addresses."""
    lines, pages, networks = apart(given)
    async for finding in scan_llrp(llrp_addresses(networks, port), at_once, per_s):
        yield finding
    for page in pages:
        yield await scan_http(page)
    for line in lines:
        yield await scan_serial(line)


def apart(given: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Divide places into serial lines, HTTP addresses, and hosts or networks."""
    lines = [text for text in given if text.startswith(("/", "tcp://"))]
    pages = [text for text in given if text.startswith(("http://", "https://"))]
    return lines, pages, [text for text in given if text not in lines + pages]


async def scan_llrp(addresses: Sequence[Address], at_once: int, per_s: float) -> AsyncIterator[Finding]:
    """Iterate over what answers; at most `at_once` connections at a time and `per_s` new ones a second."""
    loop = asyncio.get_running_loop()
    waiting: set[asyncio.Task[Finding | None]] = set()
    next_s = loop.time()
    try:
        for address in addresses:
            await asyncio.sleep(next_s - loop.time())
            next_s = max(loop.time(), next_s) + 1 / per_s
            if len(waiting) >= at_once:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for finding in _found(done):
                    yield finding
            waiting.add(asyncio.create_task(_greeting(address)))
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for finding in _found(done):
                yield finding
    finally:
        for task in waiting:
            task.cancel()


def _found(done: set[asyncio.Task[Finding | None]]) -> Iterator[Finding]:
    yield from (finding for task in done if (finding := task.result()) is not None)


async def _greeting(address: Address) -> Finding | None:
    """Read a reader's greeting and disconnect without sending anything; None if nothing answers."""
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return None
    status, heard = "", False
    try:
        async with asyncio.timeout(GREETING_S):
            async for message in _messages(reader):
                heard = True
                if status := str(codec.event_of(message).get("ConnectionAttemptEvent", {}).get("Status", "")):
                    break
    except (OSError, TimeoutError, asyncio.IncompleteReadError, codec.NotLlrp):
        pass
    finally:
        writer.transport.abort()
    if not heard:
        return Finding(str(address), "", "the port is open, but no LLRP reader greets")
    if status == "Success":
        return Finding(str(address), "llrp", "LLRP reader, free")
    if "initiated connection already exists" in status:
        return Finding(str(address), "llrp", "LLRP reader, in use by another client")
    if status:
        return Finding(str(address), "llrp", f"LLRP reader, refuses connections ({status})")
    return Finding(str(address), "llrp", "LLRP reader, but it does not say whether it is free")


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[codec.Message]:
    """Iterate over LLRP messages of known types; the greeting need not be the first. NotLlrp."""
    left = GREETING_BYTES_MAX
    while True:
        head = await reader.readexactly(codec.HEADER_BYTES)
        header = codec.header_at(head, 0, len(head))
        if header is None or header.length > left:
            raise codec.NotLlrp("no greeting is that long")
        left -= header.length
        whole = head + await reader.readexactly(header.length - len(head))
        if header.type != codec.RO_ACCESS_REPORT:
            with suppress(codec.Malformed):
                yield codec.decode(whole)


async def scan_http(url: str) -> Finding:
    """Ask an address for the state of Impinj's IoT device interface; nothing is changed."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=GREETING_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            # It is only looked at: no password is sent.
            http.get(url.rstrip("/") + STATUS_PATH, ssl=False, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(4096)
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return Finding(url, "", "nothing answers HTTP there")
    if status == 401:
        return Finding(url, "json", f"asks for username and password at {STATUS_PATH}: an Impinj IoT device interface?")
    if status == 200 and b'"status"' in body and body.lstrip().startswith(b"{"):
        return Finding(url, "json", "Impinj IoT device interface")
    return Finding(url, "", f"answers HTTP, but has no {STATUS_PATH} ({status})")


class _Deaf:
    """Sink for sessions that only identify."""

    async def reads(self, reader: str, batch: Any) -> None: ...

    def status(self, status: ReaderStatus) -> None: ...

    def gap(self, gap: Gap) -> None: ...

    def notice(self, notice: Notice) -> None: ...

    def contact(self, contact: Contact) -> None: ...


async def scan_serial(port: str) -> Finding:
    """Find the family that answers on a tty or tcp://host:port: each at its usual baud rate, then each at its
    others. All ask over one connection: many readers take one at a time, and some need seconds until they take the
    next. One that hangs up on what it doesn't understand is connected to again.
    """
    line: Line | None = None
    hung_up = False
    try:
        for family, session, bauds in _trials(port):
            try:
                line = line or await open_line(port, bauds[0])
            except TransportError as error:
                return Finding(port, "", str(error))
            try:
                detail = await session.identify(line, bauds)
            except ReaderError:
                continue
            except TransportError:
                hung_up = True
                await line.close()
                line = None
                continue
            return Finding(port, family, ", ".join(f"{name} {text}" for name, text in detail.items()))
    finally:
        if line is not None:
            await line.close()
    how = ": it hangs up" if hung_up else ""
    return Finding(port, "", f"no reader of a known family answers{how}")


def _trials(port: str) -> list[tuple[str, SerialSession[object], tuple[int, ...]]]:
    """Return the families to try with their baud rates; a serial server has its own."""
    sessions = [
        (family, serial_family(family)(ReaderSettings("scan", family, port, {1: 0}), _Deaf(), lambda: 0))
        for family in SERIAL_FAMILIES
    ]
    usual = [(family, session, session.BAUDS[:1]) for family, session in sessions]
    others = [(family, session, session.BAUDS[1:]) for family, session in sessions if session.BAUDS[1:]]
    return usual if port.startswith("tcp://") else usual + others
