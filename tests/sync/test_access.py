"""The access rules for EMQX in the contract's document: their syntax, and what they let through, topic by topic.

Judged as EMQX's file authorisation does (`{permission, who, action, topics}.`, the first rule that fits counts, a
subscription fits if all that it asks for does), for want of an EMQX here. Mosquitto's rules are tested on a Mosquitto.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from config import topics
from sync.contract import CLASSES
from sync.documents import CHANNELS

DOCUMENT = Path(__file__).parents[2] / "docs" / "contract" / "README.md"
TOKEN = re.compile(r'\s*(?:(?P<open>[{\[])|(?P<close>[}\]])|(?P<comma>,)|(?P<text>"[^"]*")|(?P<atom>[a-z][a-z0-9_]*))')
PERMISSIONS, ACTIONS = {"allow", "deny"}, {"publish", "subscribe", "all"}


def term(text: str, at: int = 0) -> tuple[Any, int]:
    """An Erlang term of tuples, lists, strings and atoms; tuples and lists become tuples and lists."""
    token = TOKEN.match(text, at)
    assert token, f"no term at {text[at:]!r}"
    if token["text"]:
        return token["text"].encode(), token.end()
    if token["atom"]:
        return token["atom"], token.end()
    assert token["open"], f"no term at {text[at:]!r}"
    items, at = [], token.end()
    while True:
        item, at = term(text, at)
        items.append(item)
        after = TOKEN.match(text, at)
        assert after, f"no end of {text!r}"
        at = after.end()
        if after["close"]:
            assert after["close"] == {"{": "}", "[": "]"}[token["open"]]
            return (tuple(items) if token["open"] == "{" else items), at
        assert after["comma"], f"no comma in {text!r}"


def rules() -> list[tuple[Any, ...]]:
    lines = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith(("{allow", "{deny"))]
    made = []
    for line in lines:
        rule, end = term(line)
        assert line[end:] == "."
        made.append(rule)
    return made


def fits(asked: str, rule: str) -> bool:
    """Whether all topics that `asked` (a topic or a filter) stands for are those of the rule's filter."""
    ask, given = asked.split("/"), rule.split("/")
    for n, level in enumerate(given):
        if level == "#":
            return True
        if n >= len(ask) or (ask[n] == "#" or (ask[n] == "+" and level != "+")) or level not in ("+", ask[n]):
            return False
    return len(ask) == len(given)


def allowed(user: str, action: str, asked: str) -> bool:
    for permission, who, *rest in rules():
        if who not in ("all", ("user", f'"{user}"'.encode())):
            continue
        if not rest:
            return bool(permission == "allow")
        did, filters = rest
        if did in (action, "all") and any(
            fits(asked, one.decode().strip('"').replace("${username}", user)) for one in filters
        ):
            return bool(permission == "allow")
    raise AssertionError("no rule fits, and EMQX lets everything through then: the last must deny all")


def test_the_rules_are_written_as_emqx_reads_them() -> None:
    assert len(rules()) == 4
    for permission, who, *rest in rules():
        assert permission in PERMISSIONS
        assert who == "all" or (who[0] == "user" and len(who) == 2)
        assert not rest or (len(rest) == 2 and rest[0] in ACTIONS and all(isinstance(one, bytes) for one in rest[1]))
    assert rules()[-1] == ("deny", "all")


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_a_store_may_what_is_its_own_and_no_more(channel: Any) -> None:
    for class_ in CLASSES:
        rest = channel.topic.replace("{class}", class_)
        own, other = topics.topic("s1", rest), topics.topic("s2", rest)
        does, others = ("publish", "subscribe") if channel.up else ("subscribe", "publish")
        assert allowed("s1", does, own)
        assert not allowed("s1", does, other)
        if rest != "state":  # which a gateway watches for another one with its identity
            assert not allowed("s1", others, own)
        assert allowed("crm", "publish", own)
        assert allowed("crm", "subscribe", topics.topic("+", rest))
        assert not allowed("stranger", does, own)


def test_subscriptions_of_a_gateway_and_none_that_are_wider() -> None:
    for rest in ("state", "down/ack/+", "down/cmd/#", "down/config/#", "down/directory/#"):
        assert allowed("s1", "subscribe", topics.topic("s1", rest)), rest
        assert not allowed("s1", "subscribe", topics.topic("+", rest)), rest
    for wide in ("#", "tagtrail/#", "tagtrail/v1/+/+/down/#", "tagtrail/v1/+/s1/#", "$SYS/#"):
        assert not allowed("s1", "subscribe", wide), wide
