"""A cue from the antenna to the page and the CRM, and that a crash tells nothing twice."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from forked import Forked
from gateways import WAIT_S, Gateway, antennas, member_card
from llrpkit.emulator import EmulatedTag, LLRPEmulator

from config.check import load
from edge.access.users import Role, Users, users_path
from simulators.headquarters.broker import NatsBroker

PASSWORD = "correct horse battery"
RULES = {"rules": [{"id": "vip", "kind": "arrival", "tiers": ["A"], "expires_s": 3600}]}


class Browser:
    """A manager's, without the pictures."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self._csrf(self.get("/login"))
        self.post("/login", name="li", password=PASSWORD)

    def get(self, path: str) -> str:
        with self._opener.open(urllib.request.Request(self._url + path, headers={"Accept-Language": "en"})) as answer:
            return str(self._csrf(answer.read().decode()))

    def post(self, path: str, **fields: str) -> str:
        body = urlencode({"csrf": self.csrf, **fields}).encode()
        with self._opener.open(self._url + path, body, timeout=WAIT_S) as answer:
            return str(self._csrf(answer.read().decode()))

    def _csrf(self, text: str) -> str:
        self.csrf = re.findall(r'name="csrf" value="([^"]+)"', text)[0]
        return text


def events(crm: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{crm}?mode=ro", uri=True, timeout=10)) as conn:
        rows = conn.execute("SELECT payload FROM event WHERE class = 'member' ORDER BY seq").fetchall()
    return [json.loads(payload) for (payload,) in rows]


async def until_there(crm: Path, fits: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    async with asyncio.timeout(WAIT_S):
        while not (crm.exists() and fits(events(crm))):
            await asyncio.sleep(0.05)
    return events(crm)


def told(found: list[dict[str, Any]]) -> list[str]:
    return [event.get("outcome") or f"{event['type']} {event.get('kind', '')}".strip() for event in found]


async def test_from_the_antenna_to_the_crm_once_and_through_a_crash(gateway: Gateway, nats: NatsBroker) -> None:
    book = gateway.folder / "crm.db"
    tags = [EmulatedTag(member_card(number), (2,)) for number in (1, 2)]
    async with LLRPEmulator(tags=tags, reads_per_sec=50) as reader:
        gateway.configure(
            mqtt={"url": nats.url},
            cues=RULES,
            readers=[
                {
                    "id": "r1",
                    "driver": "llrp",
                    "address": f"127.0.0.1:{reader.port}",
                    "antennas": antennas("door", "shoes"),
                }
            ],
        )
        (gateway.folder / "members.csv").write_text(
            "epc,member,tier,consent,hint\n"
            + "".join(f"{member_card(number).hex()},M000012{number},A,1,tea\n" for number in (1, 2))
        )
        gateway.run("directory", "import", str(gateway.folder / "members.csv"), "-c", str(gateway.file))
        users = Users(users_path(load(gateway.file)))
        users.put("li", Role.MANAGER, PASSWORD)
        crm = Forked("crm", "--url", nats.url, "--database", book)
        try:
            gateway.start()
            state = await gateway.until(lambda s: len(s["cues"]["open"]) == 2 and s["page"])
            first, second = (cue["id"] for cue in state["cues"]["open"])
            assert state["cues"]["took_ms"]["arrival"]["n"] == 2
            browser = await asyncio.to_thread(Browser, state["page"])
            text = await asyncio.to_thread(browser.get, "/service")
            assert re.search(r'data-took="arrival">[^<]*<b[^>]*>\d+ ms</b> \(n = 2\)', text)
            assert "••••0121" in text
            text = await asyncio.to_thread(browser.post, "/service/cue", act=f"{first} acknowledge 120")
            assert 'data-said="done"' in text
            gateway.end(signal.SIGKILL)

            gateway.start()
            state = await gateway.until(lambda s: s["reads"] > 100 and len(s["cues"]["open"]) == 2 and s["page"])
            states = {cue["id"]: cue["state"] for cue in state["cues"]["open"]}
            assert states == {first: "acknowledged", second: "open"}
            browser = await asyncio.to_thread(Browser, state["page"])
            for _ in range(2):
                text = await asyncio.to_thread(browser.post, "/service/cue", act=f"{first} done")
            assert 'data-said="gone"' in text
            await gateway.until(lambda s: len(s["cues"]["open"]) == 1)
            assert gateway.end() == 0, gateway.log()
            found = await until_there(book, lambda there: "done" in told(there))
        finally:
            crm.send_signal(signal.SIGTERM)
            crm.wait(10)
    assert sorted(told(found)) == sorted([*["recognised", "cue arrival"] * 2, "acknowledged", "done"])
    ids = {event["id"] for event in found if event["type"] == "cue"}
    (answered,) = {event["cue"] for event in found if event["type"] == "cue_outcome"}
    assert answered in ids
    assert answered.endswith(f"/member/{first}")
    assert [action for action in (line.action for line in users.audit()) if action.startswith("cue")] == [
        "cue done",
        "cue acknowledge",
    ]
    users.close()
    digest = gateway.run("summary", "--digest", "day", "--json", "-c", str(gateway.file))
    assert json.loads(digest.stdout)["outcomes"] == {"done": 1, "attended": 0, "expired": 0, "open": 1}
