"""The access rules for Mosquitto in the contract's document, on a Mosquitto: two stores, a CRM and a stranger."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from brokers import MosquittoBroker, need_mosquitto

from config import topics
from sync.contract import CLASSES
from sync.documents import CHANNELS
from sync.mqtt import MqttConnection, MqttSettings, connect

DOCUMENT = Path(__file__).parents[2] / "docs" / "contract" / "README.md"
USERS = ("s1", "s2", "crm", "stranger")
TOPICS = {channel.topic.replace("{class}", class_): channel.up for channel in CHANNELS for class_ in CLASSES}
"""Rest of each topic, and whether a store says it (or else the CRM)."""
PART = "down/directory/part/ab/0"
END = "end"


def rules() -> str:
    (found,) = re.findall(r"```\n(pattern .*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    return str(found)


def password_line(user: str) -> str:
    """As mosquitto_passwd writes it: PBKDF2 with SHA-512; the password is the user's name."""
    salt = b"0123456789ab"
    made = hashlib.pbkdf2_hmac("sha512", user.encode(), salt, 101)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}\n"


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[MosquittoBroker]:
    need_mosquitto()
    acl, passwords = tmp_path / "acl", tmp_path / "passwords"
    acl.write_text(rules())
    passwords.write_text("".join(map(password_line, USERS)))
    for file in (acl, passwords):
        file.chmod(0o600)
    options = f"allow_anonymous false\npassword_file {passwords}\nacl_file {acl}"
    async with MosquittoBroker(tmp_path / "mosquitto", options) as broker:
        yield broker


def settings_of(url: str, user: str, password: str, folder: Path) -> MqttSettings:
    file = folder / f"password-{password}"
    file.write_text(password)
    return MqttSettings.from_url(url, f"test-{user}", username=user, password_file=file)


@asynccontextmanager
async def everybody(url: str, folder: Path) -> AsyncIterator[dict[str, MqttConnection]]:
    """Each user connected, and subscribed to all that there is."""
    async with AsyncExitStack() as stack:
        connections = {}
        for user in USERS:
            connections[user] = await stack.enter_async_context(connect(settings_of(url, user, user, folder)))
            await connections[user].subscribe(["tagtrail/#"])
        yield connections


async def heard(connection: MqttConnection, last: str) -> set[str]:
    """Topics that came, up to and without the last."""
    came: set[str] = set()
    async with asyncio.timeout(30):
        while last not in came:
            came |= {incoming.topic for incoming in await connection.receive()}
    return came - {last}


async def test_everybody_says_and_hears_what_is_theirs_and_no_more(guarded: MosquittoBroker, tmp_path: Path) -> None:
    own = {store: {topics.topic(store, rest): up for rest, up in TOPICS.items()} for store in ("s1", "s2")}
    for store in own:
        own[store][topics.topic(store, PART)] = False
    everything = [*own["s1"], *own["s2"], "tagtrail/v2/1/s1/up/agg", "$share/x/tagtrail/v1/+/s1/up/agg"]
    async with everybody(guarded.url, tmp_path) as connections:
        for user in ("s1", "stranger"):
            for topic in everything:
                if not topic.startswith("$share"):
                    await connections[user].publish(topic, user.encode())
            await connections["crm"].publish(f"tagtrail/v1/0/{END}/{user}", b"")
        mine = {topic for topic, up in own["s1"].items() if up}
        ends = {f"tagtrail/v1/0/{END}/s1"}
        assert await heard(connections["crm"], f"tagtrail/v1/0/{END}/stranger") == mine | ends
        for topic in everything[:-2]:
            await connections["crm"].publish(topic, b"crm")
        for store in own:
            await connections["crm"].publish(topics.topic(store, f"down/{END}"), b"")
        state = {store: topics.topic(store, "state") for store in own}
        for store, theirs in own.items():
            wanted = {topic for topic, up in theirs.items() if not up} | {state[store]}
            assert await heard(connections[store], topics.topic(store, f"down/{END}")) == wanted
        await connections["crm"].publish(f"tagtrail/v1/0/{END}/stranger", b"")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await heard(connections["stranger"], "never")


async def test_nobody_comes_in_without_their_password(guarded: MosquittoBroker, tmp_path: Path) -> None:
    for settings in (MqttSettings.from_url(guarded.url, "a"), settings_of(guarded.url, "s1", "s2", tmp_path)):
        with pytest.raises(Exception, match=r"(?i)not auth|refused|bad user"):
            async with connect(settings):
                pass
