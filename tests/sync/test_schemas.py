"""The JSON Schemas in the hands of others: a strict validator, and classes that a code generator makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from nodetools import NodeTools

from sync.documents import CHANNELS, broken, documents, envelope_schema, event_schemas, schema_name
from sync.documents import schemas as make_schemas

FOLDER = Path(__file__).parents[2] / "docs" / "contract"
pytestmark = pytest.mark.timeout(300)
schemas = cache(make_schemas)


@cache
def all_schemas() -> dict[str, dict[str, Any]]:
    """Name of the file, without its ending, → schema; of the committed files."""
    made = {path[8:-5]: FOLDER / path for path in documents() if path.startswith("schemas/")}
    return {name: json.loads(file.read_text("utf-8")) for name, file in made.items()}


def sent() -> Iterator[tuple[str, dict[str, Any]]]:
    """Examples of what a running service sent and took: name of the schema, message. Batches' events alone too."""
    names = {channel.topic: schema_name(channel) for channel in CHANNELS}
    for file in sorted((FOLDER / "examples").glob("*.json")):
        example = json.loads(file.read_text("utf-8"))
        rest = example["topic"].split("/", 4)[4]
        message = example["message"]
        yield names.get(rest, "ack"), message
        if "events" in message:
            yield "envelope", message
            yield from ((f"events/{event['type']}", event) for event in message["events"])


def an_event() -> dict[str, Any]:
    return next(message for name, message in sent() if name == "events/recognised")


def batch_of(**changes: Any) -> dict[str, Any]:
    batch = next(message for name, message in sent() if name == "batch" and message["events"])
    return batch | {"n": 1, "events": [{k: v for k, v in (an_event() | changes).items() if v is not None}]}


def new_and_bad() -> list[tuple[str, Any, bool]]:
    """Name of the schema, message, and whether it fits."""
    batch = batch_of()
    new = {"id": an_event()["id"], "type": "not-thought-of-yet", "more": {"a": [1]}}
    return [
        ("batch", batch, True),
        ("batch", batch_of(later=1) | {"later": {}}, True),
        ("batch", batch | {"events": [new]}, True),
        ("batch", batch | {"events": [an_event(), new], "n": 2}, True),
        ("envelope", batch | {"events": [new]}, True),
        ("envelope", batch_of(member=7), True),
        ("batch", batch_of(member=7), False),
        ("events/recognised", batch_of(member=7)["events"][0], False),
        ("events/recognised", an_event() | {"type": "cue"}, False),
        ("batch", batch | {"v": 2}, False),
        ("envelope", batch | {"events": ["x"]}, False),
        *(
            (name, message, False)
            for name in ("batch", "envelope")
            for message in (batch_of(id=None), batch_of(type=None), {k: v for k, v in batch.items() if k != "v"})
        ),
        *(
            ("events/recognised", {k: v for k, v in an_event().items() if k != key}, False)
            for key in ("id", "type", "member")
        ),
        # An older store doesn't send what came later.
        *((name, {k: v for k, v in message.items() if k not in ("door", "revision", "instance", "kept")}, True)
          for name, message in sent() if name in ("events/zone_window", "state", "reported-config")),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def judged(node_tools: NodeTools) -> tuple[list[str], list[str]]:
    """What a strict validator, started once, says of each message of `sent` and of `new_and_bad`; "" if it fits."""
    first, second = list(sent()), [(name, message) for name, message, _ in new_and_bad()]
    given = {"schemas": all_schemas(), "cases": first + second}
    told = json.loads(node_tools.tell("schemas.mjs", given=given))
    return told[: len(first)], told[len(first) :]


def test_a_strict_validator_takes_the_schemas_and_what_was_sent(judged: tuple[list[str], list[str]]) -> None:
    names = [name for name, _ in sent()]
    assert set(names) == set(all_schemas())
    assert [(name, error) for name, error in zip(names, judged[0], strict=True) if error] == []


def test_one_new_or_bad_event_costs_no_other(judged: tuple[list[str], list[str]]) -> None:
    for (name, message, good), error in zip(new_and_bad(), judged[1], strict=True):
        assert (error == "") == good, (name, message, error)


def plain(value: Any) -> Any:
    """Without nulls: a generated program may leave a key out instead."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if one is not None}
    return [plain(one) for one in value] if isinstance(value, list) else value


def reread_by_python(text: str, cases: list[tuple[str, Any]]) -> list[Any]:
    made: dict[str, Any] = {"__name__": "generated"}
    exec(compile(text, "generated.py", "exec"), made)
    calls = {name.replace("_", ""): call for name, call in made.items()}
    found: list[Any] = []
    for name, message in cases:
        try:
            found.append(calls[f"{name}todict"](calls[f"{name}fromdict"](message)))
        except (AssertionError, KeyError, TypeError, ValueError):
            found.append(None)
    return found


LANGUAGES = ("python", "javascript")


@pytest.fixture(scope="module")
def generated(node_tools: NodeTools) -> dict[str, str]:
    """Language → program."""
    given = {"schemas": all_schemas(), "languages": LANGUAGES}
    made: dict[str, str] = json.loads(node_tools.tell("generate.mjs", given=given))
    return made


@pytest.mark.parametrize("language", LANGUAGES)
def test_classes_generated_from_the_schemas_read_and_write_what_was_sent(
    node_tools: NodeTools, generated: dict[str, str], tmp_path: Path, language: str
) -> None:
    made, text = all_schemas(), generated[language]
    title = {name: str(schema.get("title", name)).lower() for name, schema in made.items()}
    good = [(title[name], message) for name, message in sent()]
    new = batch_of() | {"events": [{"id": "s1/e/member/1", "type": "not-thought-of-yet"}]}
    good += [("envelope", new)]
    bad = [("recognised", batch_of(id=None)["events"][0]), ("recognised", an_event() | {"member": 7})]
    bad += [("envelope", {k: v for k, v in batch_of().items() if k != "epoch"}), ("envelope", batch_of(id=None))]
    if language == "python":
        reread = reread_by_python(text, good + bad)
    else:
        file = tmp_path / "generated.cjs"
        file.write_text(text, "utf-8")
        reread = json.loads(node_tools.tell("reread.mjs", str(file), given=good + bad))
    for (name, message), again in zip(good, reread[: len(good)], strict=True):
        if name == "envelope":  # it keeps of an event what every one has
            message = message | {"events": [{key: one[key] for key in ("id", "type")} for one in message["events"]]}
            again = again and again | {"events": [{k: one[k] for k in ("id", "type")} for one in again["events"]]}
        assert plain(again) == plain(message), name
    assert reread[len(good) :] == [None] * len(bad)


def test_what_a_store_always_sends_is_required_and_what_came_later_is_not() -> None:
    for name, schema in {**schemas(), **event_schemas(), "envelope": envelope_schema()}.items():
        for where in (schema, *schema.get("$defs", {}).values()):
            assert set(where.get("required", [])) <= set(where.get("properties", {})), name
    up = [schemas()[schema_name(channel)] for channel in CHANNELS if channel.up]
    assert all("v" in schema["required"] for schema in up)
    assert all({"id", "type"} <= set(schema["required"]) for schema in event_schemas().values())
    window = event_schemas()["zone_window"]["required"]
    assert not {"revision", "door", "layout_version"} & set(window)
    assert schemas()["command"]["$defs"]["Ping"]["required"] == ["id", "expires_us", "command"]


def test_a_key_that_came_later_may_not_be_required() -> None:
    """A store of the first version would send what a consumer of the second one refuses."""
    old = schemas()["state"]
    new = json.loads(json.dumps(old))
    new["properties"]["later"] = {"type": "string"}
    assert broken(old, new, up=True) == []
    assert broken(old, new | {"required": [*new["required"], "later"]}, up=True) == ["/later is required now"]
    was_there = new | {"required": [*new["required"], "instance"]}
    assert broken(old, was_there, up=True) == []
    assert broken(old, was_there, up=False) == ["/instance is required now"]
