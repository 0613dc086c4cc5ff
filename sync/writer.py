"""The database as the publisher and commands need it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

RETRY_S = 2.0
"""Wait before a database that refused is asked again."""


class Writer(Protocol):
    """The database's one thread; a job of `write` is one transaction."""

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T: ...

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T: ...
