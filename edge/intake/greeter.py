"""Members who have just come in: found at the first read of a tag, announced once a journey, restarts included."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.read import ANTENNA_UNKNOWN, Reads, epc_bytes
from dwell.layout import TagClass
from edge.store.compose import Shop
from edge.store.epc_hash import hashes
from edge.store.pseudonyms import Member, Pseudonyms, known, look_up
from sync import outbox
from sync.contract import Recognised

FORGET_US = 600_000_000
"""A tag silent this long is looked up anew; whether it was announced stands in the database."""
SHOWN = 20


class Greeter:
    """Keeps who is here; every read passes `fresh`, so that one is a sort and a search in arrays, whatever the load.

    Tags are told apart by a 64-bit hash here. Of two that shared one, the second would not be announced; counting and
    visits do not depend on it.
    """

    def __init__(self, shop: Shop, pseudonyms: Pseudonyms) -> None:
        self._shown: deque[tuple[bytes, dict[str, Any]]] = deque(maxlen=SHOWN)
        """The last recognitions, newest first: tag, and how the live state tells them."""
        self._shop = shop
        self._pseudonyms = pseudonyms
        self._known = np.zeros(0, np.uint64)
        self._seen_us = np.zeros(0, np.int64)
        self._members: dict[int, Member] = {}
        self._announced: dict[bytes, int] = {}
        """Member hash → when; as the table `recognised`."""
        self._untold: list[tuple[Member, Recognised]] = []

    def restore(self, conn: sqlite3.Connection, visits: Any, at_us: int) -> None:
        """Go on after a restart with `visits` (VISIT array) under way."""
        self._announced = dict(conn.execute("SELECT tag, at_us FROM recognised").fetchall())
        members = visits[visits["tag_class"] == TagClass.MEMBER]
        self._remember(hashes(members), at_us)
        for tag, visit in zip(hashes(members).tolist(), members, strict=True):
            self._look_up(conn, tag, visit)

    def fresh(self, reads: Reads) -> Reads:
        """Of a batch, one read of each member-class tag not heard of late; all tags of the batch count as heard."""
        if (foreign := reads["antenna"] == ANTENNA_UNKNOWN).any():
            reads = reads[~foreign]  # of no zone: the tag waits for a read of one
        if not len(reads):
            return reads
        now = int(reads["time_us"].max())
        tags = hashes(reads)
        found = np.zeros(len(tags), np.bool_)
        if len(self._known):
            places = np.minimum(np.searchsorted(self._known, tags), len(self._known) - 1)
            found = self._known[places] == tags
            heard = places[found]
            self._seen_us[heard] = np.maximum(self._seen_us[heard], now)
        new = reads[~found]
        if len(new):
            tags, rows = np.unique(tags[~found], return_index=True)
            self._remember(tags, now)
            new = new[rows]
            new = new[self._shop.classify(new["epc"]) == TagClass.MEMBER]
        return new

    def recognise(self, conn: sqlite3.Connection, fresh: Reads) -> None:
        """Look up fresh tags; members with consent who were not announced in this journey wait for `tell`."""
        for tag, row in zip(hashes(fresh).tolist(), fresh, strict=True):
            member = self._look_up(conn, tag, row)
            if member is not None and member.tag not in self._announced:
                self._announced[member.tag] = int(row["time_us"])
                self._untold.append((member, self._event(row, member)))

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The last recognitions, newest first, as the live state tells them."""
        return [told for _, told in self._shown]

    @property
    def greeted(self) -> Mapping[bytes, int]:
        """Tag → when the member was recognised in the journey that goes on."""
        return self._announced

    @property
    def waiting(self) -> bool:
        """Are there recognitions that were not committed yet."""
        return bool(self._untold)

    def untold(self) -> list[Recognised]:
        """What waits for `tell`."""
        return [event for _, event in self._untold]

    def tell(self, conn: sqlite3.Connection) -> list[tuple[Member, Recognised]]:
        """Put what waits into the outbox, in the caller's transaction; what it was: for `told`, once committed."""
        untold = list(self._untold)
        rows = [(member.tag, member.member, event.read_us) for member, event in untold]
        conn.executemany("INSERT OR REPLACE INTO recognised VALUES (?, ?, ?)", rows)
        conn.execute(
            "UPDATE fact SET value = CAST(value AS INTEGER) + ? WHERE name = 'recognised'",
            (len(outbox.append(conn, "member", [event for _, event in untold])),),
        )
        return untold

    def told(self, number: int) -> None:
        """So many recognitions are committed."""
        for member, event in self._untold[:number]:
            told = {"at_us": event.read_us, "member": event.member, "tier": event.tier, "zone": event.zone}
            self._shown.appendleft((member.tag, told))
        del self._untold[:number]

    def ended(self, journeys: list[Any]) -> None:
        """Journeys that ended: their tags are greeted again when they come back."""
        for journey in journeys:
            if journey.tag_class == TagClass.MEMBER:
                self._announced.pop(self._pseudonyms.member(*epc_of(journey.visits[0])), None)
        if journeys:
            self._forget(np.isin(self._known, hashes(np.stack([journey.visits[0] for journey in journeys]))))

    def sweep(self, now_us: int, under_way: Any) -> list[bytes]:
        """Forget tags that have long been silent; announcements to be deleted, since no journey came of them.

        `under_way`: rows with EPCs of the tags whose journey goes on. A stray read, or one just before a crash, greets
        too; without a journey nothing else would ever let that member be greeted again.
        """
        self._forget(np.abs(now_us - self._seen_us) > FORGET_US)
        members = under_way[under_way["tag_class"] == TagClass.MEMBER]
        going_on = {self._pseudonyms.member(*epc_of(row)) for row in members}
        untold = {member.tag for member, _ in self._untold}
        stale = [
            tag
            for tag, at_us in self._announced.items()
            if tag not in going_on and tag not in untold and abs(now_us - at_us) > FORGET_US
        ]
        for tag in stale:
            del self._announced[tag]
        return stale

    def recheck(self, conn: sqlite3.Connection, erased: Collection[str] = ()) -> None:
        """The directory has changed: of who has left it, or taken consent back, nothing is shown or told any more.

        `erased`: members who may have been known by other cards, too.
        """
        for tag, member in list(self._members.items()):
            if not known(conn, member.tag):
                self._members.pop(tag, None)
        # Who was nobody may be a member now: looked up at the next read.
        self._forget(~np.isin(self._known, np.fromiter(self._members, np.uint64)))
        shown = [(tag, told) for tag, told in self._shown if told["member"] not in erased and known(conn, tag)]
        self._shown = deque(shown, maxlen=SHOWN)
        self._untold = [
            (member, event) for member, event in self._untold if member.member not in erased and known(conn, member.tag)
        ]

    def members(self, visits: Any, wanted: Callable[[Member], bool] = lambda _member: True) -> list[tuple[Member, Any]]:
        """Members with consent among `visits` (VISIT array) who are `wanted`, with their visit."""
        # Arrays sort out the many first: a row of one takes longer than to ask whether its member is wanted.
        found = np.fromiter((tag for tag, member in self._members.items() if wanted(member)), np.uint64)
        tags = hashes(visits)
        here = np.isin(tags, found) & (visits["tag_class"] == TagClass.MEMBER)
        return [(self._members[tag], visit) for tag, visit in zip(tags[here].tolist(), visits[here], strict=True)]

    def _look_up(self, conn: sqlite3.Connection, tag: int, row: Any) -> Member | None:
        member = look_up(conn, self._pseudonyms.member(*epc_of(row)))
        if member is None or not member.consent:
            return None
        self._members[tag] = member
        return member

    def _event(self, row: Any, member: Member) -> Recognised:
        zone = int(self._shop.layout.antenna_zone[row["antenna"]])
        read_us = int(row["time_us"])
        return Recognised(
            member=member.member,
            tier=member.tier,
            hint=member.hint_at(read_us),
            zone=self._shop.zones[zone],
            floor=self._shop.zone_floor[zone],
            read_us=read_us,
            expires_us=read_us + round(self._shop.config.thresholds.recognition_ttl_s * 1e6),
        )

    def _remember(self, tags: NDArray[np.uint64], now_us: int) -> None:
        known = np.concatenate([self._known, tags])
        seen_us = np.concatenate([self._seen_us, np.full(len(tags), now_us, np.int64)])
        order = np.argsort(known, kind="stable")
        self._known, self._seen_us = known[order], seen_us[order]

    def _forget(self, gone: NDArray[np.bool_]) -> None:
        for tag in self._known[gone].tolist():
            self._members.pop(tag, None)
        self._known, self._seen_us = self._known[~gone], self._seen_us[~gone]


def epc_of(row: Any) -> tuple[bytes, int]:
    """EPC and its bits of a row of READ or VISIT."""
    bits = int(row["epc_bits"])
    return epc_bytes(row["epc"], bits), bits
