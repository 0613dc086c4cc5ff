"""What a gateway is, by files beside the database: one that serves, one that stands by, or one that must not serve.

<database>.standby-copy  it stands by
<database>.took-over     it has taken over with this term
<database>.fenced        another gateway has, with this term: nobody may serve from this database
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from config import StoreConfig
from edge.database import keys, schema, terms
from edge.database.life import forget
from edge.database.writer import SIDES
from edge.forwarding import wire
from edge.standby.mirror import Mirror, copy_of
from edge.store.errors import Superseded, Trouble
from edge.store.files import replaced
from edge.store.private import create_private
from sync import outbox
from sync.contract import CLASSES

log = logging.getLogger("tagtrail.standby")

NONE_IN_FILE = "the store file has no [standby]; see docs/gateways.md"


@dataclass(frozen=True)
class Gateway:
    """One of the two gateways that may run the service. `name`: for people; `address`: where the other finds it."""

    name: str
    address: str
    listen: str
    other: str
    """Address of the other one."""


def gateway_of(config: StoreConfig, id_: str | None) -> Gateway:
    """Return which gateway this is: the standby of the store file if it has that id, else the one of [forwarding].
    Trouble if there is no such one, or if this machine has the other one's address. At boot it may have none yet."""
    forwarding, standby = config.forwarding, config.standby
    if forwarding is None or standby is None:
        raise Trouble(NONE_IN_FILE)
    if id_ is not None and id_ != standby.id:
        raise Trouble(f"the store file has no gateway {id_!r} that may run the service: --as {standby.id}, or without")
    if id_ is None:
        here = Gateway(forwarding.address, forwarding.address, forwarding.listen or forwarding.address, standby.address)
    else:
        here = Gateway(standby.id, standby.address, standby.listen or standby.address, forwarding.address)
    if not _is_ours(here.listen) and _is_ours(here.other):
        which = f"--as {standby.id}" if id_ is None else f"no --as {standby.id}"
        raise Trouble(f"{here.listen} is not an address of this machine: is this the other gateway ({which})?")
    return here


@dataclass(frozen=True)
class Mark:
    """A term, and who has it."""

    term: int
    by: str


def fenced(database: Path) -> Mark | None:
    """Return who has taken over from a database; None if nobody has."""
    return _read(_file(database, "fenced"))


def took_over(database: Path) -> Mark | None:
    """Return with which term this gateway has taken over; None if it hasn't."""
    return _read(_file(database, "took-over"))


def serves(database: Path) -> bool:
    """Return whether this gateway runs the service because it has taken over."""
    return took_over(database) is not None and database.exists() and not copy_of(database).exists()


def fence(database: Path, term: int, by: str) -> None:
    """Note that another gateway has taken over."""
    create_private(_file(database, "fenced"), json.dumps({"term": term, "by": by}).encode())
    _file(database, "took-over").unlink(missing_ok=True)


def refuse(database: Path, term: int) -> None:
    """Raise Superseded if nobody may serve from a database, whose term is given."""
    if (mark := fenced(database)) is not None and mark.term > term:
        raise Superseded(
            f"{mark.by} has taken over the store's service: make this gateway the standby with tagtrail standby, or "
            "take the service back with tagtrail takeover once it is"
        )


def refuse_copy(database: Path) -> None:
    """Raise Superseded if this gateway stands by."""
    if copy_of(database).exists():
        raise Superseded(
            "this gateway is the standby: start tagtrail standby, or let it take over with tagtrail takeover first"
        )


def needed(config: StoreConfig) -> None:
    """Prove that this gateway has what it needs to serve after a takeover. Raises Trouble."""
    assert config.forwarding is not None
    wire.listening_context(config.forwarding.cert, config.forwarding.key)
    for each in config.forwarders:
        wire.token(each.token_file)


@dataclass(frozen=True)
class Fitness:
    """What a takeover would meet. `unfit`: why this release could not serve from the copy, if so; `key_mark`: of the
    tag key that goes with it."""

    unfit: str = ""
    key_mark: str | None = None


def fitness(mirror: Mirror) -> Fitness:
    """Look at a copy, which is folded."""
    uri = f"{mirror.path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as conn:
            schema.refuse_newer(schema.applied(conn))
            row = conn.execute("SELECT value FROM fact WHERE name = ?", (keys.MARK,)).fetchone()
            return Fitness(key_mark=row and row[0])
    except sqlite3.Error as error:
        return Fitness(f"the copy can't be read: {error}")
    except Trouble as trouble:
        return Fitness(str(trouble))


def take_over(config: StoreConfig, mirror: Mirror, *, exact: bool, above: int = 0, name: str) -> int:
    """Put the copy in place of the database, with a new term above `above`; returns it. `exact`: all that has left the
    store is in the copy; else numbers of events are skipped. The database's lock must be held. Raises Trouble; it may
    be tried again then."""
    if not mirror.there:
        raise Trouble("there is no whole copy of the service's database here yet")
    try:
        return _take_over(config, mirror, exact, above, name)
    except (OSError, sqlite3.Error) as error:
        raise Trouble(f"the copy {mirror.path} can't be put in place: {error}; is there room on the disk?") from error


def _take_over(config: StoreConfig, mirror: Mirror, exact: bool, above: int, name: str) -> int:
    path = config.database.path
    mirror.settle()
    schema.prove(mirror.path, config.store.id)
    with closing(sqlite3.connect(mirror.path, isolation_level=None)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        former = fenced(path)
        term = terms.begin(conn, max(above, former.term if former else 0))
        if not exact:
            outbox.begin_anew(conn)
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    create_private(_file(path, "took-over"), json.dumps({"term": term, "by": name}).encode())
    put_in_place(path, mirror)
    return term


def put_in_place(database: Path, mirror: Mirror) -> None:
    """Let a copy that has its new term be the database."""
    mirror.close()
    keep_aside(database)
    forget(database)
    _file(database, "fenced").unlink(missing_ok=True)
    mirror.path.replace(database)
    mirror.drop()


def is_to_be_put(database: Path, mirror: Mirror) -> bool:
    """Return whether this gateway was taking over when it ended: the copy has the new term already."""
    mark = took_over(database)
    if mark is None or not mirror.there or mirror.place.header:
        return False
    uri = f"{mirror.path.absolute().as_uri()}?mode=ro&immutable=1"
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as conn:
        return terms.term(conn) == mark.term
    return False


def retire(database: Path, mirror: Mirror) -> dict[str, int]:
    """Now that there is a whole copy, keep the former database aside; returns how much it has that the copy hasn't."""
    left: dict[str, int] = {}
    if database.exists():
        left = _left_over(database, mirror.path)
        keep_aside(database)
        told = ", ".join(f"{n} {what}" for what, n in left.items() if n) or "nothing"
        log.warning("kept for a week as %s: it has what the service has not: %s", replaced(database), told)
    forget(database)
    for name in ("fenced", "took-over"):
        _file(database, name).unlink(missing_ok=True)
    return left


def keep_aside(database: Path) -> None:
    """Give a database the name under which it is kept for some days, with its log. If an earlier try has given it that
    name already, it stays."""
    kept = replaced(database)
    if database.exists():
        for suffix in SIDES:
            kept.with_name(kept.name + suffix).unlink(missing_ok=True)
        os.utime(database)  # from now on, however long ago it was written
        database.replace(kept)
    for suffix in SIDES:
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + suffix).replace(kept.with_name(kept.name + suffix))


def _left_over(old: Path, new: Path) -> dict[str, int]:
    """Count what a database has behind the last that both have."""
    found: dict[str, int] = {}
    queries = {
        "visits": [("visit", "id", "tag", "enter_us")],
        "journeys": [("journey", "id", "tag", "start_us")],
        "events": [(outbox.table(class_), "seq", "payload", "payload") for class_ in CLASSES],
    }
    with (
        contextlib.suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{old.absolute().as_uri()}?mode=ro", uri=True)) as conn,
    ):
        conn.execute("ATTACH ? AS new", (f"{new.absolute().as_uri()}?mode=ro&immutable=1",))
        for what, tables in queries.items():
            found[what] = 0
            for table, key, one, other in tables:
                both = (
                    f"SELECT max(o.{key}) FROM main.{table} o JOIN new.{table} n"
                    f" ON n.{key} = o.{key} AND n.{one} = o.{one} AND n.{other} = o.{other}"
                )
                more = f"SELECT count(*) FROM main.{table} WHERE {key} > coalesce(({both}), 0)"
                found[what] += conn.execute(more).fetchone()[0]
    return found


def _is_ours(listen: str) -> bool:
    host, _ = wire.host_port(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _file(database: Path, ending: str) -> Path:
    return database.with_name(f"{database.name}.{ending}")


def _read(file: Path) -> Mark | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_bytes())
        return Mark(int(found["term"]), str(found["by"]))
    return None
