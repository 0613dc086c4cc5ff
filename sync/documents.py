"""The contract as documents, made from the models: JSON Schemas and an AsyncAPI 3 description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from config import topics
from sync.contract import CLASSES, Ack, Batch, State
from sync.down import Command, DesiredConfig, Manifest, ReportedConfig, ReportedDirectory, Result, Want

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = "1.2.0"
PACKED = (
    "JSON; or, if an ack of yours for this class said that it accepts gzip, that as gzip (RFC 1952): the payload then "
    "begins with the bytes 1f 8b, and unpacks to at most 64 KiB."
)


class Channel(NamedTuple):
    """One kind of message: who sends it, on which topic below `tagtrail/v1/{shard}/{store}/`."""

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
    Channel("result", "up/result", Result, True, False, "What became of a command"),
    Channel("desired-config", "down/config", DesiredConfig, False, True, "What the store file shall be"),
    Channel("reported-config", "up/config", ReportedConfig, True, True, "What became of that"),
    Channel("manifest", "down/directory", Manifest, False, True, "Which member directory the store shall have"),
    Channel("want", "up/directory/want", Want, True, False, "Which parts of a directory file are wanted"),
    Channel("reported-directory", "up/directory", ReportedDirectory, True, True, "Which directory is there"),
)


def schema_name(channel: Channel) -> str:
    """File of a channel's schema; the four classes share one."""
    return "batch" if channel.model is Batch else channel.name


def schemas() -> dict[str, dict[str, Any]]:
    """Name → JSON Schema of every message, as it crosses the wire."""
    made = {}
    for channel in CHANNELS:
        schema = TypeAdapter(channel.model).json_schema(by_alias=True)
        made[schema_name(channel)] = {"$schema": DIALECT, **schema}
    return made


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document, from the CRM's side: it receives what goes up and sends what goes down."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, schema in schemas().items():
        inner = _without_discriminators(json.loads(json.dumps(schema).replace("#/$defs/", "#/components/schemas/")))
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
    """Path below docs/contract → text."""
    files = {f"schemas/{name}.json": schema for name, schema in schemas().items()} | {"asyncapi.json": asyncapi()}
    return {path: json.dumps(made, indent=2, ensure_ascii=False) + "\n" for path, made in files.items()}


def write(folder: Path) -> list[Path]:
    """Write all of them; what was written."""
    written = []
    for path, text in documents().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        written.append(file)
    return written


def broken(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of a newer schema would break a consumer or producer of the older; empty if it only grew."""
    problems: list[str] = []
    _compare("", old, new, problems)
    return problems


def _without_discriminators(schema: Any) -> Any:
    """AsyncAPI means something else by them than JSON Schema's tools; each form says by `const` which it is."""
    if isinstance(schema, dict):
        return {key: _without_discriminators(value) for key, value in schema.items() if key != "discriminator"}
    return [_without_discriminators(one) for one in schema] if isinstance(schema, list) else schema


def _compare(where: str, old: Any, new: Any, problems: list[str]) -> None:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return
    for key in ("properties", "$defs"):
        for name, inner in old.get(key, {}).items():
            if name not in new.get(key, {}):
                problems.append(f"{where}/{name} is gone")
            else:
                _compare(f"{where}/{name}", inner, new[key][name], problems)
    required, required_now = set(old.get("required", [])), set(new.get("required", []))
    problems += [f"{where}/{name} is required now" for name in sorted(required_now - required)]
    problems += [f"{where}/{name} may be missing now" for name in sorted(required - required_now)]
    for key in ("type", "const", "$ref", "format"):
        if key in old and old[key] != new.get(key):
            problems.append(f"{where}: {key} was {old[key]!r} and is {new.get(key)!r}")
    values: list[Any] = old.get("enum", [])
    if missing := set(values) - set(new.get("enum", values)):
        problems.append(f"{where}: {sorted(missing)} is no value any more")
    _compare(f"{where}[]", old.get("items"), new.get("items"), problems)
    for key in ("anyOf", "oneOf"):
        for one in old.get(key, []):
            if one not in new.get(key, []):
                problems.append(f"{where}: {json.dumps(one)} is no form any more")
