"""The service as store IT runs it: real readers' wires, real brokers, and what happens when things break."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from brokers import MosquittoBroker
from forked import Forked
from gateways import WAIT_S, Gateway, antennas, member_card
from llrpkit.emulator import EmulatedTag, LLRPEmulator

from edge.web.exports.metrics import fetch
from simulators.headquarters.broker import NatsBroker
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

MEMBERS = 6


def members_csv(folder: Path) -> Path:
    file = folder / "members.csv"
    rows = [f"{member_card(n).hex()},M{n:04},{'AB'[n % 2]},{int(n != 0)},\n" for n in range(MEMBERS)]
    file.write_text("epc,member,tier,consent,hint\n" + "".join(rows))
    return file


class Crm:
    """`tagtrail crm` as a process."""

    def __init__(self, folder: Path, url: str) -> None:
        self.database = folder / "crm.db"
        self.status_file = folder / "crm.json"
        self.process = Forked("crm", "--url", url, "--database", self.database, "--status", self.status_file)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.status_file.read_text())) if self.status_file.exists() else {}

    async def until_received(self, number: int) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while self.status().get("received", 0) < number:
                assert self.process.poll() is None
                await asyncio.sleep(0.05)
        return self.status()

    def ids(self) -> list[str]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as conn:
            return [row[0] for row in conn.execute("SELECT id FROM event ORDER BY class, seq")]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def sent(gateway: Gateway) -> int:
    return int(gateway.rows("SELECT sum(next_seq - 1) FROM outbox_class")[0][0])


async def test_a_foreign_reader_and_mosquitto_end_to_end(gateway: Gateway, mosquitto: MosquittoBroker) -> None:
    """llrpkit's emulator is the reader, Mosquitto the broker: neither is of our making."""
    tags = [EmulatedTag(member_card(n), (1 + n % 2,)) for n in range(MEMBERS)]
    async with LLRPEmulator(tags=tags, reads_per_sec=200) as reader:
        gateway.configure(
            mqtt={"url": mosquitto.url},
            readers=[
                {
                    "id": "r1",
                    "driver": "llrp",
                    "address": f"127.0.0.1:{reader.port}",
                    "antennas": antennas("door", "shoes"),
                }
            ],
        )
        assert (
            gateway.run("directory", "import", str(members_csv(gateway.folder)), "-c", str(gateway.file)).returncode
            == 0
        )
        crm = Crm(gateway.folder, mosquitto.url)
        try:
            gateway.start(cold=True)
            state = await gateway.until(
                lambda s: len(s["members"]) == MEMBERS - 1 and s["outbox"]["member"]["pending"] == 0
            )
            assert [r["link"] for r in state["readers"]] == ["up"]
            assert {z["id"]: z["state"] for z in state["zones"]} == {
                "door": "ok",
                "shoes": "ok",
                "bags": "unknown",
                "out": "unknown",
            }
            assert {m["member"] for m in state["members"]} == {f"M{n:04}" for n in range(1, MEMBERS)}
            with urllib.request.urlopen(state["page"], timeout=WAIT_S) as page:
                assert page.status == 200
            assert gateway.end() == 0, gateway.log()
            status = await crm.until_received(sent(gateway))
            assert (status["received"], status["gaps"]) == (sent(gateway), 0)
        finally:
            crm.end()
    # M0000 has not consented: known to the directory, announced to nobody.
    assert gateway.rows("SELECT count(*) FROM recognised") == [(MEMBERS - 1,)]


async def test_killed_twice_and_nothing_is_lost_or_told_twice(gateway: Gateway, nats: NatsBroker) -> None:
    tags = [EmulatedTag(member_card(n), (1 + n % 4,)) for n in range(MEMBERS)]
    async with LLRPEmulator(tags=tags, reads_per_sec=200) as reader:
        gateway.configure(
            mqtt={"url": nats.url},
            readers=[
                {
                    "id": "r1",
                    "driver": "llrp",
                    "address": f"127.0.0.1:{reader.port}",
                    "antennas": antennas("door", "shoes", "bags", "out"),
                }
            ],
        )
        gateway.run("directory", "import", str(members_csv(gateway.folder)), "-c", str(gateway.file))
        crm = Crm(gateway.folder, nats.url)
        try:
            entered: dict[str, int] = {}
            for _ in range(2):
                gateway.start("--no-web")
                state = await gateway.until(lambda s: len(s["members"]) == MEMBERS - 1 and s["reads"] > 200)
                now = {member["member"]: member["since_us"] for member in state["members"]}
                await gateway.until(lambda s, after=state["watermark_us"]: s["watermark_us"] > after + 2_000_000)
                # A restart goes on inside the same visits.
                assert {m: now[m] for m in entered} == entered
                entered = now
                gateway.end(signal.SIGKILL)
            gateway.start("--no-web", cold=True)
            await gateway.until(lambda s: s["reads"] > 200 and len(s["members"]) == MEMBERS - 1)
            assert gateway.end() == 0, gateway.log()
            status = await crm.until_received(sent(gateway))
            assert (status["received"], status["gaps"]) == (sent(gateway), 0)
            ids = crm.ids()
            assert len(ids) == len(set(ids)) == sent(gateway)
        finally:
            crm.end()
    # Each member was announced once in this journey, restarts or not.
    assert gateway.rows("SELECT next_seq - 1 FROM outbox_class WHERE class = 0") == [(MEMBERS - 1,)]


ZONE_OF = {"absent": "shoes", "babble": "shoes", "good": "door"}


async def test_no_broker_no_reader_and_garbage_is_a_running_service_that_says_so(gateway: Gateway) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    tags = [EmulatedTag(member_card(1), (1,))]
    async with server, LLRPEmulator(tags=tags, reads_per_sec=100) as good:
        addresses = {
            "absent": "127.0.0.1:1",
            "babble": f"127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "good": f"127.0.0.1:{good.port}",
        }
        gateway.configure(
            readers=[
                {"id": id_, "driver": "llrp", "address": address, "antennas": antennas(ZONE_OF[id_])}
                for id_, address in addresses.items()
            ]
        )  # fmt: skip
        gateway.start("--no-web")
        state = await gateway.until(
            lambda s: (
                s["reads"] > 50
                and not s["broker"]["connected"]
                and s["broker"]["reason"] != "not yet connected"
                and all(r["link"] == "down" for r in s["readers"] if r["id"] != "good")
            )
        )
        reasons = {r["id"]: r["reason"] for r in state["readers"]}
        assert "refused" in reasons["absent"].lower()
        assert "not LLRP" in reasons["babble"]
        assert {z["id"]: z["state"] for z in state["zones"]}["shoes"] == "unknown"
        summary = gateway.run("summary", "-c", str(gateway.file))
        assert summary.returncode == 0, summary.stderr
        assert "refused" in summary.stdout
        assert gateway.end() == 0
    assert sent(gateway) == gateway.rows("SELECT count(*) FROM outbox")[0][0] > 0


async def test_who_asks_first_is_told_how_fast_readers_read(gateway: Gateway) -> None:
    simulated = LlrpReader(lambda: time.time_ns() // 1000)
    gateway.configure(
        readers=[{"id": "r1", "driver": "llrp", "address": await simulated.start(), "antennas": antennas("door")}]
    )
    gateway.start("--no-web")
    try:
        async with asyncio.timeout(WAIT_S):
            while simulated.sent < 100:  # all of them seconds after the first
                simulated.push([Observation(time.time_ns() // 1000, 1, member_card(1), -5000)])
                await asyncio.sleep(0.03)
        state = await gateway.live()
        assert state is not None
        assert state["readers"][0]["reads_per_s"] > 5
        assert state["reads_per_s"] > 5
        assert gateway.end() == 0, gateway.log()
    finally:
        await simulated.stop()


async def test_a_page_that_is_killed_comes_back(gateway: Gateway) -> None:
    gateway.configure()
    gateway.start()
    state = await gateway.until(lambda s: s["page"] is not None)
    children = Path(f"/proc/{state['pid']}/task/{state['pid']}/children")

    async def page_process() -> int:
        async with asyncio.timeout(WAIT_S):
            while not (ids := children.read_text().split()):
                await asyncio.sleep(0.05)
        return int(ids[0])

    async def answers() -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    with await asyncio.to_thread(urllib.request.urlopen, state["page"], timeout=5) as page:
                        assert page.status == 200
                        return
                except OSError:
                    await asyncio.sleep(0.1)

    await answers()
    first = await page_process()
    subprocess.run(["kill", "-9", str(first)], check=True)
    # The service answers for itself meanwhile.
    measured = await fetch(gateway.database.with_name("store.db.monitor"))
    assert measured is not None
    assert b"\ntagtrail_up 1.0\n" in measured
    assert b"\ntagtrail_page_up " in measured
    await answers()
    second = await page_process()
    assert second != first
    # Nor does it outlive the service: the next one would find its port taken.
    gateway.end(signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while Path(f"/proc/{second}").exists():
            await asyncio.sleep(0.05)


def test_a_port_in_use_is_one_line(gateway: Gateway) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway.configure(web={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        result = gateway.run("run", "-c", str(gateway.file))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "choose another [web] listen" in result.stderr


def test_an_unusable_database_is_one_line(gateway: Gateway) -> None:
    (gateway.folder / "file").write_text("")
    gateway.configure(database={"path": str(gateway.folder / "file" / "store.db")})
    result = gateway.run("run", "-c", str(gateway.file))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "database" in result.stderr


async def test_a_second_service_on_the_database_is_refused(gateway: Gateway) -> None:
    gateway.configure()
    gateway.start("--no-web")
    await gateway.until(lambda s: True)
    second = gateway.run("run", "-c", str(gateway.file), "--no-web")
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "another service runs" in second.stderr
    assert gateway.end(signal.SIGKILL) == -signal.SIGKILL
    gateway.start("--no-web")  # a lock dies with its holder
    await gateway.until(lambda s: True)


@pytest.mark.parametrize("timezone", ["Asia/Peking", "+08:00"])
def test_a_wrong_time_zone_is_told_with_its_line(gateway: Gateway, timezone: str) -> None:
    gateway.configure(store={"id": "s1", "name": "x", "timezone": timezone})
    for command in (("run", "-c"), ("check",)):
        result = gateway.run(*command, str(gateway.file))
        assert result.returncode == 2
        assert "timezone" in result.stderr
        assert timezone in result.stderr
