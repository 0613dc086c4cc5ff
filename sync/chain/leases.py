"""Which sink takes which shards: leases are advisory locks of PostgreSQL, so they end with the connection.

Every sink holds a lock that says that it is there, and one for each of its shards. All compute the same shares from
the sinks that are there: nobody decides, and nobody has to notice that another died. Two sinks that hold the same shard
for a moment do no harm, because the ledger counts each number once.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import psycopg

LANES: dict[str, tuple[str, ...]] = {"member": ("member",), "bulk": ("journey", "agg", "health")}
"""Classes of events by lane: recognitions never wait behind anything else."""
_SINKS = 0x7467_0000
"""First part of the keys of locks by which sinks are known, …"""
SHARD_LOCKS = {"member": 0x7467_0001, "bulk": 0x7467_0002}
"""… and of those of shards, by lane."""


class Sink(NamedTuple):
    """A sink that is there, and the shards that it may take."""

    id: int
    first: int
    last: int


class Leases:
    """Leases of one sink, on a connection of its own. All methods raise psycopg.Error if that is lost: then nothing is
    held any more."""

    def __init__(
        self, conn: psycopg.Connection[Any], lane: str, first: int, last: int, *, broker: str, version: str
    ) -> None:
        self._conn = conn
        self._lane = lane
        self._me = Sink(secrets.randbits(31), first, last)
        self.held: set[int] = set()
        conn.execute("SELECT pg_advisory_lock(%s, %s)", (_SINKS, self._me.id))
        conn.execute("DELETE FROM chain.sink WHERE id <> ALL(%s)", (list(self._ids()),))
        conn.execute(
            "INSERT INTO chain.sink (id, lane, first, last, broker, host, pid, version)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (self._me.id, lane, first, last, broker, socket.gethostname(), os.getpid(), version),
        )

    def renew(self, counters: Mapping[str, int] | None = None) -> tuple[set[int], set[int]]:
        """Take what is due and free; returns the shards taken, and those that others shall have, which are still held:
        see `release`."""
        alive = self._ids()
        found = self._conn.execute("SELECT id, first, last FROM chain.sink WHERE lane = %s", (self._lane,)).fetchall()
        due = share(self._me, [Sink(*row) for row in found if row[0] in alive])
        taken = set()
        if wanted := sorted(due - self.held):
            query = "SELECT shard, pg_try_advisory_lock(%s, shard) FROM unnest(%s::integer[]) AS w (shard)"
            taken = {shard for shard, got in self._conn.execute(query, (SHARD_LOCKS[self._lane], wanted)) if got}
            self.held |= taken
        if counters is not None:
            self._conn.execute(
                "UPDATE chain.sink SET counters = %s WHERE id = %s", (json.dumps(dict(counters)), self._me.id)
            )
        return taken, self.held - due

    def release(self, shards: set[int]) -> None:
        """Give shards up."""
        query = "SELECT pg_advisory_unlock(%s, shard) FROM unnest(%s::integer[]) AS w (shard)"
        self._conn.execute(query, (SHARD_LOCKS[self._lane], sorted(shards))).fetchall()
        self.held -= shards

    def close(self) -> None:
        """Give everything up."""
        self._conn.close()
        self.held.clear()

    def _ids(self) -> set[int]:
        query = (
            "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2"
            " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return {id_ for (id_,) in self._conn.execute(query, (_SINKS,))}


def share(me: Sink, sinks: Sequence[Sink]) -> set[int]:
    """Return the shards that `me` takes. Each goes to the sink that ranks highest for it and is not full yet
    (rendezvous hashing), so that few change hands when a sink comes or goes."""
    able = {
        shard: [sink for sink in sinks if sink.first <= shard <= sink.last]
        for shard in range(
            min((sink.first for sink in sinks), default=0), max((sink.last for sink in sinks), default=-1) + 1
        )
    }
    room = {sink.id: ceil(sum(1 / len(them) for them in able.values() if sink in them)) for sink in sinks}
    mine = set()
    for shard, them in able.items():
        if them:
            chosen = max(them, key=lambda sink: (room[sink.id] > 0, _rank(shard, sink.id)))
            room[chosen.id] -= 1
            if chosen.id == me.id:
                mine.add(shard)
    return mine


def holders(conn: psycopg.Connection[Any]) -> dict[int, dict[str, Any]]:
    """Return the sinks that are there by id: what they told of themselves, and `shards` that they hold."""
    query = (
        "SELECT s.*, coalesce(array_agg(h.objid::integer ORDER BY h.objid::bigint) FILTER (WHERE h.objid IS NOT NULL),"
        " '{}') AS shards FROM chain.sink s JOIN pg_locks l ON l.locktype = 'advisory' AND l.classid = %s"
        " AND l.objid = s.id AND l.objsubid = 2 LEFT JOIN pg_locks h ON h.pid = l.pid AND h.locktype = 'advisory'"
        " AND h.classid = ANY(%s::oid[]) AND h.objsubid = 2 GROUP BY s.id ORDER BY s.lane, s.first, s.id"
    )
    cursor = conn.execute(query, (_SINKS, list(SHARD_LOCKS.values())))
    names = [column.name for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    return {row["id"]: row for row in rows}


def _rank(shard: int, id_: int) -> bytes:
    return hashlib.blake2b(f"{shard}/{id_}".encode(), digest_size=8).digest()
