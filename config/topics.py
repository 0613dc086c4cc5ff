"""Topic names of the contract with the CRM: `tagtrail/v1/{shard}/{store}/…`."""

from __future__ import annotations

from zlib import crc32

ROOT = "tagtrail/v1"
SHARDS = 64
CLASSES = ("member", "journey", "agg", "health")
"""Event classes in order of priority: the first never waits behind the others and is evicted last."""


def shard(store: str) -> int:
    """Shard of a store: spreads a chain over workers and keeps each store's events in order."""
    return crc32(store.encode()) % SHARDS


def topic(store: str, rest: str) -> str:
    """Full topic of a store, e.g. `topic("s1", "up/member")`; `+` as store and any shard for a subscriber."""
    return f"{ROOT}/{'+' if store == '+' else shard(store)}/{store}/{rest}"


def parse(name: str) -> tuple[str, str]:
    """Store id and the rest of a topic; ValueError for a topic that is not ours."""
    parts = name.split("/", 4)
    if len(parts) != 5 or "/".join(parts[:2]) != ROOT or parts[2] != str(shard(parts[3])):
        raise ValueError(f"not a topic of this contract: {name!r}")
    return parts[3], parts[4]
