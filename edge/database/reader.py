"""The one way to read the store's database beside the service."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge.store.errors import Trouble

BUSY_S = 5.0


class NoDatabase(Trouble):
    """The service has not made the database yet."""


def connect(path: Path) -> sqlite3.Connection:
    """Opens a store's database strictly read-only; NoDatabase while there is none, Trouble if it can't be read."""
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
