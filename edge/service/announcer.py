"""What store IT sees without the page: the broker's state in the journal, and one line for `systemctl status`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from drivers.session import Link, ReaderStatus
from edge.readers.flapping import JOURNAL, Flapping
from edge.service.notify import notify
from edge.store.timekeeping import Timekeeper
from edge.words.counts import counted
from sync.publisher import Publisher, Status

log = logging.getLogger("tagtrail.broker")

AT_FIRST = ("not yet connected", "stopped")
"""What the publisher says before its first try, and at a stop."""


class Announcer:
    """`look` every second. `broker`: its host and port; `pending`: events that wait, by class."""

    def __init__(
        self,
        broker: str,
        publisher: Publisher,
        readers: Mapping[str, ReaderStatus],
        time_: Timekeeper,
        pending: Callable[[], Mapping[str, int]],
    ) -> None:
        self._broker = broker
        self._publisher = publisher
        self._readers = readers
        self._time = time_
        self._pending = pending
        self._flapping: Flapping[Status] = Flapping(JOURNAL)
        self._seen: tuple[bool, str] | None = None
        self._status = ""

    def look(self) -> None:
        """Log what has changed, and tell systemd how things are."""
        status, now_s = self._publisher.status, time.monotonic()
        if (status.connected, status.reason) != self._seen and status.reason not in AT_FIRST:
            self._seen = status.connected, status.reason
            if self._flapping.now("broker", status, now_s):
                self._log(status, 1)
        for kept, changes in self._flapping.due(now_s):
            self._log(kept, changes)
        if (said := self.in_a_line()) != self._status:
            self._status = said
            notify(f"STATUS={said}")

    def in_a_line(self) -> str:
        """How things are."""
        up = sum(status.link is Link.UP for status in self._readers.values())
        status, pending = self._publisher.status, sum(self._pending().values())
        broker = "broker connected" if status.connected else "broker away"
        parts = [f"{up} of {len(self._readers)} readers up", f"{broker}: {status.reason}" if status.reason else broker]
        parts += [f"{counted(pending, 'event')} waiting"] if pending else []
        parts += [f"time {self._time.trust.value}"] if self._time.untrusted else []
        return "; ".join(parts).replace("\n", " ")

    def _log(self, status: Status, changes: int) -> None:
        often = f" (after {changes} changes)" if changes > 1 else ""
        if status.connected and not status.reason:
            log.info("the broker %s is connected%s", self._broker, often)
        elif status.connected:
            log.warning("the broker %s is connected, but: %s%s", self._broker, status.reason, often)
        else:
            log.warning("the broker %s is away, and tried again: %s%s", self._broker, status.reason, often)
