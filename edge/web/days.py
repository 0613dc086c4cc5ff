"""Summaries of days, kept while they can't have changed much. NumPy comes in with the first of them, not before."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
import time
from collections import OrderedDict
from contextlib import closing
from typing import TYPE_CHECKING

from config import StoreConfig
from edge.database.reader import NoDatabase, connect
from edge.store.errors import Trouble
from edge.web.memory import give_back

if TYPE_CHECKING:
    from edge.days.summary import Summary

FRESH_S = 5.0
"""How long a summary of a day that still changes is served again."""
KEPT_DAYS = 2


class Days:
    """Asked from several threads."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._kept: OrderedDict[dt.date, tuple[float, Summary]] = OrderedDict()

    def forget(self) -> None:
        """Something was said that changes days."""
        with self._lock:
            self._kept.clear()

    def get(self, date: dt.date) -> Summary | None:
        """The summary of a day, None while there is no database."""
        with self._lock:
            kept = self._kept.get(date)
            if kept is not None and (kept[1].complete or time.monotonic() - kept[0] < FRESH_S):
                return kept[1]
            from edge.days.summary import today

            try:
                with closing(connect(self._config.database.path)) as conn:
                    summary = today(conn, self._config, date)
            except NoDatabase:
                return None
            except sqlite3.Error as error:
                raise Trouble(f"cannot read the database: {error}") from error
            give_back()
            self._kept[date] = (time.monotonic(), summary)
            self._kept.move_to_end(date)
            while len(self._kept) > KEPT_DAYS:
                self._kept.popitem(last=False)
            return summary
