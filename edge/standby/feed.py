"""What is committed, as it goes to the standby: in the database's thread, told of every transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge.database.wal import BadLog, Part, Place, Tail


class Feed:
    """Follower of a database (edge.database.writer). `deliver` gets each part of the log with its number, which rises
    by one; `broken` is called when one may be missing. Both in the database's thread.

    It begins at `place` if the log has that; else `size` is the database's, which stays as it is on disk, but for what
    `first` has of it, until `release`.
    """

    def __init__(
        self,
        database: Path,
        place: Place,
        number: int,
        deliver: Callable[[Part, int], None],
        broken: Callable[[], None],
    ) -> None:
        self.first = Part(False, b"")
        """What the log had when it began."""
        self.size: int | None = None
        self._path, self._place, self._number = database, place, number
        self._deliver, self._broken = deliver, broken
        self._tail = Tail(database)
        self._snapshot: sqlite3.Connection | None = None
        self._begun = False

    def begun(self, others: bool) -> None:
        if not self._begun:
            self._begun = True
            self._begin()
        elif others:
            # Another process may have let the log begin anew behind something that was never seen here.
            if self._tail.unbroken:
                self.committed(lambda: False)
            else:
                self._broken()

    def committed(self, others: Callable[[], bool]) -> None:
        try:
            part = self._tail.more()
        except (OSError, BadLog):
            self._broken()
            return
        if part is None:
            return
        if part.begins and others():
            # It may have begun anew since our commit, behind which the end of the one before was not yet read.
            self._broken()
            return
        self._number += 1
        self._deliver(part, self._number)

    def failed(self) -> None:
        self._broken()

    def release(self) -> None:
        """The copy is made."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def close(self) -> None:
        """Close everything; nobody may be in the database's thread with it."""
        self.release()
        self._tail.close()

    def _begin(self) -> None:
        try:
            self.first = self._tail.resume(self._place) or self.first
        except BadLog:
            self.first = self._tail.start() or Part(True, b"")
            # While it is open, nothing that came later is written into the database's file.
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._snapshot = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
            self._snapshot.execute("BEGIN")
            pages, page_bytes = (
                self._snapshot.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
            )
            self._snapshot.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self.size = pages * page_bytes
