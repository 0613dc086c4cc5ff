"""The contract's documents: made from the models, only ever growing, valid, and what a running service really says."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway, antennas, member_card
from headquarters import Headquarters, directory_file, headquarters
from jsonschema import Draft202012Validator
from nodetools import NodeTools
from shopdays import Day

from config.check import load
from dwell.markov.engine import ZoneEngine
from edge.crm import directory, sales
from edge.database.keys import find_tag_key
from edge.intake import checkpoint
from edge.store import layouts
from edge.store.business_days import business_days
from edge.store.clock import Clock
from edge.store.compose import compose
from edge.store.pseudonyms import Pseudonyms
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation
from sync import acks, commands, contract, down, in_flight, mqtt
from sync.contract import CLASS_OF, CLASSES, Batch, ZoneWindow
from sync.documents import CHANNELS, broken, documents, schema_name
from sync.documents import schemas as make_schemas

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "contract"
RELEASED = Path(__file__).parent / "contract-1.0"
"""Schemas as version 1.0 had them; later ones may only add to them."""
WRITE = "TAGTRAIL_WRITE_EXAMPLES"
SPEED = 60
WINDOW_US = 900_000_000
schemas = cache(make_schemas)


def test_the_documents_are_those_of_the_models() -> None:
    made = documents()
    there = {str(file.relative_to(FOLDER)) for file in [*FOLDER.glob("schemas/**/*.json"), FOLDER / "asyncapi.json"]}
    assert there == set(made)
    for path, text in made.items():
        assert (FOLDER / path).read_text("utf-8") == text, f"{path} is old: run `tagtrail contract`"


@pytest.mark.parametrize("name", sorted(file.stem for file in RELEASED.glob("*.json")))
def test_the_contract_only_grew(name: str) -> None:
    up = {schema_name(channel): channel.up for channel in CHANNELS}
    assert broken(json.loads((RELEASED / f"{name}.json").read_text("utf-8")), schemas()[name], up=up[name]) == []


def changed(change: Any) -> dict[str, Any]:
    schema = json.loads(json.dumps(schemas()["batch"]))
    change(schema)
    return dict(schema)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["properties"].pop("boot"), "/boot is gone"),
        (lambda s: s["required"].append("later"), "required now"),
        (lambda s: s["required"].remove("epoch"), "/epoch may be missing now"),
        (lambda s: s["$defs"]["Stop"]["properties"]["reads"].update(type="string"), "type was 'integer'"),
        (lambda s: s["$defs"]["Journey"]["properties"]["tag_class"]["enum"].remove("cart"), "no value any more"),
        (lambda s: s["properties"]["events"]["items"]["oneOf"].pop(), "no form any more"),
    ],
)
def test_what_would_break_a_consumer_is_noticed(change: Any, said: str) -> None:
    assert any(said in problem for problem in broken(schemas()["batch"], changed(change), up=True))


def test_adding_breaks_nothing() -> None:
    grown = changed(lambda s: s["$defs"]["Stop"]["properties"].update(floor={"type": "string"}))
    assert broken(schemas()["batch"], grown, up=True) == []


def schema_of(rest: str) -> str:
    for channel in CHANNELS:
        if channel.topic == rest or (channel.name == "ack" and rest.startswith("down/ack/")):
            return schema_name(channel)
    raise LookupError(rest)


def check(rest: str, message: dict[str, Any]) -> None:
    """Raise unless the message fits the schema of its topic."""
    _validator(schema_of(rest)).validate(message)


@cache
def _validator(name: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(schemas()[name])
    return Draft202012Validator(schemas()[name])


def examples() -> list[Path]:
    return sorted((FOLDER / "examples").glob("*.json"))


@pytest.mark.parametrize("file", examples(), ids=lambda f: f.stem)
def test_the_examples_fit_their_schemas(file: Path) -> None:
    example = json.loads(file.read_text("utf-8"))
    check(example["topic"].split("/", 4)[4], example["message"])


def test_there_is_an_example_of_everything() -> None:
    found = [json.loads(file.read_text("utf-8")) for file in examples()]
    rests = {example["topic"].split("/", 4)[4] for example in found}
    assert {schema_of(rest) for rest in rests} == {schema_name(channel) for channel in CHANNELS}
    batches = [Batch.model_validate(one["message"]) for one in found if "events" in one["message"]]
    events = [event for batch in batches for event in batch.events]
    assert {event.type for event in events} == set(CLASS_OF)
    assert any(event.revision > 1 for event in events if isinstance(event, ZoneWindow))
    assert any(event.door for event in events if isinstance(event, ZoneWindow))


@pytest.mark.parametrize("type_", CLASS_OF)
def test_every_event_is_in_the_documents_and_told_of(type_: str) -> None:
    kinds = [form.get("properties", {}).get("type", {}) for form in schemas()["batch"]["$defs"].values()]
    forms = {kind.get("const") for kind in kinds}
    assert type_ in forms
    assert f"`{type_}`" in (FOLDER / "README.md").read_text("utf-8"), "say in README.md what it is and when it comes"
    assert type_ in json.dumps(json.loads((FOLDER / "asyncapi.json").read_text("utf-8"))["components"])


def page() -> str:
    return (FOLDER / "README.md").read_text("utf-8")


def test_whoever_closes_a_store_by_the_page_clears_all_that_is_retained() -> None:
    (listed,) = re.findall(r"^for rest in (.*)$", page(), re.MULTILINE)
    retained = {
        channel.topic.format(**{"class": class_}) for channel in CHANNELS if channel.retained for class_ in CLASSES
    }
    assert sorted(listed.split()) == sorted(retained)


def test_the_subscriptions_of_a_crm_on_the_page_are_all_that_a_store_says() -> None:
    (row,) = re.findall(r"^\| CRM subscriptions \|(.*)$", page(), re.MULTILINE)
    told = {text.removeprefix("tagtrail/v1/+/+/").removeprefix("…/") for text in re.findall(r"`([^`#]+)`", row)}
    assert told == {channel.topic for channel in CHANNELS if channel.up}


def test_the_page_tells_the_numbers_that_hold() -> None:
    text = " ".join(page().split())
    for told in (
        f"at most {in_flight.WINDOW} batches of a class are in flight without an ack",
        f"if no ack arrives within {in_flight.SILENCE_S[0]:g} s",
        f"(up to {in_flight.PATIENCE_MOST_S:g} s if your recent acks took longer",
        f"the timeout rises to {in_flight.SILENCE_S[1]:g} s",
        f"`pause_ms` (at most {acks.MAX_PAUSE_MS // 1000} 000)",
        f"larger than {contract.MAX_ACK_BYTES} bytes is ignored",
        f"at most {down.MAX_COMMAND_BYTES} bytes, sent to `down/cmd`",
        f"the store remembers {commands.REMEMBERED}",
        f"At most {commands.LONGEST_US // 86_400_000_000} days ahead",
        f"Up to {commands.WAITING} of a kind can be queued, and {commands.ERASURES // 1000} 000 of `erase`",
        f"Beyond a burst of {commands.BURST:g}",
        f"requested again after {directory.PATIENCE_S[0]:g} s (rising to {directory.PATIENCE_S[1]:g} s)",
        f"is at most 64, currently {directory.PARTS}",
        f"at most {down.MAX_SALES_BYTES // 1024} KiB, has up to {down.MAX_SALES} hours",
        f"{sales.WAITING} messages are waiting already",
        f"the first {sales.PROBLEMS_TOLD} with the number of the hour",
        f"keep-alive {mqtt.KEEPALIVE_S} s",
    ):
        assert told in text, told


def yesterday(gateway: Gateway, now_us: int) -> None:
    """A business day that the service will find over: people, staff, members, a tag that lay there, a service case."""
    config = load(gateway.file)
    days = business_days(config)
    day = Day(config, days.date(now_us - 60_000_000) - dt.timedelta(days=1))
    key = find_tag_key(config.database.path)
    assert key is not None
    for i in range(40):
        start = f"10:{i}"
        day.visit(f"c{i}", "door", start, 10, journey=start)
        day.visit(f"c{i}", "shoes", f"10:{i}:20", 150 if i % 2 else 40, journey=start)
        day.visit(f"c{i}", "bags", f"11:{i}", 60, journey=start)
        path = [[zone, day.us(at), day.us(at) + 60_000_000] for zone, at in (("door", start), ("bags", f"11:{i}"))]
        day.conn.execute(
            "INSERT INTO journey (tag, tag_class, start_us, end_us, censored, path) VALUES (?, 0, ?, ?, 0, ?)",
            (f"c{i}".encode(), path[0][1], path[1][2], json.dumps(path)),
        )
    for hour in range(4, 28):
        day.sold("shoes", f"{hour}:00", hour % 4, units=hour % 5, cents=990 * hour, currency="CNY")
    for i in range(6):
        card = Pseudonyms(key).member(member_card(10 + i), 96)
        day.conn.execute("INSERT INTO directory VALUES (?, ?, 'A', 1, NULL, NULL)", (card, f"M-m{i}"))
        day.visit(f"m{i}", "shoes", f"12:{5 * i}", 180, cls="member", member=f"M-m{i}")
        day.conn.execute("UPDATE visit SET tag = ? WHERE tag = ?", (card, f"m{i}".encode()))
        day.visit("badge", "shoes", f"12:{5 * i}:30", 120, cls="staff", journey="12:00")
    for hour in range(9, 18):
        day.visit("all day", "bags", f"{hour}:00", 3300, journey="09:00")
    day.covered("04:00", "28:00")  # windows without anybody: they will have to be told anew
    day.door("shoes", "12:00", 9, reader="gate-1")
    day.conn.execute(
        "INSERT INTO service_case (at_us, kind, zone, state, changed_us) VALUES (?, 'hand', 'bags', 'open', 1)",
        (day.us("13:00"),),
    )
    layouts.note(day.conn, config, day.us("02:00"))
    shop = compose(config)
    engine = ZoneEngine(shop.layout, shop.settings)
    engine.advance(now_us - 60_000_000)
    checkpoint.save(day.conn, shop, engine.weighed_us, engine.state())
    day.conn.close()


def events_of(hq: Headquarters) -> dict[str, tuple[str, dict[str, Any]]]:
    """Type → topic and batch of the first such event alone; a corrected window, with a door, too."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for class_ in CLASSES:
        for batch in hq.came.get(f"up/{class_}", []):
            for seq, event in enumerate(batch["events"], batch["first"]):
                alone = batch | {"first": seq, "n": 1, "lost": [], "events": [event]}
                names = [event["type"]]
                if event.get("revision", 1) > 1:
                    names = ["zone_window-corrected"] if event["entered"] and event["door"] else []
                elif not event.get("present_us", 1):
                    names = []
                for name in names:
                    found.setdefault(name, (f"up/{class_}", alone))
    return found


async def come_and_go(reader: LlrpReader, clock: Clock) -> None:
    """A member who is at the door for a while, and away for longer than a journey takes to end, again and again."""
    while True:
        for _ in range(30):
            reader.push([Observation(clock.now_us(), 1, member_card(1), -5000)])
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)


def shortly_before_a_window_ends() -> Clock:
    """A fast clock that starts seven minutes of its own before the end of a window."""
    now_us = time.time_ns() // 1000
    ahead_us = (WINDOW_US - 420_000_000 - now_us) % WINDOW_US
    return Clock(SPEED, now_us - ahead_us // (SPEED - 1))


@pytest.mark.timeout(240)
async def test_what_a_running_service_says_fits_the_schemas(gateway: Gateway, nats: Any) -> None:
    """Every event and message of a whole small life; TAGTRAIL_WRITE_EXAMPLES renews docs/contract/examples from it."""
    said: dict[str, Any] = {}
    clock = shortly_before_a_window_ends()
    # Its clock runs as the store's does: the times of one that is slower come ever later, on a busy machine too late.
    reader = LlrpReader(clock.now_us)
    async with headquarters(nats.url) as hq:
        sent = hq.send

        async def send(rest: str, message: Any, *, retain: bool = False) -> None:
            if isinstance(message, dict):
                said[rest] = message
            await sent(rest, message, retain=retain)

        hq.send = send  # type: ignore[method-assign]
        today = dt.datetime.fromtimestamp(clock.now_us() / 1e6, dt.UTC).date()
        gateway.configure(
            mqtt={"url": nats.url},
            readers=[
                {
                    "id": "gate-1",
                    "driver": "llrp",
                    "address": await reader.start(),
                    "antennas": antennas("door"),
                }
            ],
            thresholds={"lateness_s": 60, "journey_end_after_exit_s": 1, "journey_end_silence_s": 4, "join_gap_s": 1},
            privacy={"ways": ["unknown"]},
            cues={"rules": [{"id": "vip", "kind": "arrival", "tiers": ["A"], "expires_s": 400}]},
            promotions=[
                {
                    "id": "sale",
                    "name": {"zh": "促销", "en": "Sale"},
                    "zones": ["bags"],
                    "first_day": today - dt.timedelta(days=3),
                    "last_day": today + dt.timedelta(days=3),
                }
            ],
        )
        yesterday(gateway, clock.now_us())
        rows = [f"{member_card(10 + i).hex()},M-m{i},A,1,," for i in range(6)]
        entry, packed = directory_file([f"{member_card(1).hex()},M0001,A,1,wine tasting at 5,", *rows], 12)
        hq.files[entry["sha256"]] = packed
        manifest = {"v": 1, "generation": 12, "valid_until_us": 2**52, "files": [entry]}
        await hq.send("down/directory", manifest, retain=True)
        gateway.start("--no-web", "--clock-speed", str(SPEED), "--clock-origin-us", str(clock.origin_us))
        await hq.first("up/directory", lambda m: m["state"] == "applied")
        walking = asyncio.create_task(come_and_go(reader, clock))
        first = await hq.first("up/member", lambda b: b["n"] > 0)
        until_s = time.monotonic() + 120
        while missing := {*CLASS_OF, "zone_window-corrected"} - set(events_of(hq)):
            assert time.monotonic() < until_s, f"never told: {missing}"
            for class_ in CLASSES:
                for batch in hq.came.get(f"up/{class_}", [])[-1:]:
                    upto = batch["first"] + batch["n"] - 1
                    await sent(f"down/ack/{class_}", {"epoch": batch["epoch"], "upto": upto})
            await asyncio.sleep(0.2)
        ping = hq.order("7f1c", "ping") | {"v": 1, "expires_us": first["sent_us"] + 3600_000_000 * 24}
        await hq.send("down/cmd", ping)
        await hq.answer("7f1c")
        hour_us = (first["sent_us"] // 3_600_000_000 - 3) * 3_600_000_000
        sold = [{"zone": "bags", "hour_us": hour_us, "tickets": 4, "units": 5, "amount": 1234.5}]
        sold.append({"zone": "shoes", "hour_us": hour_us, "tickets": 0})
        head = {"v": 1, "id": "sales-7", "revision": 1, "currency": "CNY", "whole_days": False}
        await hq.send("down/sales", head | {"hours": sold})
        assert (await hq.answer("sales-7"))["output"] == {"taken": 2, "changed": 2, "refused": 0, "problems": []}
        ack = {"epoch": first["epoch"], "upto": first["first"] + first["n"] - 1, "pause_ms": 0, "accepts": ["gzip"]}
        await hq.send("down/ack/member", ack, retain=True)
        text = '[[opening_hours]]\nopen = "10:00"\nclose = "22:00"\n'
        desired = {"v": 1, "generation": 3, "sha256": hashlib.sha256(text.encode()).hexdigest(), "toml": text}
        await hq.send("down/config", desired, retain=True)
        await hq.first("up/config", lambda m: m["state"] == "applied")
        said |= {rest: messages[-1] for rest, messages in hq.came.items()}
        told = events_of(hq)
        walking.cancel()
        gateway.end()
        await reader.stop()
    for rest, message in [*said.items(), *told.values()]:
        check(rest, message)
    assert {schema_of(rest) for rest in said} == {schema_name(channel) for channel in CHANNELS}
    if os.environ.get(WRITE):
        folder = FOLDER / "examples"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        plain = {rest.replace("/", "-"): (rest, message) for rest, message in said.items() if "events" not in message}
        of_events = {f"{rest.replace('/', '-')}-{name}": (rest, message) for name, (rest, message) in told.items()}
        for name, (rest, message) in (plain | of_events).items():
            whole = {"topic": f"tagtrail/v1/30/s1/{rest}", "message": shortened(message)}
            text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
            (folder / f"{name}.json").write_text(text, encoding="utf-8")


def shortened(message: dict[str, Any]) -> dict[str, Any]:
    """Lists of an event cut to what shows their form."""
    if "events" not in message:
        return message
    cut = [{k: v[:3] if isinstance(v, list) else v for k, v in event.items()} for event in message["events"]]
    return message | {"events": cut}


@pytest.mark.timeout(300)
def test_asyncapis_own_parser_takes_the_document(node_tools: NodeTools, tmp_path: Path) -> None:
    document = json.loads((FOLDER / "asyncapi.json").read_text("utf-8"))
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(document))
    # Its parser takes over a second for the whole document.
    wrong = {"action": "receive", "channel": {"$ref": "#/channels/nowhere"}}
    bad.write_text(json.dumps({**document, "channels": {}, "components": {}, "operations": {"state": wrong}}))
    (channels, errors), (_, noticed) = json.loads(node_tools.tell("asyncapi.mjs", str(good), str(bad)))
    assert (channels, errors) == (len(CHANNELS), [])
    assert noticed
    assert all("operations.state.channel" in error for error in noticed), noticed
