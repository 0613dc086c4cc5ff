"""One store with a reader of every kind, from their wires to the CRM."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from brokers import CrmProcess
from gateways import STORE, WAIT_S, Gateway, antennas, member_card

from edge.readers.scan import SERIAL_FAMILIES
from simulators.headquarters.broker import NatsBroker
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation
from simulators.readers.pushed import json_reader
from simulators.readers.serial_families import serial_reader

JSON = {"impinj": "http://127.0.0.1:0", "zebra": "ws://127.0.0.1:0", "keonn": "ws://127.0.0.1:0"}
CAPTURED = {
    # By how the commands begin. Tag frames are what readers sent in public logs (drivers/serial/test_captured.py),
    # answers to settings are built by the documents.
    "chainway": {
        "a55a000802": "A55A000B03072801260D0A",
        "a55a00088c": "A55A00098D01850D0A",
        "a55a000b28": "A55A00092901210D0A",
        "a55a000c70": "A55A00097101790D0A",
        "a55a000a82": "A55A0019833000E200001B66040082172034D500D401B00D0A",
    },
    "gx": {
        "5a000102ff": "5A000102FF00010079B1",
        "5a00010100": "5A00010100000100DCC0",
        "5a00010200": "5A000102000001003212",
        "5a00010210": "5A0001021000010029B5"
        "5A00011200002B000CE2801160600002094ED74AA6300001014B020003000CE2801160200062A6DAE9092908000E1A5A09645EFC",
    },
}
TAGS = {"chainway": "E200001B66040082172034D5", "gx": "E2801160600002094ED74AA6"}


def now_us() -> int:
    return time.time_ns() // 1000


def members_in(database: Path) -> set[str]:
    if not database.exists():
        return set()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as conn:
        rows = conn.execute("SELECT json_extract(payload, '$.member') FROM event WHERE class = 'member'")
        return {member for (member,) in rows if member}


@asynccontextmanager
async def captured(answers: dict[str, str]) -> AsyncIterator[str]:
    """A serial server that answers with what real readers have said, the last of it again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := (await reader.read(512)).hex():
            for begins, answer in answers.items():
                if begins in command:
                    writer.write(bytes.fromhex(answer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_member_before_each_kind_of_reader_is_announced(gateway: Gateway, nats: NatsBroker) -> None:
    made: dict[str, tuple[Any, dict[str, Any]]] = {
        "llrp": (LlrpReader(now_us, name="l", tcp_port=0), {"driver": "llrp"})
    }
    made |= {name: (serial_reader(name, now_us), {"driver": name}) for name in SERIAL_FAMILIES}
    for profile, address in JSON.items():
        entry = {"driver": "json", "profile": profile} | ({"preset": "default"} if profile == "impinj" else {})
        made[profile] = (json_reader(now_us, profile, address), entry)
    entries, cards = [], {}
    for number, (name, (reader, entry)) in enumerate(made.items()):
        address = await reader.start()
        entries.append({"id": name, "address": address, "antennas": antennas("door")} | entry)
        cards[name] = member_card(number)

    async def see() -> None:
        while True:
            for name, (reader, _) in made.items():
                reader.push([Observation(now_us(), 1, cards[name], -5000)])
            await asyncio.sleep(0.2)

    seeing = asyncio.create_task(see())
    crm = CrmProcess(gateway.folder, nats.url)
    try:
        async with AsyncExitStack() as stack:
            for name, answers in CAPTURED.items():
                address = await stack.enter_async_context(captured(answers))
                entries.append({"id": f"real-{name}", "driver": name, "address": address, "antennas": antennas("door")})
                cards[f"real-{name}"] = bytes.fromhex(TAGS[name])
            classes = [{"class": "member", "epc_prefix": tag[:8]} for tag in TAGS.values()]
            gateway.configure(mqtt={"url": nats.url}, readers=entries, tag_classes=STORE["tag_classes"] + classes)
            rows = "".join(f"{card.hex()},M-{name},A,1,\n" for name, card in cards.items())
            (gateway.folder / "members.csv").write_text("epc,member,tier,consent,hint\n" + rows)
            told = gateway.run("directory", "import", str(gateway.folder / "members.csv"), "-c", str(gateway.file))
            assert told.returncode == 0, told.stderr
            await crm.start()
            gateway.start("--no-web")
            wanted = {f"M-{name}" for name in cards}
            state = await gateway.until(lambda s: {member["member"] for member in s["members"]} >= wanted)
            assert {entry["link"] for entry in state["readers"]} == {"up"}
            async with asyncio.timeout(WAIT_S):
                while not members_in(gateway.folder / "crm.db") >= wanted:
                    await asyncio.sleep(0.1)
            assert gateway.end() == 0, gateway.log()
    finally:
        seeing.cancel()
        await crm.close()
        for reader, _ in made.values():
            await reader.stop()
