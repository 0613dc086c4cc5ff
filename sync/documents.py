"""The contract as documents, made from the models: JSON Schemas and an AsyncAPI 3 description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import ConfigDict, TypeAdapter

from config import topics
from sync.contract import CLASS_OF, CLASSES, Ack, Batch, Envelope, Event, State
from sync.contract_base import Numbered
from sync.down import Command, DesiredConfig, Manifest, ReportedConfig, ReportedDirectory, Result, Sales, Want

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = "1.5.0"
ALWAYS = ("v", "id", "type")
"""Keys with a default that stores nevertheless always send. Other keys with a default may be newer than the first
version, whose stores don't send them."""
OTHER = "OtherEvent"
PACKED = (
    "JSON; or, if an ack of yours for this class said that it accepts gzip, that as gzip (RFC 1952): the payload then "
    "begins with the bytes 1f 8b, and unpacks to at most 64 KiB."
)


class Channel(NamedTuple):
    """Kind of message: its sender, and its topic below `tagtrail/v1/{shard}/{store}/`."""

    name: str
    topic: str
    model: Any
    up: bool
    retained: bool
    title: str


CHANNELS: tuple[Channel, ...] = (
    *(
        Channel(f"up-{class_}", f"up/{class_}", Batch, True, False, f"A batch of events of class {class_}")
        for class_ in CLASSES
    ),
    Channel("state", "state", State, True, True, "Is the gateway there; also the broker's last word for it"),
    Channel("ack", "down/ack/{class}", Ack, False, True, "What the CRM has committed"),
    Channel("command", "down/cmd", Command, False, False, "Something to be done once"),
    Channel("result", "up/result", Result, True, False, "What became of a command, or of sales"),
    Channel("sales", "down/sales", Sales, False, False, "What was sold, by zone and hour"),
    Channel("desired-config", "down/config", DesiredConfig, False, True, "What the store file shall be"),
    Channel("reported-config", "up/config", ReportedConfig, True, True, "What became of that"),
    Channel("manifest", "down/directory", Manifest, False, True, "Which member directory the store shall have"),
    Channel("want", "up/directory/want", Want, True, False, "Which parts of a directory file are wanted"),
    Channel("reported-directory", "up/directory", ReportedDirectory, True, True, "Which directory is there"),
)


class AnyEvent(Numbered):
    """Keys that every event has; the schema of its type defines the others."""

    type: str


class OpenBatch(Envelope):
    """`up/{class}` with events of any type: to be judged one by one, so that a new or a bad one costs no other."""

    model_config = ConfigDict(title="Envelope")

    events: list[AnyEvent]


def schema_name(channel: Channel) -> str:
    """Return the schema name of a channel; the four classes share one."""
    return "batch" if channel.model is Batch else channel.name


def schemas() -> dict[str, dict[str, Any]]:
    """Generate the JSON Schema of every message on the wire, by name."""
    return {schema_name(channel): _schema(channel.model, channel.up) for channel in CHANNELS}


def event_schemas() -> dict[str, dict[str, Any]]:
    """Generate the JSON Schema of each event, by type."""
    union, _ = get_args(Event)
    return {model.model_fields["type"].default: _schema(model, True) for model in get_args(union)}


def envelope_schema() -> dict[str, Any]:
    """Generate the JSON Schema of a batch with arbitrary events."""
    return _schema(OpenBatch, True)


def asyncapi() -> dict[str, Any]:
    """Generate the AsyncAPI 3 document from the CRM's side: it receives what goes up and sends what goes down."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, schema in schemas().items():
        inner = json.loads(json.dumps(schema).replace("#/$defs/", "#/components/schemas/"))
        definitions |= inner.pop("$defs", {})
        inner.pop("$schema")
        messages[name] = {"name": name, "contentType": "application/json", "payload": inner}
        if name == "batch":
            messages[name]["description"] = PACKED
    parameters = {
        "shard": {"description": f"crc32(store) mod {topics.SHARDS}"},
        "store": {"description": "the store's id"},
        "class": {"description": "event class", "enum": list(CLASSES)},
    }
    for channel in CHANNELS:
        address = f"{topics.ROOT}/{{shard}}/{{store}}/{channel.topic}"
        message = schema_name(channel)
        channels[channel.name] = {
            "address": address,
            "title": channel.title,
            "parameters": {name: value for name, value in parameters.items() if f"{{{name}}}" in address},
            "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        }
        operations[channel.name] = {
            "action": "receive" if channel.up else "send",
            "channel": {"$ref": f"#/channels/{channel.name}"},
            "title": channel.title,
            "bindings": {"mqtt": {"qos": 1, "retain": channel.retained, "bindingVersion": "0.2.0"}},
            "messages": [{"$ref": f"#/channels/{channel.name}/messages/{message}"}],
        }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:tagtrail:store-to-crm",
        "info": {
            "title": "Tagtrail: between a store and the CRM",
            "version": VERSION,
            "description": "Made by `tagtrail contract` from the models. README.md beside it says how to commit, "
            "acknowledge and replay. Parts of directory files, raw bytes on down/directory/part, are described there.",
            "license": {"name": "GPL-3.0-or-later"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": definitions, "messages": messages},
    }


def documents() -> dict[str, str]:
    """Generate all documents: text by path below docs/contract."""
    files = {f"schemas/{name}.json": schema for name, schema in schemas().items()}
    files |= {f"schemas/events/{type_}.json": schema for type_, schema in event_schemas().items()}
    files |= {"schemas/envelope.json": envelope_schema(), "asyncapi.json": asyncapi()}
    return {path: json.dumps(made, indent=2, ensure_ascii=False) + "\n" for path, made in files.items()}


def write(folder: Path) -> list[Path]:
    """Write all documents; returns their paths."""
    written = []
    for path, text in documents().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        written.append(file)
    return written


def broken(old: dict[str, Any], new: dict[str, Any], *, up: bool) -> list[str]:
    """List what in a newer schema would break an older CRM, or a newer CRM with an older store; empty if keys were only
    added. `up`: sent by the store, which always sent all keys of its version, so they may become required later.
    """
    problems: list[str] = []
    _compare("", old, new, up, problems)
    return problems


def _schema(model: Any, up: bool) -> dict[str, Any]:
    mode: Literal["serialization", "validation"] = "serialization" if up else "validation"
    schema = _plain(TypeAdapter(model).json_schema(by_alias=True, mode=mode), up)
    if model is Batch:
        schema["properties"]["events"]["items"]["oneOf"].append({"$ref": f"#/$defs/{OTHER}"})
        schema["$defs"][OTHER] = _other_event()
    return {"$schema": DIALECT, **schema}


def _plain(schema: Any, up: bool) -> Any:
    """Remove discriminators, which AsyncAPI, ajv and other JSON Schema tools interpret differently: each form has a
    `const`."""
    if isinstance(schema, list):
        return [_plain(one, up) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _plain(value, up) for key, value in schema.items() if key != "discriminator"}
    if up and isinstance(keys := made.get("properties"), dict) and made.get("type") == "object":
        required = made.get("required", [])
        always = [key for key in ALWAYS if key in keys]
        if required := [*always, *(key for key in required if key not in always)]:
            made["required"] = required
        made["properties"] = keys | {key: {k: v for k, v in keys[key].items() if k != "default"} for key in always}
    return made


def _other_event() -> dict[str, Any]:
    """Schema of an event of an unknown type."""
    schema: dict[str, Any] = _plain(AnyEvent.model_json_schema(mode="serialization"), True)
    schema["properties"]["type"]["not"] = {"enum": list(CLASS_OF)}
    return schema | {"title": OTHER, "description": "An event of a type that came after these documents: put it aside."}


def _compare(where: str, old: Any, new: Any, up: bool, problems: list[str]) -> None:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return
    for key in ("properties", "$defs"):
        for name, inner in old.get(key, {}).items():
            if name not in new.get(key, {}):
                problems.append(f"{where}/{name} is gone")
            else:
                _compare(f"{where}/{name}", inner, new[key][name], up, problems)
    required, required_now = set(old.get("required", [])), set(new.get("required", []))
    always = set(old.get("properties", {})) if up else set()
    problems += [f"{where}/{name} is required now" for name in sorted(required_now - required - always)]
    problems += [f"{where}/{name} may be missing now" for name in sorted(required - required_now)]
    for key in ("type", "const", "$ref", "format"):
        if key in old and old[key] != new.get(key):
            problems.append(f"{where}: {key} was {old[key]!r} and is {new.get(key)!r}")
    values: list[Any] = old.get("enum", [])
    if missing := set(values) - set(new.get("enum", values)):
        problems.append(f"{where}: {sorted(missing)} is no value any more")
    _compare(f"{where}[]", old.get("items"), new.get("items"), up, problems)
    for key in ("anyOf", "oneOf"):
        for one in old.get(key, []):
            if one not in new.get(key, []):
                problems.append(f"{where}: {json.dumps(one)} is no form any more")
