"""Configuration from the CRM without a broker: which push is taken when, and that none loosens privacy."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import tomli_w
from gateways import STORE, Gateway, antennas

from config import StoreConfig
from config.check import load
from config.model import Thresholds
from config.readers import Reader
from edge.crm import configuration, pushed
from edge.crm.configuration import Desired, Overlay, merged
from sync.down import DesiredConfig
from sync.mqtt import Incoming


def push_of(generation: int, **sections: Any) -> dict[str, Any]:
    text = tomli_w.dumps(sections or {"thresholds": {"touch_s": generation}})
    return {"generation": generation, "sha256": hashlib.sha256(text.encode()).hexdigest(), "toml": text}


class Life:
    """One life of the service, as far as its configuration goes."""

    def __init__(self, gateway: Gateway) -> None:
        self.overlay = Overlay(load(gateway.file), gateway.file)
        self.overlay.begin()
        self.said: list[dict[str, Any]] = []
        self.again: list[str] = []
        self.well = True
        self.desired = Desired(
            self.overlay,
            lambda: 1,
            lambda _, message: self.said.append(json.loads(message)),
            lambda: self.well,
            lambda: True,
            self.again.append,
        )

    async def take(self, message: dict[str, Any] | bytes) -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.desired.take(Incoming("tagtrail/v1/1/s1/down/config", payload, True))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.desired.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until_again(self) -> None:
        async with asyncio.timeout(30):
            while not self.again:
                await asyncio.sleep(0.01)

    @property
    def last(self) -> tuple[int, str, int]:
        return self.said[-1]["generation"], self.said[-1]["state"], self.said[-1]["running"]


async def test_the_last_of_several_wishes_is_taken_when_the_trial_is_over(gateway: Gateway) -> None:
    gateway.configure()
    first = Life(gateway)
    await first.take(push_of(1))
    await first.take(push_of(2))  # before the service has begun anew
    assert first.last == (1, "trying", 1)
    second = Life(gateway)
    for generation in (1, 2, 3):  # kept by the broker, and new ones within the trial
        await second.take(push_of(generation))
    assert not second.again
    async with second.running():
        await second.until_again()
    assert [(one["generation"], one["state"]) for one in second.said[-2:]] == [(1, "applied"), (3, "trying")]
    third = Life(gateway)
    await third.take(push_of(3))
    async with third.running():
        async with asyncio.timeout(30):
            while third.last != (3, "applied", 3):
                await asyncio.sleep(0.01)
    assert not third.again
    assert third.overlay.config().thresholds.touch_s == 3


async def test_what_came_during_a_trial_that_failed_is_taken_too(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "SELF_TEST_S", 0.1)
    gateway.configure()
    await Life(gateway).take(push_of(1))
    life = Life(gateway)
    life.well = False
    await life.take(push_of(2))
    async with life.running():
        async with asyncio.timeout(30):
            while life.last != (2, "trying", 2):
                await asyncio.sleep(0.01)
    assert (1, "rolled_back", 0) in [(one["generation"], one["state"], one["running"]) for one in life.said]
    assert life.overlay.pushed.reason == "before it: 0"


async def test_a_wish_that_is_taken_back_within_the_trial_is_not_taken(gateway: Gateway) -> None:
    gateway.configure()
    await Life(gateway).take(push_of(1))
    life = Life(gateway)
    await life.take(push_of(2))
    await life.take(b"")
    async with life.running():
        async with asyncio.timeout(30):
            while life.last != (1, "applied", 1):
                await asyncio.sleep(0.01)
    assert not life.again


async def test_after_a_refused_wish_and_a_restart_what_runs_is_reported(gateway: Gateway) -> None:
    gateway.configure()
    bad = push_of(8, thresholds={"touch_s": "five"})
    none = Life(gateway)
    await none.take(bad)
    assert none.last == (8, "failed", 0)
    none = Life(gateway)
    assert none.last == (0, "none", 0)
    assert none.said[-1]["sha256"] == none.overlay.running_hash == ""
    good = push_of(5)
    await none.take(good)
    life = Life(gateway)
    async with life.running():
        async with asyncio.timeout(30):
            while life.last != (5, "applied", 5):
                await asyncio.sleep(0.01)
    await life.take(bad)
    assert life.last == (8, "failed", 5)
    assert life.overlay.running_hash == good["sha256"]
    again = Life(gateway)
    assert again.last == (5, "applied", 5)
    assert again.said[-1]["sha256"] == again.overlay.running_hash == good["sha256"]
    await again.take(bad)  # kept by the broker
    assert again.last == (8, "failed", 5)
    await again.take(good)  # the CRM goes back to what runs
    assert again.last == (5, "applied", 5)
    assert not again.again


async def test_a_wish_refused_for_the_stores_own_file_is_looked_at_again_when_that_has_changed(
    gateway: Gateway,
) -> None:
    three = push_of(2, zones=STORE["zones"][:3])
    promotion = {"id": "sale", "name": "Sale", "zones": ["out"], "first_day": "2026-03-01", "last_day": "2026-03-07"}
    gateway.configure(promotions=[promotion])
    life = Life(gateway)
    await life.take(three)
    assert life.last == (2, "failed", 0)
    gateway.configure()
    life = Life(gateway)
    await life.take(three)
    assert life.last == (2, "trying", 2)


def test_every_section_and_threshold_is_the_stores_own_or_may_be_carried() -> None:
    """A new one of the store file is asked for here: may a message from outside set it?"""
    assert {*pushed.SECTIONS, *pushed.OWN} == set(StoreConfig.model_fields)
    assert not set(pushed.SECTIONS) & set(pushed.OWN)
    told = DesiredConfig.model_fields["toml"].description or ""
    assert all(name in told for name in pushed.OWN)
    keep_times = {"returning_days"}
    assert pushed.FREE_THRESHOLDS | set(pushed.BOUNDS) | keep_times == set(Thresholds.model_fields)
    connection = {"driver", "address", "identity", "tls", "ca", "pin", "cert", "key", "takeover", "via"}
    connection |= {"username", "password_file", "heartbeat_s", "holds", "preset", "source", "mapping"}
    assert pushed.FREE_OF_READERS | connection == set(Reader.model_fields)


OWN: dict[str, Any] = {
    "thresholds": {"small_cell": 6, "returning_days": 30, "suspect_s": 20_000, "journey_end_silence_s": 7200},
    "readers": [
        {
            "id": "r1",
            "driver": "llrp",
            "address": "listen://127.0.0.1:5084",
            "identity": "00:16:25:11:22:33",
            "filter": True,
            "antennas": antennas("door", "shoes"),
        },
        {"id": "r2", "driver": "m100", "address": "/dev/rfid/two", "antennas": antennas("bags")},
    ],
}


def readers(**changes: Any) -> list[dict[str, Any]]:
    first = {key: value for key, value in (OWN["readers"][0] | changes).items() if value is not None}
    return [first, OWN["readers"][1]]


def floor(id_: str, **image: str) -> dict[str, Any]:
    """A floor, with a picture if a file is given."""
    return {"id": id_, "name": id_} | ({"image": {**image, "width": 40, "height": 25}} if image else {})


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"thresholds": {"small_cell": 0}}, "small_cell: 0, but at least the store's own 6"),
        ({"thresholds": {"small_cell": 5, "touch_s": 4}}, "small_cell"),
        ({"thresholds": {"returning_days": 3660}}, "returning_days: retention times"),
        ({"thresholds": {"returning_days": 1}}, "returning_days: retention times"),
        ({"thresholds": {"suspect_s": 1}}, "suspect_s"),
        ({"thresholds": {"stuck_s": 60}}, "stuck_s"),
        ({"thresholds": {"suspect_back_room_s": 1}}, "suspect_back_room_s"),
        ({"thresholds": {"journey_end_silence_s": 864_000}}, "journey_end_silence_s: 864000.0, but at most"),
        ({"thresholds": {"journey_end_after_exit_s": 86_400}}, "journey_end_after_exit_s"),
        ({"floors": [floor("F1", file="/etc/shadow")]}, "floors[0].image: pictures are files of the gateway"),
        ({"floors": [floor("F1"), floor("F2", file="/srv/f1.png")]}, "floors[1].image"),
        ({"tag_classes": []}, "tag_classes"),
        ({"tag_classes": [{"class": "member", "epc_prefix": "3"}]}, "tag_classes"),
        ({"readers": readers(address="listen://0.0.0.0:5084")}, "readers[0].address"),
        ({"readers": readers(address="10.0.0.5:22", identity=None)}, "readers[0].address"),
        ({"readers": readers(identity="00:16:25:11:22:34")}, "readers[0].identity"),
        ({"readers": readers(tls=True, cert="/x.pem", key="${CREDENTIALS_DIRECTORY}/mqtt-key")}, "readers[0].key"),
        ({"readers": readers(filter=False)}, "readers[0].filter"),
        ({"readers": [*readers(), OWN["readers"][1] | {"id": "r3", "address": "/etc/shadow"}]}, "no reader 'r3'"),
        ({"readers": [OWN["readers"][1] | {"address": "tcp://10.0.0.9:6379"}]}, "readers[0].address"),
        ({"readers": [OWN["readers"][1] | {"driver": "r2000"}]}, "readers[0].driver"),
        *(({name: {"x": 1}}, f"may not set {name}") for name in ("mqtt", "database", "web", "calibration", "privacy")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wish_that_would_loosen_privacy_is_refused(gateway: Gateway, sections: dict[str, Any], reason: str) -> None:
    gateway.configure(**OWN)
    with pytest.raises(ValueError) as refused:
        merged(push_of(1, **sections)["toml"], load(gateway.file))
    assert reason in str(refused.value)


def test_a_wish_may_tighten_and_what_it_leaves_out_stays_the_stores(gateway: Gateway) -> None:
    gateway.configure(**OWN)
    own = load(gateway.file)
    tighter = {"small_cell": 10, "suspect_s": 28_800, "journey_end_silence_s": 3600}
    made = merged(push_of(1, thresholds=tighter)["toml"], own)
    assert (made.thresholds.small_cell, made.thresholds.returning_days) == (10, 30)
    made = merged(push_of(1, thresholds={"touch_s": 4})["toml"], own)
    assert made.thresholds == own.thresholds.model_copy(update={"touch_s": 4})
    moved = {"id": "r1", "antennas": antennas("door", "bags"), "session": 2}
    made = merged(push_of(1, readers=[moved])["toml"], own)
    (reader,) = made.readers
    assert (reader.address, reader.identity, reader.filter) == ("listen://127.0.0.1:5084", "00:16:25:11:22:33", True)
    assert (reader.antennas[1].zone, reader.session) == ("bags", 2)
    same = merged(push_of(1, readers=readers(identity="001625112233"), tag_classes=STORE["tag_classes"])["toml"], own)
    assert same.tag_classes == own.tag_classes
    gateway.configure(**OWN, floors=[floor("F1", file="f1.png")])
    own = load(gateway.file)
    made = merged(push_of(1, floors=[{"id": "F1", "name": "Ground"}, floor("F2")])["toml"], own)
    assert [one.image for one in made.floors] == [own.floors[0].image, None]


@pytest.mark.parametrize(
    "text",
    [
        "readers = 1",
        "readers = [1]",
        "[[readers]]\nid = 5",
        "[[readers]]\nid = [1]",
        "thresholds = 3",
        "floors = [1]",
        "[[floors]]\nid = [1]",
        "tag_classes = 1",
    ],
)
def test_nonsense_in_what_is_the_stores_own_is_refused(gateway: Gateway, text: str) -> None:
    gateway.configure(**OWN)
    with pytest.raises((ValueError, configuration.ConfigError)):
        merged(text, load(gateway.file))


def test_what_an_older_version_took_and_this_one_would_not_is_taken_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.configure(**OWN)
    monkeypatch.setattr(configuration, "loosened", lambda made, own: [])
    before = Life(gateway)
    one = push_of(1, thresholds={"small_cell": 0})
    before.overlay.try_out(1, one["sha256"], one["toml"])
    before.overlay.confirm()
    assert before.overlay.config().thresholds.small_cell == 0
    monkeypatch.undo()
    after = Life(gateway)
    assert after.last == (1, "rolled_back", 0)
    assert "small_cell" in after.said[-1]["reason"]
    assert after.overlay.config().thresholds.small_cell == 6
