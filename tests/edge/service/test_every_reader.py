"""One store with a reader of every kind, simulated and with captured bytes: from `readers test` over the service to an
MQTT subscriber."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from brokers import CrmProcess
from captured_json import MESSAGES
from captured_readers import CAPTURED, captured_reader
from gateways import STORE, WAIT_S, Gateway, member_card
from llrp_peers import free_port

from drivers.open import SERIAL
from simulators.headquarters.broker import NatsBroker
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation
from simulators.readers.pushed import GENERIC, json_reader
from simulators.readers.serial_families import serial_reader

AT_ONCE = 6
"""Commands at a time."""
KATHREIN_PEN = 6437
JSON: dict[str, tuple[str, str, dict[str, Any]]] = {
    "impinj by stream": ("impinj", "http://127.0.0.1:0", {"preset": "default"}),
    "impinj by webhook": ("impinj", "listen", {"heartbeat_s": 30}),
    "impinj over MQTT": ("impinj", "mqtt", {}),
    "zebra by WebSocket": ("zebra", "ws://127.0.0.1:0", {}),
    "zebra by POST": ("zebra", "listen", {"heartbeat_s": 30}),
    "zebra over MQTT": ("zebra", "mqtt", {}),
    "keonn by POST": ("keonn", "listen", {}),
    "keonn over MQTT": ("keonn", "mqtt", {}),
    "speedway by POST": ("speedway", "listen", {}),
    "generic by stream": ("generic", "http://127.0.0.1:0", {"mapping": GENERIC}),
    "generic by WebSocket": ("generic", "ws://127.0.0.1:0", {"mapping": GENERIC}),
    "generic by POST": ("generic", "listen", {"mapping": GENERIC}),
    "generic over MQTT": ("generic", "mqtt", {"mapping": GENERIC}),
}
"""Profile, way and further keys."""


def now_us() -> int:
    return time.time_ns() // 1000


def hung(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "zone": "door", "position": [3.0, 3.0]} for port in ports]


def members_in(database: Path) -> set[str]:
    """Members whose recognition the CRM has committed from the broker."""
    if not database.exists():
        return set()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as conn:
        rows = conn.execute("SELECT json_extract(payload, '$.member') FROM event WHERE class = 'member'")
        return {member for (member,) in rows if member}


@dataclass
class Shop:
    """Entries of the store file, and each reader's tag by name."""

    broker: str
    entries: list[dict[str, Any]] = field(default_factory=list)
    tags: dict[str, bytes] = field(default_factory=dict)
    seeing: list[tuple[Any, int, bytes]] = field(default_factory=list)
    """Simulated readers, each with the port and the tag that it sees."""
    posting: list[tuple[str, bytes]] = field(default_factory=list)
    """Addresses and the bodies that are sent there again and again."""

    def add(self, name: str, tag: bytes, *ports: int, **entry: Any) -> None:
        id_ = f"r{len(self.entries)}"
        self.entries.append({"id": id_, "antennas": hung(*ports)} | entry)
        self.tags[name] = tag

    def address(self, way: str) -> str:
        """An address for a way on which readers come to us, or the way itself."""
        if way == "listen":
            return f"listen://127.0.0.1:{free_port()}/reader"
        return f"{self.broker}/readers/{len(self.entries)}" if way == "mqtt" else way

    async def simulate(self, stack: AsyncExitStack) -> None:
        """Add a simulated reader of each kind."""
        llrp = {"llrp": LlrpReader(now_us, name="l"), "kathrein": LlrpReader(now_us, name="k", maker=KATHREIN_PEN)}
        made: list[tuple[str, Any, int, dict[str, Any]]] = [
            (name, reader, 1, {"driver": "llrp"}) for name, reader in llrp.items()
        ]
        made += [(name, serial_reader(name, now_us), 1, {"driver": name}) for name in SERIAL]
        made.append(("r2000, 16 ports", serial_reader("r2000", now_us, 16), 12, {"driver": "r2000"}))
        for name, reader, port, entry in made:
            address = await reader.start()
            stack.push_async_callback(reader.stop)
            self._simulated(name, reader, port, {**entry, "address": address})
        for name, (profile, way, keys) in JSON.items():
            pushing = json_reader(now_us, profile, self.address(way))
            address = await pushing.start()
            stack.push_async_callback(pushing.stop)
            self._simulated(name, pushing, 1, {"driver": "json", "profile": profile, "address": address, **keys})

    def _simulated(self, name: str, reader: Any, port: int, entry: dict[str, Any]) -> None:
        tag = member_card(len(self.entries))
        self.add(name, tag, port, **entry)
        self.seeing.append((reader, port, tag))

    async def capture(self, stack: AsyncExitStack) -> None:
        """Add a reader for all that was captured of real ones."""
        for name, told in CAPTURED.items():
            address = await stack.enter_async_context(captured_reader(name))
            self.add(f"real {name}", bytes.fromhex(told.epc), *told.ports, driver=told.driver, address=address)
        for name, (profile, body, reads) in MESSAGES.items():
            ports = {port for _, port, *_ in reads if port is not None} or {1}
            address = self.address("listen")
            self.add(
                f"real {name}", bytes.fromhex(reads[0][0]), *ports, driver="json", profile=profile, address=address
            )
            self.posting.append((address.replace("listen", "http"), body))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """People stand before the readers, and what was captured is sent again."""

        async def see() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
                while True:
                    for reader, port, tag in self.seeing:
                        reader.push([Observation(now_us(), port, tag, -5000)])
                    for url, body in self.posting:
                        with suppress(aiohttp.ClientError):  # nobody listens until the reader is tested or runs
                            (await http.post(url, data=body)).release()
                    await asyncio.sleep(0.2)

        seeing = asyncio.create_task(see())
        try:
            yield
        finally:
            seeing.cancel()
            with suppress(asyncio.CancelledError):
                await seeing

    def classes(self) -> list[dict[str, str]]:
        prefixes = {tag.hex().upper()[:8] for tag in self.tags.values()}
        return [{"class": "member", "epc_prefix": prefix} for prefix in sorted(prefixes)]

    def directory(self) -> str:
        rows = {f"{tag.hex()},M-{tag.hex()},A,1,\n" for tag in self.tags.values()}
        return "epc,member,tier,consent,hint\n" + "".join(sorted(rows))

    def members(self) -> set[str]:
        return {f"M-{tag.hex()}" for tag in self.tags.values()}


async def passes(gateway: Gateway, reader: dict[str, Any], turn: asyncio.Semaphore) -> str:
    """Run `readers test`; returns what it says if it fails."""
    async with turn:
        done = await asyncio.to_thread(
            gateway.run, "readers", "test", reader["id"], "--config", str(gateway.file), "--seconds", "0.5"
        )
    return "" if done.returncode == 0 else f"{reader}: {done.stdout}{done.stderr}"


@pytest.mark.timeout(400)  # some fifty commands and a service
async def test_a_member_before_each_kind_of_reader_is_announced(gateway: Gateway, nats: NatsBroker) -> None:
    shop, crm = Shop(nats.url), CrmProcess(gateway.folder, nats.url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(crm.close)
        await shop.simulate(stack)
        await shop.capture(stack)
        gateway.configure(
            mqtt={"url": nats.url}, readers=shop.entries, tag_classes=[*STORE["tag_classes"], *shop.classes()]
        )
        directory = gateway.folder / "members.csv"
        directory.write_text(shop.directory())
        await stack.enter_async_context(shop.open())

        turn = asyncio.Semaphore(AT_ONCE)
        failed = await asyncio.gather(*(passes(gateway, entry, turn) for entry in shop.entries))
        assert not any(failed), "".join(failed)

        told = gateway.run("directory", "import", str(directory), "-c", str(gateway.file))
        assert told.returncode == 0, told.stderr
        await crm.start()
        gateway.start("--no-web")
        await gateway.until(lambda s: all(entry["reads"] and entry["link"] == "up" for entry in s["readers"]))
        async with asyncio.timeout(WAIT_S):
            while not members_in(gateway.folder / "crm.db") >= shop.members():
                await asyncio.sleep(0.1)
        assert gateway.end() == 0, gateway.log()
