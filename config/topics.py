"""Topic names of the contract with the CRM: `tagtrail/v1/{shard}/{store}/…`."""

from __future__ import annotations

from zlib import crc32

ROOT = "tagtrail/v1"
SHARDS = 64
CLASSES = ("member", "journey", "agg", "health")
"""Event classes in order of priority: the first never waits behind the others and is evicted last."""


def shard(store: str) -> int:
    """Return the shard of a store, used to spread a chain over workers while keeping each store's events in order."""
    return crc32(store.encode()) % SHARDS


def topic(store: str, rest: str) -> str:
    """Return the full topic of a store, e.g. `topic("s1", "up/member")`; store `+` matches any store and shard."""
    return f"{ROOT}/{'+' if store == '+' else shard(store)}/{store}/{rest}"


def parse(name: str) -> tuple[str, str]:
    """Split a topic into store id and rest; ValueError if it is not a topic of this contract."""
    parts = name.split("/", 4)
    if len(parts) != 5 or "/".join(parts[:2]) != ROOT or parts[2] != str(shard(parts[3])):
        raise ValueError(f"not a topic of this contract: {name!r}")
    return parts[3], parts[4]
