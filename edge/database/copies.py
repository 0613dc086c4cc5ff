"""Verified copies of an open database, without what the database itself soon forgets: keys of days, EPCs.

A copy outlives the day on which a key is destroyed, and the short time for which EPCs are kept: those of the tags in
the store in the checkpoint, and those of reads held over a stop. So it has none of them. When a copy is put into use,
visits that were open are lost.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from edge.store.errors import Trouble
from edge.store.private import make_private

PAGES = 10_000
"""Pages copied at once; writers wait for so many."""
LEFT_OUT = ("day_key", "checkpoint", "checkpoint_part", "held", "forwarded")


def copy(conn: sqlite3.Connection, target: Path, *, left_out: Sequence[str] = LEFT_OUT) -> dict[str, int]:
    """Copy a database as it is now to a file that only its owner can read; it gets its name once it is verified and on
    disk. `conn`: in autocommit mode; `left_out`: tables that are emptied. Returns the number of rows of each table.
    Raises Trouble.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        make_private(part)
        with closing(sqlite3.connect(part, isolation_level=None)) as made:
            made.execute("PRAGMA synchronous=OFF")
            conn.execute("BEGIN")  # one snapshot, while others go on writing
            try:
                expected = count(conn)
                conn.backup(made, pages=PAGES)
            finally:
                conn.execute("COMMIT")
            made.execute("PRAGMA journal_mode=OFF")
            made.execute("PRAGMA secure_delete=ON")
            for table in left_out:
                if table in expected:  # a database of an early release has no keys of days
                    made.execute(f"DELETE FROM {table}")
                    expected[table] = 0
            found = made.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok" or (rows := count(made)) != expected:
                raise Trouble(f"the copy {target} is not what the database is ({found}): check the disk")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except (sqlite3.Error, OSError) as error:
        raise Trouble(f"cannot copy the database to {target}: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return rows


def count(conn: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of each table."""
    tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {name: conn.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
