"""Translate pydantic's errors into messages that say how to fix them, with their place in the file."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic_core import ErrorDetails

from config.lines import Place
from config.model import NAME_TAGS, StoreConfig
from config.punctuation import is_wide, plain

NEEDED = {
    "id": 'letters, digits, ".", "-" and "_", at most 64 of them, starting with a letter or a digit',
    "name": 'a text, or { zh = "…", en = "…" }',
    "zh": "a non-empty text",
    "en": "a non-empty text",
    "timezone": 'an IANA name such as "Asia/Shanghai"',
    "floor": "the id of a floor",
    "zone": "the id of a zone",
    "polygon": "at least three corners in metres, such as [[0, 0], [6, 0], [6, 5]]",
    "neighbours": "a list of zone ids",
    "position": "metres, as [x, y]",
    "image": '{ file = "plan.png", left = 0, bottom = 0, width = 40, height = 25 }, in metres',
    "file": "the path of a file",
    "width": "the width on the floor in metres",
    "height": "a height in metres",
    "port": "the number of the reader's antenna port, 1 to 64",
    "address": 'llrp: "host" or "host:port"; serial readers: "/dev/…" or "tcp://host:port"',
    "identity": 'the reader\'s MAC or EPC in hex, such as "00:16:25:12:34:56"',
    "pin": "the SHA-256 fingerprint of the reader's certificate: 64 hex digits, with or without colons",
    "antennas": 'a list of { port = 1, zone = "…", position = [x, y] }, at least one',
    "company_prefix": '6 to 12 digits in quotes, such as "9521141"',
    "epc_prefix": '1 to 124 hex digits in quotes, such as "E280"',
    "url": '"mqtt://host", "mqtts://host", or either with ":port"',
    "listen": '"host:port", such as "127.0.0.1:8080"',
    "public": 'the address used in browsers, such as "https://page.shop.example"',
    "proxies": 'a list of IP addresses, such as ["127.0.0.1"]',
    "path": "the path of the database file",
    "business_day_start": '"HH:MM", such as "04:00"',
    "store": "a table [store] with id, name and timezone",
    "floors": "a table [[floors]] for each floor, with id and name",
    "zones": "a table [[zones]] for each zone, with id, name, kind, floor and polygon",
    "readers": "a table [[readers]] for each reader, with id, driver, address and antennas",
    "tag_classes": "a table [[tag_classes]] for each rule, with class and scheme or epc_prefix",
    "mqtt": "a table [mqtt] with url",
    "database": "a table [database] with path",
    "web": "a table [web]",
    "mail": "a table [mail] with server, sender and to",
    "server": 'the mail server as "host" or "host:port"',
    "sender": 'an e-mail address, such as "tagtrail@shop.example"',
    "to": 'a list of e-mail addresses, such as ["manager@shop.example"]',
    "at": '"HH:MM", such as "08:00"',
    "monitoring": "a table [monitoring] with listen",
    "privacy": "a table [privacy] with ways",
    "ways": 'a list of tag classes, such as ["unknown", "staff"]',
    "thresholds": "a table [thresholds]",
    "opening_hours": "a table [[opening_hours]] with open and close",
    "special_days": "a table [[special_days]] for each day, with date",
    "promotions": "a table [[promotions]] for each, with id, name, zones, first_day and last_day",
    "layout_changes": "a table [[layout_changes]] for each, with id, name, zones and date",
    "cues": "a table [cues], with quiet and [[cues.rules]]",
    "rules": "a table [[cues.rules]] for each rule, with id and kind; at most 20",
    "quiet": 'a list of { begin = "HH:MM", end = "HH:MM" }, at most 10',
    "tiers": "a list of tiers of the member directory, at least one",
    "action": 'a text, or { zh = "…", en = "…" }',
    "begin": '"HH:MM", such as "22:00"',
    "end": '"HH:MM", such as "09:30"',
    "open": '"HH:MM", such as "10:00"',
    "close": '"HH:MM", such as "22:00"',
    "date": "a day, such as 2026-10-01, without quotes",
    "first_day": "a day, such as 2026-10-01, without quotes",
    "last_day": "a day, such as 2026-10-07, without quotes",
}
_LIMITS = {
    "greater_than_equal": ("too small", "at least {ge:g}"),
    "greater_than": ("too small", "more than {gt:g}"),
    "less_than_equal": ("too large", "at most {le:g}"),
    "less_than": ("too large", "less than {lt:g}"),
}
_WANTED = {
    "string_type": "a text in quotes",
    "path_type": "a text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number other than nan and inf",
    "name_type": NEEDED["name"],
}


def explain(error: ErrorDetails) -> tuple[Place, str]:
    """Return place and message for an error."""
    place: Place = tuple(step for step in error["loc"] if step not in NAME_TAGS)
    given, kind, ctx = error["input"], error["type"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return place, _unknown_key(place)
        case "too_long" if place[0] == "cues":
            return place, f"is too long; expected: {_needed(place)}"
        case "missing" | "too_long" if kind == "too_long" or isinstance(place[-1], int):
            # Apart from these, only points have a fixed length.
            return (place[:-1] if kind == "missing" else place), "a point is two numbers in metres: [x, y]"
        case "missing":
            return place, f"is missing; expected: {_needed(place)}"
        case "value_error":
            return place, str(ctx["error"])
        case "enum" | "literal_error":
            return place, f"is {show(given)}{did_you_mean(given, _choices(place))}; expected: {_needed(place)}"
        case _ if kind in _LIMITS:
            what, limit = _LIMITS[kind]
            unit = " metres" if {"polygon", "position"} & set(place) else ""
            return place, f"{show(given)} is {what}; expected: {limit.format(**ctx)}{unit}"
        case "too_short":
            return place, f"is too short; expected: {_needed(place)}"
        case "int_from_float":
            return place, f"{show(given)} is not whole; expected: a whole number"
        case _:
            wide = f' (full-width or invisible characters: did you mean "{plain(given)}"?)' if _is_wide(given) else ""
            return place, f"is {show(given)}{wide}; expected: {_WANTED.get(kind) or _needed(place)}"


def is_echo(error: ErrorDetails) -> bool:
    """True for a consequential error: pydantic reports a list as too short if some of its elements are invalid."""
    given = error["input"]
    return error["type"] == "too_short" and isinstance(given, list) and len(given) >= error["ctx"]["min_length"]


def did_you_mean(given: object, choices: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)`, or an empty text without a close match."""
    near = get_close_matches(given, list(choices), 1) if isinstance(given, str) else []
    return f' (did you mean "{near[0]}"?)' if near else ""


def show(value: object) -> str:
    """Format a value from the file briefly."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case int():
            return str(value) if abs(value) < 1 << 63 else "a number of that size"
        case str():
            return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}…"'
        case list():
            return "a list"
        case dict():
            return "a table"
        case datetime.date() | datetime.time():
            return "a date or a time"
        case _:
            return "something else"


def _is_wide(given: object) -> bool:
    return isinstance(given, str) and is_wide(given)


def on_one_line(text: str) -> str:
    """Escape characters that a terminal or a log would not show as they are."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _unknown_key(place: Place) -> str:
    keys = _node(place[:-1]).get("properties", {})
    return f"unknown key{did_you_mean(place[-1], keys)}; keys here are: {', '.join(keys)}"


def _needed(place: Place) -> str:
    choices = _choices(place)
    if choices:
        return f"one of {', '.join(choices)}"
    if isinstance(place[-1], str):
        return NEEDED.get(place[-1], "another value")
    if place[-2:-1] == ("polygon",):
        return "a corner, as [x, y]"
    if place[-2:-1] == ("proxies",):
        return "an IP address"
    if place[-2:-1] == ("to",):
        return NEEDED["sender"]
    if place[-2:-1] == ("tiers",):
        return "a tier's name, at most 32 characters"
    return NEEDED["id"] if place[-2:-1] == ("neighbours",) else NEEDED.get(str(place[0]), "another value")


def _choices(place: Place) -> list[str]:
    return list(_node(place).get("enum", ()))


@cache
def _schema() -> dict[str, Any]:
    return StoreConfig.model_json_schema()


def _node(place: Place) -> Mapping[str, Any]:
    """Return the part of the JSON Schema for a place; empty if there is none."""
    node = _resolved(_schema(), None)
    for step in place:
        within = node.get("properties", {}).get(step) if isinstance(step, str) else node.get("items")
        if within is None:
            return {}
        node = _resolved(within, step)
    return node


def _resolved(node: Mapping[str, Any], step: str | int | None) -> Mapping[str, Any]:
    """Follow a reference, and choose the most specific alternative: a table, a list or an enumeration."""
    if "$ref" in node:
        return _resolved(_schema()["$defs"][node["$ref"].rsplit("/", 1)[1]], step)
    for several in ("anyOf", "oneOf"):
        if several in node:
            branches = [_resolved(branch, step) for branch in node[several]]
            return next((b for b in branches if b.keys() & {"properties", "items", "enum"}), branches[0])
    return node
