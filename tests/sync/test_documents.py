"""The contract's documents: made from the models, only ever growing, valid, and what a running service really says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gateways import Gateway, antennas, member_card
from headquarters import directory_file, headquarters
from llrpkit.emulator import EmulatedTag, LLRPEmulator

from sync.contract import CLASSES
from sync.documents import CHANNELS, broken, documents, schema_name, schemas

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "contract"
RELEASED = Path(__file__).parent / "contract-1.0"
"""Schemas as version 1.0 had them; later ones may only add to them."""
WRITE = "TAGTRAIL_WRITE_EXAMPLES"
TOOL = ROOT / "tests" / "asyncapi"


def test_the_documents_are_those_of_the_models() -> None:
    made = documents()
    there = {str(file.relative_to(FOLDER)) for file in [*FOLDER.glob("schemas/*.json"), FOLDER / "asyncapi.json"]}
    assert there == set(made)
    for path, text in made.items():
        assert (FOLDER / path).read_text("utf-8") == text, f"{path} is old: run `tagtrail contract`"


@pytest.mark.parametrize("name", sorted(file.stem for file in RELEASED.glob("*.json")))
def test_the_contract_only_grew(name: str) -> None:
    assert broken(json.loads((RELEASED / f"{name}.json").read_text("utf-8")), schemas()[name]) == []


def changed(change: Any) -> dict[str, Any]:
    schema = json.loads(json.dumps(schemas()["batch"]))
    change(schema)
    return dict(schema)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["properties"].pop("boot"), "/boot is gone"),
        (lambda s: s["required"].append("clock_offset_us"), "required now"),
        (lambda s: s["$defs"]["Stop"]["properties"]["reads"].update(type="string"), "type was 'integer'"),
        (lambda s: s["$defs"]["Journey"]["properties"]["tag_class"]["enum"].remove("cart"), "no value any more"),
        (lambda s: s["properties"]["events"]["items"]["oneOf"].pop(), "no form any more"),
    ],
)
def test_what_would_break_a_consumer_is_noticed(change: Any, said: str) -> None:
    assert any(said in problem for problem in broken(schemas()["batch"], changed(change)))


def test_adding_breaks_nothing() -> None:
    grown = changed(lambda s: s["$defs"]["Stop"]["properties"].update(floor={"type": "string"}))
    assert broken(schemas()["batch"], grown) == []


def schema_of(rest: str) -> str:
    for channel in CHANNELS:
        if channel.topic == rest or (channel.name == "ack" and rest.startswith("down/ack/")):
            return schema_name(channel)
    raise LookupError(rest)


def examples() -> list[Path]:
    return sorted((FOLDER / "examples").glob("*.json"))


@pytest.mark.parametrize("file", examples(), ids=lambda f: f.stem)
def test_the_examples_fit_their_schemas(file: Path) -> None:
    example = json.loads(file.read_text("utf-8"))
    jsonschema.validate(example["message"], schemas()[schema_of(example["topic"].split("/", 4)[4])])


def test_there_is_an_example_of_everything() -> None:
    rests = {json.loads(file.read_text("utf-8"))["topic"].split("/", 4)[4] for file in examples()}
    assert {schema_of(rest) for rest in rests} == {schema_name(channel) for channel in CHANNELS}
    assert {f"up/{class_}" for class_ in CLASSES} <= rests


@pytest.mark.timeout(240)
async def test_what_a_running_service_says_fits_the_schemas(gateway: Gateway, nats: Any) -> None:
    """Every message of a whole small life; set TAGTRAIL_WRITE_EXAMPLES to renew docs/contract/examples from it."""
    said: dict[str, Any] = {}
    tags = [EmulatedTag(member_card(1), (1,))]
    async with LLRPEmulator(tags=tags, reads_per_sec=50) as reader, headquarters(nats.url) as hq:
        sent = hq.send

        async def send(rest: str, message: Any, *, retain: bool = False) -> None:
            if isinstance(message, dict):
                said[rest] = message
            await sent(rest, message, retain=retain)

        hq.send = send  # type: ignore[method-assign]
        gateway.configure(
            mqtt={"url": nats.url},
            readers=[
                {
                    "id": "gate-1",
                    "driver": "llrp",
                    "address": f"127.0.0.1:{reader.port}",
                    "antennas": antennas("door"),
                }
            ],
            thresholds={"journey_end_after_exit_s": 1, "journey_end_silence_s": 4, "join_gap_s": 1},
        )
        entry, packed = directory_file([f"{member_card(1).hex()},M0001,A,1,wine tasting at 5,"], 12)
        hq.files[entry["sha256"]] = packed
        await hq.send(
            "down/directory", {"v": 1, "generation": 12, "valid_until_us": 2**60, "files": [entry]}, retain=True
        )
        gateway.start("--no-web", "--clock-speed", "60")
        await hq.first("up/directory", lambda m: m["state"] == "applied")
        first = await hq.first("up/member", lambda b: b["n"] > 0)
        await gateway.until(lambda s: s["reads"] > 150)
        reader.tags.clear()
        await hq.first("up/journey", lambda b: b["n"] > 0)
        await hq.first("up/agg", lambda b: b["n"] > 0)
        await hq.first("up/health", lambda b: b["n"] > 0)
        ping = hq.order("7f1c", "ping") | {"v": 1, "expires_us": first["sent_us"] + 3600_000_000 * 24}
        await hq.send("down/cmd", ping)
        await hq.answer("7f1c")
        ack = {"epoch": first["epoch"], "upto": first["first"] + first["n"] - 1, "pause_ms": 0, "accepts": ["gzip"]}
        await hq.send("down/ack/member", ack, retain=True)
        await hq.send("down/config", {"v": 1, "generation": 3, "sha256": "0" * 64, "toml": '[store]\nid = "s1"\n'})
        await hq.first("up/config", lambda m: m["generation"] == 3)
        said |= {rest: messages[-1] for rest, messages in hq.came.items()}
        said["up/member"] = first
        gateway.end()
    for rest, message in said.items():
        jsonschema.validate(message, schemas()[schema_of(rest)])
    assert {schema_of(rest) for rest in said} == {schema_name(channel) for channel in CHANNELS}
    if os.environ.get(WRITE):
        (FOLDER / "examples").mkdir(exist_ok=True)
        for rest, message in said.items():
            whole = {"topic": f"tagtrail/v1/30/s1/{rest}", "message": message}
            if rest.startswith("up/") and "events" in message:  # one event says enough
                message["events"], message["n"] = message["events"][:1], len(message["events"][:1])
            text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
            (FOLDER / "examples" / f"{rest.replace('/', '-')}.json").write_text(text, encoding="utf-8")


@pytest.mark.timeout(300)
def test_asyncapis_own_parser_takes_the_document(tmp_path: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    for name in ("package.json", "package-lock.json", "check.mjs"):
        shutil.copy(TOOL / name, tmp_path / name)
    try:
        got = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not get the parser in time")
    if got.returncode:
        pytest.skip(f"npm cannot get the parser: {got.stderr.strip().splitlines()[-1:]}")
    document = json.loads((FOLDER / "asyncapi.json").read_text("utf-8"))
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(document))
    document["operations"]["state"]["channel"]["$ref"] = "#/channels/nowhere"
    bad.write_text(json.dumps(document))
    told = [
        subprocess.run(["node", "check.mjs", str(file)], cwd=tmp_path, capture_output=True, text=True)
        for file in (good, bad)
    ]
    assert told[0].returncode == 0, told[0].stdout + told[0].stderr
    assert f"{len(CHANNELS)} channels, 0 errors" in told[0].stdout
    assert told[1].returncode == 1
