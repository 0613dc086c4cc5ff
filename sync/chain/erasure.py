"""Erasure of a member in a whole chain: in the database, in the log, and at every store, with a proof at the end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from sync.chain.desk import OPEN, Order, make_commands
from sync.chain.ledger import now_us

TABLES = {"recognition": "member", "cue": "member", "cue_outcome": "member", "journey": "journey", "visit": "journey"}
"""Tables with a column `member` and the key of the event, by the class of the event."""


def ask(conn: psycopg.Connection[Any], member: str, stores: Sequence[str] = ()) -> int:
    """Begin an erasure: from now on sinks drop what arrives about the member; the database forgets at once, and every
    store gets the command. Returns its id; that of one under way if there is one. `stores`: further ones than those
    that have ever been heard."""
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(hashtext('chain.erasure'))")
        there = conn.execute(
            "SELECT id FROM chain.erasure WHERE member = %s AND completed_at IS NULL", (member,)
        ).fetchone()
        if there is not None:
            return int(there[0])
        (id_,) = conn.execute("INSERT INTO chain.erasure (member) VALUES (%s) RETURNING id", (member,)).fetchone() or (
            0,
        )
        heard = "SELECT store FROM chain.store UNION SELECT store FROM chain.series"
        everyone = sorted({store for (store,) in conn.execute(heard)} | set(stores))
        orders = [Order(store, "erase", {"member": member}) for store in everyone]
        make_commands(conn, f"erase-{now_us()}-{secrets.token_hex(3)}", orders, id_)
    erase_here(conn, id_, member)
    return int(id_)


def erase_here(conn: psycopg.Connection[Any], id_: int, member: str) -> dict[str, int]:
    """Erase a member's rows and events, and count them."""
    with conn.transaction():
        keys = " UNION ".join(
            f"SELECT '{class_}', store, epoch, seq FROM chain.{table} WHERE member = %(member)s"
            for table, class_ in TABLES.items()
        )
        counts = {
            "events": conn.execute(
                "DELETE FROM chain.event e USING chain.series s WHERE s.id = e.series"
                f" AND (s.class, s.store, s.epoch, e.seq) IN ({keys})".encode(),
                {"member": member},
            ).rowcount
        }
        for table in TABLES:
            counts[table] = conn.execute(f"DELETE FROM chain.{table} WHERE member = %s".encode(), (member,)).rowcount
        for table in ("dead_letter", "dead_message"):
            counts[table] = conn.execute(
                f"DELETE FROM chain.{table} WHERE position(%s::bytea IN payload) > 0".encode(),
                (msgspec.json.encode(member),),
            ).rowcount
        before = conn.execute("SELECT erased FROM chain.erasure WHERE id = %s FOR UPDATE", (id_,)).fetchone()
        erased = {name: n + (before[0].get(name, 0) if before else 0) for name, n in counts.items()}
        conn.execute("UPDATE chain.erasure SET erased = %s WHERE id = %s", (Jsonb(erased), id_))
    return counts


def progress(conn: psycopg.Connection[Any], id_: int) -> dict[str, int]:
    """Return the number of stores by the state of their command."""
    found = conn.execute("SELECT state, count(*) FROM chain.command WHERE erasure = %s GROUP BY state", (id_,))
    return dict(found.fetchall())


def complete(conn: psycopg.Connection[Any], id_: int, log: dict[str, Any] | None) -> dict[str, Any] | None:
    """Complete an erasure once all stores have answered: erase once more what came meanwhile, write the proof, and
    forget the member's number. Returns the proof, or None as long as a store is missing. `log`: what was erased there.
    """
    row = conn.execute(
        "SELECT member, asked_at, completed_at, proof FROM chain.erasure WHERE id = %s", (id_,)
    ).fetchone()
    if row is None:
        raise ValueError(f"no erasure {id_}")
    member, asked_at, completed_at, proof = row
    if completed_at is not None:
        return dict(proof)
    if sum(n for state, n in progress(conn, id_).items() if state in OPEN):
        return None
    erase_here(conn, id_, member)
    with conn.transaction():
        query = "SELECT store, id, output, answered_at FROM chain.command WHERE erasure = %s ORDER BY store"
        receipts = [
            {"store": store, "command": command, "receipt": output, "at": at.isoformat()}
            for store, command, output, at in conn.execute(query, (id_,))
        ]
        (erased,) = conn.execute("SELECT erased FROM chain.erasure WHERE id = %s", (id_,)).fetchone() or ({},)
        salt = secrets.token_hex(16)
        proof = {
            "erasure": id_,
            # Whoever knows the number can check that the proof is about it; nobody can find it out.
            "member_sha256": hashlib.sha256(f"{salt}{member}".encode()).hexdigest(),
            "salt": salt,
            "asked_at": asked_at.isoformat(),
            "database": erased,
            "log": log if log is not None else "not asked: it forgets by its retention",
            "stores": receipts,
        }
        conn.execute(
            "UPDATE chain.erasure SET member = NULL, completed_at = now(), proof = %s WHERE id = %s",
            (Jsonb(proof), id_),
        )
        conn.execute("UPDATE chain.command SET body = '{}' WHERE erasure = %s", (id_,))
    return proof


def pending(conn: psycopg.Connection[Any]) -> list[tuple[int, str]]:
    """Return erasures under way: id and member."""
    return conn.execute("SELECT id, member FROM chain.erasure WHERE completed_at IS NULL ORDER BY id").fetchall()


async def erase_in_log(client: Any, conn: psycopg.Connection[Any], member: str) -> dict[str, int]:
    """Erase the messages about a member in the log, and have sinks publish anew what else was in them; returns the
    numbers of messages read and erased. Call it after `erase_here`."""
    from nats.js.errors import NotFoundError

    from sync.chain.log import stream_of
    from sync.chain.reader import Place, follow

    js = client.jetstream(timeout=10)
    read = erased = 0
    for class_ in sorted(set(TABLES.values())):
        try:
            await js.stream_info(stream_of(class_))
        except NotFoundError:
            continue
        async for messages in follow(client, class_, Place(), once=True):
            for message in messages:
                read += 1
                about = [_member_in(event.payload) == member for event in message.events]
                if not any(about):
                    continue
                await js.delete_msg(stream_of(class_), message.sequence)
                erased += 1
                if not all(about):
                    first, last = message.events[0], message.events[-1]
                    conn.execute(
                        "INSERT INTO chain.fanout (series, first, last, shard, class, again) SELECT id, %s, %s, shard,"
                        " class, true FROM chain.series WHERE store = %s AND epoch = %s AND class = %s",
                        (first.seq, last.seq, first.store, first.epoch, class_),
                    )
    return {"messages": read, "erased": erased}


def _member_in(payload: bytes) -> Any:
    return msgspec.json.decode(payload).get("member")
