"""How far what forwarders send is in the database: written in the transaction of the checkpoint that it is in."""

from __future__ import annotations

import sqlite3
from collections import deque

from edge.forwarding.relay import Mark


class Forwarded:
    """`committed`: life and number of the last record, by forwarder, that the database has with all before it."""

    def __init__(self) -> None:
        self.committed: dict[str, tuple[str, int]] = {}
        self._waiting: dict[str, deque[Mark]] = {}

    def restore(self, conn: sqlite3.Connection) -> None:
        """Read what an earlier service has committed."""
        self.committed = {id_: (life, seq) for id_, life, seq in conn.execute("SELECT id, life, seq FROM forwarded")}

    def take(self, mark: Mark) -> None:
        """Note that the engine has everything up to a mark, decided or not."""
        self._waiting.setdefault(mark.forwarder, deque()).append(mark)

    def within(self, weighed_us: int | None) -> dict[str, tuple[str, int]]:
        """Return the last record of each forwarder of which a checkpoint has everything: one with the reads up to a
        time, or all (None)."""
        found = {}
        for id_, marks in self._waiting.items():
            for mark in marks:
                if weighed_us is not None and mark.newest_us >= weighed_us:
                    break
                found[id_] = mark.life, mark.seq
        return found

    def write(self, conn: sqlite3.Connection, positions: dict[str, tuple[str, int]]) -> None:
        """Write positions, in the checkpoint's transaction."""
        conn.executemany(
            "INSERT INTO forwarded VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET life = excluded.life, seq = excluded.seq",
            [(id_, life, seq) for id_, (life, seq) in positions.items()],
        )

    def wrote(self, positions: dict[str, tuple[str, int]]) -> None:
        """The transaction is committed."""
        self.committed |= positions
        for id_, position in positions.items():
            marks = self._waiting[id_]
            while marks:
                mark = marks.popleft()
                if (mark.life, mark.seq) == position:
                    break
