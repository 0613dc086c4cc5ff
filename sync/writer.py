"""Database interface for the publisher and commands."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

RETRY_S = 2.0
"""Wait before retrying after a database error."""


class Writer(Protocol):
    """Access to the database's single thread; each job of `write` is one transaction."""

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T: ...

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T: ...
