"""The digest by e-mail: each day once and each week once, as soon as it is due; what could not be sent is tried again.

In the table `fact` stands, for the day and for the week, which one was sent last, and before it is sent, that it is
about to be: a digest of which it is not known whether it was sent is not sent again.
"""

from __future__ import annotations

import datetime as dt
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from functools import partial
from typing import TYPE_CHECKING, Literal

from config import StoreConfig
from config.mail import Mail
from config.model import WEEKDAYS
from edge.database.reader import reading
from edge.service import post
from edge.service.daemon import in_thread
from edge.service.housekeeping import look_at
from edge.store.business_days import BusinessDay, business_days
from edge.store.errors import Trouble
from edge.words.counts import counted
from edge.words.languages import catalogue

if TYPE_CHECKING:
    from edge.database.writer import Database

log = logging.getLogger("tagtrail.mail")

LOOK_S = 60.0
RETRY_S = (60.0, 1800.0)
LATE_DAYS = 3
"""Number of days from which on a digest of the week is no longer sent."""
DAY = dt.timedelta(days=1)
BEGUN = "?"
Kind = Literal["day", "week"]
LENGTH: dict[Kind, int] = {"day": 1, "week": 7}


@dataclass(frozen=True)
class Due:
    """A digest to be sent: of the business days that end with `date`."""

    kind: Kind
    date: dt.date

    @property
    def days(self) -> int:
        return LENGTH[self.kind]


class Mailing:
    """`look` once a minute. `waits`: the time is not known yet."""

    def __init__(
        self,
        config: StoreConfig,
        mail: Mail,
        database: Database,
        clock: Callable[[], int],
        waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config, self._mail, self._database = config, mail, database
        self._clock, self._waits = clock, waits
        self._unsure: set[Due] = set()

    async def look(self) -> None:
        """Send what is due. Raises Trouble for what could not be sent, after all others."""
        if self._waits():
            return
        troubles = []
        for one in due(self._mail, business_days(self._config), self._clock()):
            try:
                await self._send(one)
            except Trouble as trouble:
                troubles.append(trouble)
        if troubles:
            raise troubles[0]

    async def _send(self, one: Due) -> None:
        before = await self._database.read(partial(last, kind=one.kind))
        if before is not None and before.removesuffix(BEGUN) >= str(one.date):
            if before == f"{one.date}{BEGUN}" and one not in self._unsure:
                self._unsure.add(one)
                log.warning("it is not known whether the digest of the %s to %s was sent", one.kind, one.date)
            return
        made = await look_at(self._database, partial(self._make, one))
        if made is None:
            return
        await self._database.write(partial(_note, kind=one.kind, text=f"{one.date}{BEGUN}"))
        try:
            refused = await in_thread(partial(post.send, self._mail, made))
        except post.Unsure:
            raise
        except Exception:  # but not at a stop, when it may still be sent
            await self._database.write(partial(_note, kind=one.kind, text=before))
            raise
        await self._database.write(partial(_note, kind=one.kind, text=str(one.date)))
        sent = counted(len(self._mail.to) - refused, "recipient")
        log.info("the digest of the %s that ends with %s was sent to %s", one.kind, one.date, sent)
        if refused:
            log.warning("the mail server refuses %s: check [mail] to", counted(refused, "recipient"))

    def _make(self, one: Due, conn: sqlite3.Connection) -> EmailMessage | None:
        """Make the message; None for days before the store's first record, and as long as they are not over for it."""
        from edge.days.history import History

        past = History(conn, self._config)
        end_us = past.bounds_us(one.date)[1]
        first_us = conn.execute("SELECT MIN(window_us) FROM aggregate").fetchone()[0]
        if first_us is None or first_us >= end_us or (past.watermark_us or 0) < end_us:
            return None
        from edge.reports.document import document, heading, plain

        store, title, when = heading(self._config, one.date, one.days, self._mail.lang)
        text = plain(past, one.date, one.days, self._mail.lang)
        _ = catalogue(self._mail.lang).gettext
        note = _("The attached page has the pictures; any browser opens it.")
        epoch = conn.execute("SELECT value FROM fact WHERE name = 'epoch'").fetchone()[0]
        identity = f"digest-{one.kind}-{one.date}.{self._config.store.id}.{epoch}"
        made = post.message(self._mail, f"{store} · {title} {when}", f"{text}\n{note}\n", identity)
        name = f"tagtrail-{self._config.store.id}-{one.kind}-{one.date}.html"
        post.attach(made, name, document(past, one.date, one.days, self._mail.lang))
        return made


def due(mail: Mail, days: BusinessDay, now_us: int) -> Iterator[Due]:
    """Yield the digests that may be sent at a time: that of the last day, and that of a week for a few days."""
    date = days.date(now_us) - DAY
    while from_us(mail, days, date) > now_us:
        date -= DAY
    if mail.day:
        yield Due("day", date)
    for late in range(LATE_DAYS):
        ends = date - late * DAY
        if WEEKDAYS[(ends + DAY).weekday()] == mail.week:
            yield Due("week", ends)


def from_us(mail: Mail, days: BusinessDay, date: dt.date) -> int:
    """Return from when on the digest of a business day is sent: the first `at` after its end."""
    end_us = days.bounds_us(date)[1]
    hours, minutes = map(int, mail.at.split(":"))
    ends = dt.datetime.fromtimestamp(end_us / 1e6, days.zone)
    at = dt.datetime.combine(ends.date(), dt.time(hours, minutes), days.zone)
    while (at_us := round(at.timestamp() * 1e6)) < end_us:
        at += DAY
    return at_us


def told(config: StoreConfig, mail: Mail) -> Iterator[str]:
    """Yield lines that say where the digest goes, and which was sent last."""
    yield f"from {mail.sender} to {counted(len(mail.to), 'recipient')} by {mail.server} ({mail.tls})"
    kinds: dict[Kind, str | None] = {
        "day": f"each day from {mail.at} on" if mail.day else None,
        "week": f"each week on {mail.week} from {mail.at} on" if mail.week != "never" else None,
    }
    with reading(config) as past:
        for kind, when in kinds.items():
            sent = last(past.conn, kind)
            sure = "" if sent is None or not sent.endswith(BEGUN) else " (not known whether it was sent)"
            yield f"{kind}: {when or 'not sent'}; last: {(sent or 'none').removesuffix(BEGUN)}{sure}"


def last(conn: sqlite3.Connection, kind: Kind) -> str | None:
    """Return the last day of the digest that was sent last, followed by BEGUN if that is not sure; None: none yet."""
    row = conn.execute("SELECT value FROM fact WHERE name = ?", (f"mail {kind}",)).fetchone()
    return None if row is None else str(row[0])


def _note(conn: sqlite3.Connection, kind: Kind, text: str | None) -> None:
    if text is None:
        conn.execute("DELETE FROM fact WHERE name = ?", (f"mail {kind}",))
    else:
        conn.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (f"mail {kind}", text))
