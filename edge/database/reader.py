"""Read-only access to the store's database, for all but the service."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from config import StoreConfig
from edge.store.business_days import business_days
from edge.store.errors import Trouble

BUSY_S = 5.0


class NoDatabase(Trouble):
    """The service has not created the database yet."""


@dataclass(frozen=True)
class Past:
    """Read-only connection to the store's database, with the store file."""

    conn: sqlite3.Connection
    config: StoreConfig

    @property
    def watermark_us(self) -> int | None:
        """Time up to which everything is decided; None while nothing is."""
        row = self.conn.execute("SELECT watermark_us FROM checkpoint").fetchone()
        return None if row is None or row[0] < 0 else int(row[0])

    @property
    def file(self) -> str:
        """Path of the database, by which days of several are told apart."""
        return str(self.conn.execute("PRAGMA database_list").fetchone()[2])

    def bounds_us(self, date: dt.date) -> tuple[int, int]:
        """Return start and end of a business day."""
        return business_days(self.config).bounds_us(date)


@contextmanager
def reading(config: StoreConfig) -> Iterator[Past]:
    """Open the store's database strictly read-only, as a snapshot. Raises NoDatabase while there is none, and Trouble
    if it can't be read, here or in the block.
    """
    try:
        with closing(connect(config.database.path)) as conn:
            conn.execute("BEGIN")
            yield Past(conn, config)
    except sqlite3.Error as error:
        raise Trouble(f"cannot read the database: {error}") from error


def connect(path: Path) -> sqlite3.Connection:
    """Open a store's database strictly read-only; NoDatabase while it doesn't exist, Trouble if it can't be read."""
    path = path.absolute()
    if not path.exists():
        raise NoDatabase(f"there is no database at {path} yet; it is made when the service first runs")
    try:
        conn = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)
        if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox_class'").fetchone():
            return conn
        conn.close()
    except sqlite3.Error as error:
        raise Trouble(f"cannot read the database {path}: {error}") from error
    raise NoDatabase(f"the database {path} is still being made")
