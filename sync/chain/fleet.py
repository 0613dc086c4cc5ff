"""Steering of a chain's stores: rollouts in waves, erasures with a proof, replays, and how each store is.

Everything is a row in PostgreSQL: the sinks, which are connected to the stores, send it and write down the answers.
What is begun here goes on when this process ends, except for the decision to begin the next wave: run the same command
again to go on.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from config import topics
from sync.chain import members
from sync.chain.desk import OPEN, Order, make_commands
from sync.chain.ledger import now_us
from sync.down import DesiredConfig, DirectoryFile, Manifest

DAY_US = 86_400_000_000
POLL_S = 0.5
HALTS = ("refused", "offline")
REPLAY_EVENTS = 5_000
"""Numbers asked for by one replay; a store does one at a time."""


class HaltedError(Exception):
    """A rollout has been halted; the text says why."""


class Wave(NamedTuple):
    """How a wave went: stores by outcome."""

    number: int
    applied: list[str]
    refused: dict[str, str]
    offline: list[str]
    waiting: list[str]


class Push(NamedTuple):
    """A configuration or directory to be pushed: `message` is made for each generation."""

    kind: str
    digest: str
    message: Callable[[int], str]


def config_push(file: Path) -> Push:
    """Read a configuration. Raises OSError, and ValueError if it is no text or too long; stores judge the rest."""
    text = file.read_text("utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()

    def message(generation: int) -> str:
        return DesiredConfig(generation=generation, sha256=digest, toml=text).model_dump_json()

    message(1)
    return Push("config", digest, message)


def directory_push(conn: psycopg.Connection[Any], file: Path, valid_days: float) -> Push:
    """Read a member directory (CSV, also gzipped) and store it for the sinks to serve. Raises OSError, and ValueError
    with the line that stores would refuse."""
    content = members.packed(file)
    digest = hashlib.sha256(content).hexdigest()
    conn.execute(
        "INSERT INTO chain.directory_file (sha256, content) VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, content)
    )
    until_us = now_us() + round(valid_days * DAY_US)

    def message(generation: int) -> str:
        files = [DirectoryFile(generation=generation, size=len(content), sha256=digest)]
        return Manifest(generation=generation, valid_until_us=until_us, files=files).model_dump_json()

    return Push("directory", digest, message)


def roll_out(
    conn: psycopg.Connection[Any],
    push: Push,
    waves: Sequence[int],
    halt_on: Sequence[str],
    *,
    stores: Sequence[str] = (),
    within_s: float = 900.0,
) -> Iterator[Wave]:
    """Push to waves of stores, of sizes `waves` and then of the last size again, and yield how each went.

    The next wave begins when all stores of one have applied it. A store that refuses (or goes back to what it had) or
    is offline halts the rollout, if `halt_on` says so; otherwise it is passed over, and applies it when it is back. A
    store that says nothing `within_s` counts as offline. An interrupted or halted rollout of the same content goes on
    where it was. Raises HaltedError.
    """
    generation, message = _begin(conn, push)
    everyone = list(stores) or _stores(conn)
    sizes = itertools.chain(waves, itertools.repeat(waves[-1]))
    number = 0
    while True:
        states = _reported(conn, push.kind, generation, everyone)
        todo = [store for store in everyone if states[store][0] == "unsent"]
        again = [store for store in everyone if states[store][0] == "waiting"]
        number, size = number + 1, next(sizes)
        wave = (again + todo)[:size]  # what an interrupted run had sent counts as this wave's
        if not wave:
            conn.execute(
                "UPDATE chain.rollout SET state = 'done', reason = '', ended = now()"
                " WHERE kind = %s AND generation = %s",
                (push.kind, generation),
            )
            return
        _desire(conn, push.kind, generation, message, [store for store in wave if store in set(todo)])
        result = _watch(conn, push.kind, generation, wave, number, within_s)
        yield result
        reasons = [f"{store} refused: {why}" for store, why in result.refused.items()] if "refused" in halt_on else []
        if "offline" in halt_on:
            reasons += [f"{store} is offline" for store in (*result.offline, *result.waiting)]
        if reasons:
            said = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
            conn.execute(
                "UPDATE chain.rollout SET state = 'halted', reason = %s, ended = now()"
                " WHERE kind = %s AND generation = %s",
                (said, push.kind, generation),
            )
            raise HaltedError(f"{push.kind} {generation} halted in wave {number}: {said}")
        everyone = [store for store in everyone if store not in wave]


def replay(
    conn: psycopg.Connection[Any], store: str, class_: str, first: int, last: int, epoch: str | None = None
) -> int:
    """Have numbers sent again, in pieces, a few stores at a time; returns the number of commands. Without `epoch`: the
    one heard last. Raises ValueError for an unknown store."""
    found = conn.execute(
        "SELECT epoch FROM chain.series WHERE store = %s AND class = %s AND (%s::text IS NULL OR epoch = %s)"
        " ORDER BY heard_us DESC LIMIT 1",
        (store, class_, epoch, epoch),
    ).fetchone()
    if found is None:
        raise ValueError(
            f"nothing of {store}, class {class_}, has been received" + (f" in epoch {epoch}" if epoch else "")
        )
    orders = [
        Order(
            store, "replay", {"class": class_, "epoch": found[0], "from": low, "to": min(last, low + REPLAY_EVENTS - 1)}
        )
        for low in range(first, last + 1, REPLAY_EVENTS)
    ]
    make_commands(conn, f"replay-{now_us()}", orders)
    return len(orders)


def gaps(conn: psycopg.Connection[Any]) -> list[tuple[str, str, str, int, int]]:
    """Return the numbers that are missing below others: store, epoch, class, first and last of each first gap."""
    return conn.execute(
        "SELECT s.store, s.epoch, s.class, s.upto + 1, (SELECT min(first) - 1 FROM chain.ahead a WHERE a.series = s.id)"
        " FROM chain.series s WHERE s.highest > s.upto ORDER BY 1, 2, 3"
    ).fetchall()


def command(conn: psycopg.Connection[Any], stores: Sequence[str], name: str, body: dict[str, Any]) -> str:
    """Send a command to stores; returns the beginning of their ids."""
    prefix = f"{name}-{now_us()}"
    make_commands(conn, prefix, [Order(store, name, body) for store in stores])
    return prefix


def answers(conn: psycopg.Connection[Any], prefix: str) -> list[tuple[str, str, str, Any]]:
    """Return store, state, reason and output of commands by the beginning of their ids."""
    return conn.execute(
        "SELECT store, state, reason, output FROM chain.command WHERE starts_with(id, %s) ORDER BY store", (prefix,)
    ).fetchall()


def over(conn: psycopg.Connection[Any], prefix: str) -> bool:
    """Return whether all commands with this beginning of their ids are over."""
    found = conn.execute(
        "SELECT count(*) FROM chain.command WHERE starts_with(id, %s) AND state = ANY(%s)", (prefix, list(OPEN))
    ).fetchone()
    return found == (0,)


def status(conn: psycopg.Connection[Any], stores: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return how stores are, the ones that need looking after first; `coverage` is that of the last day summarised."""
    cursor = conn.execute(
        "SELECT f.*, (SELECT count(*) FROM chain.command c WHERE c.store = f.store AND c.state = ANY(%s)) AS commands,"
        " (SELECT c.coverage FROM chain.coverage c WHERE c.store = f.store ORDER BY c.day DESC LIMIT 1) AS coverage"
        " FROM chain.freshness f WHERE %s::text[] = '{}' OR store = ANY(%s)"
        " ORDER BY coalesce(online, false), behind > 0 DESC, silent_s DESC, store",
        (list(OPEN), list(stores), list(stores)),
    )
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _begin(conn: psycopg.Connection[Any], push: Push) -> tuple[int, str]:
    """Return the generation and message of a rollout: of the latest one if it has the same content, else of a new
    one, higher than all that stores report."""
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(hashtext('chain.rollout'))")
        latest = conn.execute(
            "SELECT generation, digest, message FROM chain.rollout WHERE kind = %s ORDER BY generation DESC LIMIT 1",
            (push.kind,),
        ).fetchone()
        if latest is not None and latest[1] == push.digest:
            conn.execute(
                "UPDATE chain.rollout SET state = 'running', reason = '', ended = NULL"
                " WHERE kind = %s AND generation = %s",
                (push.kind, latest[0]),
            )
            return latest[0], latest[2]
        column = "config" if push.kind == "config" else "directory"
        reported = conn.execute(
            f"SELECT coalesce(max(({column} ->> 'generation')::bigint), 0) FROM chain.store".encode()
        ).fetchone()
        generation = max(latest[0] if latest else 0, reported[0] if reported else 0) + 1
        message = push.message(generation)
        conn.execute(
            "INSERT INTO chain.rollout (kind, generation, digest, message) VALUES (%s, %s, %s, %s)",
            (push.kind, generation, push.digest, message),
        )
        return generation, message


def _stores(conn: psycopg.Connection[Any]) -> list[str]:
    """All stores, those that are online first, so that the first wave tells something."""
    query = "SELECT store FROM chain.store ORDER BY coalesce((state ->> 'online')::boolean, false) DESC, store"
    return [store for (store,) in conn.execute(query)]


def _desire(conn: psycopg.Connection[Any], kind: str, generation: int, message: str, stores: Sequence[str]) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO chain.desired (store, kind, shard, generation, message) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (store, kind) DO UPDATE SET generation = excluded.generation, message = excluded.message,"
            " at = now(), sent_at = NULL",
            [(store, kind, topics.shard(store), generation, message) for store in stores],
        )


def _reported(
    conn: psycopg.Connection[Any], kind: str, generation: int, stores: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """What became of a generation by store: unsent, waiting, applied, refused or offline, and why."""
    found = conn.execute(
        "SELECT s.store, d.generation, extract(epoch FROM d.sent_at) * 1e6,"
        " CASE %s WHEN 'config' THEN s.config ELSE s.directory END, coalesce((s.state ->> 'online')::boolean, false)"
        " FROM unnest(%s::text[]) AS w (store)"
        " LEFT JOIN chain.store s USING (store) LEFT JOIN chain.desired d ON d.store = w.store AND d.kind = %s",
        (kind, list(stores), kind),
    )
    states = dict.fromkeys(stores, ("unsent", ""))
    for store, desired, sent_us, reported, online in found:
        if store is None or desired != generation:
            continue
        told = reported or {}
        state = told.get("state")
        if told.get("generation") == generation and state == "applied":
            states[store] = "applied", ""
        # A store reports the generation of the directory that it has, also when it can't apply the next one.
        elif state in ("failed", "rolled_back", "expired") and (
            told.get("generation") == generation
            or (kind == "directory" and state == "failed" and sent_us is not None and told["at_us"] >= sent_us)
        ):
            states[store] = "refused", str(told.get("reason", state))
        else:
            states[store] = ("waiting" if online else "offline"), ""
    return states


def _watch(
    conn: psycopg.Connection[Any], kind: str, generation: int, wave: Sequence[str], number: int, within_s: float
) -> Wave:
    """Wait for the stores of a wave. One that goes offline meanwhile is waited for, too: a gateway restarts to apply a
    configuration."""
    until_s = time.monotonic() + within_s
    away: set[str] | None = None
    while True:
        states = _reported(conn, kind, generation, wave)
        by: dict[str, list[str]] = {"applied": [], "refused": [], "offline": [], "waiting": []}
        for store, (state, _) in states.items():
            by["waiting" if state == "unsent" else state].append(store)
        if away is None:
            away = set(by["offline"])
        if not (by["waiting"] or set(by["offline"]) - away) or time.monotonic() > until_s:
            refused = {store: states[store][1] for store in by["refused"]}
            return Wave(number, by["applied"], refused, by["offline"], by["waiting"])
        time.sleep(POLL_S)
