"""The sink's desk: what stores tell of themselves and answer, and what the chain has for them, by way of PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from pydantic import BaseModel, ValidationError

from config import topics
from sync.chain.ledger import now_us
from sync.contract import State
from sync.down import ReportedConfig, ReportedDirectory, Result, Want
from sync.mqtt import Incoming

OPEN = ("waiting", "sent", "received", "pending")
AGAIN_S = 60
"""Interval at which a command is sent again until it is answered."""
AT_ONCE = 200
"""Commands sent in one go."""
REPLAYS = 10
"""Replays under way in the shards of one sink: more would delay what is new."""
EXPIRES_US = 3600 * 1_000_000
"""Expiry of a command; it is sent again with a later one."""
SALES = "sales"
"""Name of what is no command, but sent again until it is answered as commands are: a message on `down/sales`."""
RETRIED = ("erase",)
"""Commands that a store must carry out some day: those that fail are given a new id."""
MAX_KEPT = 100_000
KINDS = {"config": "down/config", "directory": "down/directory"}

Outgoing = tuple[str, bytes, bool]
"""Topic, message, retained or not."""


class Desk:
    """Takes messages as they come; `work`, called every EVERY_S, writes them down and returns what is to be sent."""

    EVERY_S = 0.3
    TOPICS = ("state", "up/result", "up/config", "up/directory", "up/directory/want")

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[str, int]] = {}
        self._results: list[tuple[str, Result]] = []
        self._wants: list[tuple[str, Want]] = []

    def takes(self, topic: str) -> bool:
        """Return whether a topic is for the desk, not for the ledger."""
        return topic.endswith(_ENDINGS)

    def take(self, incoming: Incoming, received_us: int) -> None:
        """Take a message; what is no message of the contract is dropped, since it repeats or is asked for again."""
        try:
            store, rest = topics.parse(incoming.topic)
            message: BaseModel = _MODELS[rest].model_validate_json(incoming.payload)
        except (ValueError, KeyError, ValidationError):
            return
        if re.search(r"\\u0000", incoming.payload.decode(errors="replace")) or "\0" in store:
            return
        if isinstance(message, Result):
            self._results.append((store, message))
        elif isinstance(message, Want):
            self._wants.append((store, message))
        elif len(self._told) < MAX_KEPT:
            self._told[store, _COLUMNS[rest]] = message.model_dump_json(), received_us

    def work(self, conn: psycopg.Connection[Any], shards: Sequence[int]) -> list[Outgoing]:
        """Write down what came, and return what stores of these shards shall get. Raises psycopg.Error; what came is
        kept then."""
        told, results, wants = dict(self._told), list(self._results), list(self._wants)
        try:
            with conn.transaction():
                for column in set(_COLUMNS.values()):
                    rows = sorted((key[0], *value) for key, value in told.items() if key[1] == column)
                    if rows:
                        _note(conn, column, rows)
                for store, result in results:
                    _answered(conn, store, result)
                sending = [*_commands(conn, shards), *_desired(conn, shards)]
                for store, want in wants[:AT_ONCE]:
                    sending += _parts(conn, store, want)
        except psycopg.DataError:  # nothing that a store says may stop the others; it says it again
            self._told.clear()
            self._results.clear()
            self._wants.clear()
            raise
        self._told = {key: value for key, value in self._told.items() if told.get(key) != value}
        del self._results[: len(results)], self._wants[: len(wants)]
        return sending


class Order(NamedTuple):
    """A command to be made."""

    store: str
    name: str
    body: dict[str, Any]


def make_commands(
    conn: psycopg.Connection[Any], prefix: str, orders: Sequence[Order], erasure: int | None = None
) -> None:
    """Have sinks send commands, each once: an id is `prefix` and a number."""
    rows = [
        (f"{prefix}-{n}", order.store, topics.shard(order.store), order.name, json.dumps(order.body), erasure)
        for n, order in enumerate(orders, 1)
    ]
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO chain.command (id, store, shard, name, body, erasure) VALUES (%s, %s, %s, %s, %s, %s)", rows
        )


def _note(conn: psycopg.Connection[Any], column: str, rows: Sequence[tuple[str, str, int]]) -> None:
    also = ", state_us = excluded.state_us" if column == "state" else ""
    conn.execute(
        f"INSERT INTO chain.store (store, shard, {column}, state_us) SELECT * FROM"
        " unnest(%s::text[], %s::smallint[], %s::jsonb[], %s::bigint[])"
        f" ON CONFLICT (store) DO UPDATE SET {column} = excluded.{column}{also}".encode(),
        (
            [store for store, _, _ in rows],
            [topics.shard(store) for store, _, _ in rows],
            [text for _, text, _ in rows],
            [us if column == "state" else None for _, _, us in rows],
        ),
    )


def _answered(conn: psycopg.Connection[Any], store: str, result: Result) -> None:
    found = conn.execute(
        "SELECT no, name, tries FROM chain.command WHERE id = %s AND store = %s AND state = ANY(%s) FOR UPDATE",
        (result.id, store, list(OPEN)),
    ).fetchone()
    if found is None:
        return
    no, name, tries = found
    if result.state in ("failed", "refused") and name in RETRIED:
        base = result.id.rsplit(".", 1)[0]
        conn.execute(
            "UPDATE chain.command SET id = %s, state = 'waiting', reason = %s, sent_at = now() WHERE no = %s",
            (f"{base}.{tries + 1}", result.reason, no),
        )
        return
    conn.execute(
        "UPDATE chain.command SET state = %s, reason = %s, output = %s, answered_at = now(),"
        " body = CASE name WHEN %s THEN '{}' ELSE body END WHERE no = %s",  # a year of sales would fill the table
        (result.state, result.reason, json.dumps(result.output), SALES, no),
    )


def _commands(conn: psycopg.Connection[Any], shards: Sequence[int]) -> list[Outgoing]:
    due = "shard = ANY(%s) AND state = ANY(%s) AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => %s))"
    found = conn.execute(
        f"SELECT no FROM chain.command WHERE {due} AND name <> 'replay' ORDER BY no LIMIT %s"
        " FOR UPDATE SKIP LOCKED".encode(),
        (list(shards), list(OPEN), AGAIN_S, AT_ONCE),
    ).fetchall()
    # Replays: one a store, and a few stores at a time.
    under_way = "shard = ANY(%s) AND name = 'replay' AND state IN ('sent', 'received')"
    busy = {
        store
        for (store,) in conn.execute(f"SELECT store FROM chain.command WHERE {under_way}".encode(), (list(shards),))
    }
    found += conn.execute(
        f"SELECT no FROM chain.command WHERE {due} AND name = 'replay' AND state <> 'waiting'"
        " FOR UPDATE SKIP LOCKED".encode(),
        (list(shards), list(OPEN), AGAIN_S),
    ).fetchall()
    if (room := REPLAYS - len(busy)) > 0:
        found += conn.execute(
            "SELECT no FROM chain.command WHERE no IN (SELECT min(no) FROM chain.command WHERE shard = ANY(%s) AND"
            " name = 'replay' AND state = 'waiting' AND store <> ALL(%s) GROUP BY store ORDER BY 1 LIMIT %s)"
            " FOR UPDATE SKIP LOCKED",
            (list(shards), sorted(busy), room),
        ).fetchall()
    if not found:
        return []
    sent = conn.execute(
        "UPDATE chain.command SET sent_at = now(), tries = tries + 1,"
        " state = CASE state WHEN 'waiting' THEN 'sent' ELSE state END WHERE no = ANY(%s)"
        " RETURNING id, store, name, body",
        ([no for (no,) in found],),
    )
    made = []
    for id_, store, name, body in sent:
        message = {"v": 1, "id": id_} | body
        if name != SALES:
            message |= {"expires_us": now_us() + EXPIRES_US, "command": name}
        topic = topics.topic(store, "down/sales" if name == SALES else "down/cmd")
        made.append((topic, json.dumps(message, ensure_ascii=False).encode(), False))
    return made


def _desired(conn: psycopg.Connection[Any], shards: Sequence[int]) -> list[Outgoing]:
    """What is to be retained and was not sent yet, or has got lost: the store reports an older one for minutes."""
    found = conn.execute(
        "SELECT d.store, d.kind, d.message FROM chain.desired d LEFT JOIN chain.store s USING (store)"
        " WHERE d.shard = ANY(%s) AND (d.sent_at IS NULL OR d.sent_at < now() - interval '10 minutes'"
        " AND coalesce((CASE d.kind WHEN 'config' THEN s.config ELSE s.directory END ->> 'generation')::bigint, 0)"
        " < d.generation AND (s.state ->> 'online')::boolean) LIMIT %s FOR UPDATE OF d SKIP LOCKED",
        (list(shards), AT_ONCE),
    ).fetchall()
    if found:
        conn.execute(
            "UPDATE chain.desired d SET sent_at = now() FROM unnest(%s::text[], %s::text[]) AS k (store, kind)"
            " WHERE d.store = k.store AND d.kind = k.kind",
            ([store for store, _, _ in found], [kind for _, kind, _ in found]),
        )
    return [(topics.topic(store, KINDS[kind]), message.encode(), True) for store, kind, message in found]


def _parts(conn: psycopg.Connection[Any], store: str, want: Want) -> list[Outgoing]:
    made = []
    for n in range(want.parts):
        at = want.offset + n * want.size
        row = conn.execute(
            "SELECT substring(content FROM %s FOR %s) FROM chain.directory_file WHERE sha256 = %s",
            (at + 1, min(want.size, 65536), want.sha256),
        ).fetchone()
        if row is None or not row[0]:
            break
        made.append((topics.topic(store, f"down/directory/part/{want.sha256}/{at}"), bytes(row[0]), False))
    return made


_MODELS: dict[str, type[BaseModel]] = {
    "state": State,
    "up/result": Result,
    "up/config": ReportedConfig,
    "up/directory": ReportedDirectory,
    "up/directory/want": Want,
}
_COLUMNS = {"state": "state", "up/config": "config", "up/directory": "directory"}
_ENDINGS = tuple(f"/{rest}" for rest in _MODELS)
