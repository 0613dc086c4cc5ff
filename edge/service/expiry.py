"""When certificates expire: those that the store file names, and the broker's own. Told 30, 7 and 1 days ahead."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from config import StoreConfig, certificates
from config.certificates import WARN_DAYS, Unusable

log = logging.getLogger("tagtrail.certificates")

AHEAD_DAYS = (WARN_DAYS, 7, 1, 0)
BROKER = "broker"


@dataclass(frozen=True)
class Expiry:
    """`what`: the key of the store file, or BROKER; `file`: its path, empty for the broker's. `until_us`: UTC."""

    what: str
    file: str
    until_us: int
    days: int
    """Whole days left, negative once it has expired."""


class Certificates:
    """`look` now and then; `broker_until_s`: until when the broker's certificate holds, by its last greeting."""

    def __init__(
        self,
        config: StoreConfig,
        broker_until_s: Callable[[], float | None],
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._files = dict(_files(config))
        self._broker_until_s = broker_until_s
        self._now = now
        self._told: dict[str, int] = {}
        self.all: tuple[Expiry, ...] = ()
        """The soonest first."""
        self._seen_s: float | None = None

    @property
    def stale(self) -> bool:
        """Whether the broker has shown another certificate since the last look."""
        return self._broker_until_s() != self._seen_s

    @property
    def soon(self) -> tuple[Expiry, ...]:
        """Those that have to be renewed."""
        return tuple(one for one in self.all if one.days <= WARN_DAYS)

    def look(self) -> None:
        """Read the files anew, for they may have been replaced; log what comes nearer."""
        now = self._now()
        found = []
        for what, path in self._files.items():
            try:
                holds = certificates.read(path)
            except (OSError, Unusable):
                continue  # the connection that needs it says so
            # As in `tagtrail check`: of several authorities the one that holds longest counts.
            until = holds[0].until if what.endswith("cert") else max(holds).until
            found.append(_expiry(what, str(path), until, now))
        self._seen_s = until_s = self._broker_until_s()
        if until_s is not None:
            found.append(_expiry(BROKER, "", dt.datetime.fromtimestamp(until_s, dt.UTC), now))
        self.all = tuple(sorted(found, key=lambda one: one.days))
        for one in self.all:
            self._tell(one)

    def _tell(self, one: Expiry) -> None:
        step = min((days for days in AHEAD_DAYS if one.days <= days), default=None)
        if step is None or one.days < 0:
            step = None if step is None else -1
        if step is None:
            self._told.pop(one.what, None)
        elif self._told.get(one.what, WARN_DAYS + 1) > step:
            self._told[one.what] = step
            name = "the broker's certificate" if one.what == BROKER else f"the certificate {one.file} ({one.what})"
            day = f"{dt.datetime.fromtimestamp(one.until_us / 1e6, dt.UTC):%Y-%m-%d}"
            if one.days < 0:
                log.error("%s expired on %s", name, day)
            else:
                level = logging.ERROR if one.days <= 1 else logging.WARNING
                log.log(level, "%s expires on %s, %s", name, day, certificates.in_days(one.days))


def _expiry(what: str, file: str, until: dt.datetime, now: dt.datetime) -> Expiry:
    return Expiry(what, file, round(until.timestamp()) * 1_000_000, (until - now) // dt.timedelta(days=1))


def _files(config: StoreConfig) -> Iterator[tuple[str, Path]]:
    named = [("mqtt.ca", config.mqtt.ca), ("mqtt.cert", config.mqtt.cert), ("web.cert", config.web.cert)]
    if config.forwarding is not None:
        named += [("forwarding.cert", config.forwarding.cert), ("forwarding.ca", config.forwarding.ca)]
    for reader in config.readers:
        named += [(f"readers.{reader.id}.ca", reader.ca), (f"readers.{reader.id}.cert", reader.cert)]
    yield from ((what, path) for what, path in named if path is not None)
