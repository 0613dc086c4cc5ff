"""Recognition of arriving members at the first read of a tag, once per journey, even across restarts."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.read import ANTENNA_UNKNOWN, Reads, epc_bytes
from dwell.layout import TagClass
from dwell.read import hashed, picked
from edge.store.compose import Shop
from edge.store.pseudonyms import Member, Pseudonyms, known, look_up
from sync import outbox
from sync.contract import Recognised

FORGET_US = 600_000_000
"""A tag not read for this time is looked up again; the database records whether it has been announced."""
SHOWN = 20


class Greeter:
    """Track of the tags present. Every read passes through `fresh`, which is a sort and a search in arrays.

    Tags are identified by a 64-bit hash. If two tags had the same hash, the second would not be announced; counts and
    visits do not depend on this.
    """

    def __init__(self, shop: Shop, pseudonyms: Pseudonyms) -> None:
        self._shown: deque[tuple[bytes, dict[str, Any]]] = deque(maxlen=SHOWN)
        """Latest recognitions, latest first: tag, and entry for the live state."""
        self._shop = shop
        self._pseudonyms = pseudonyms
        self._known = np.zeros(0, np.uint64)
        self._seen_us = np.zeros(0, np.int64)
        self._members: dict[int, Member] = {}
        self._announced: dict[bytes, int] = {}
        """Member hash → time of announcement, as in the table `recognised`."""
        self._untold: list[tuple[Member, Recognised]] = []

    def restore(self, conn: sqlite3.Connection, visits: Any, at_us: int) -> None:
        """Restore the state after a restart with open `visits` (VISIT array)."""
        self._announced = dict(conn.execute("SELECT tag, at_us FROM recognised").fetchall())
        members = visits[visits["tag_class"] == TagClass.MEMBER]
        self._remember(hashed(members), at_us)
        for tag, visit in zip(hashed(members).tolist(), members, strict=True):
            self._look_up(conn, tag, visit)

    def fresh(self, reads: Reads) -> Reads:
        """Return one read of each member-class tag in a batch that was not read recently; mark all tags as read."""
        if (foreign := reads["antenna"] == ANTENNA_UNKNOWN).any():
            reads = picked(reads, ~foreign)  # without a zone: the tag waits for a read in a zone
        if not len(reads):
            return reads
        now = int(reads["time_us"].max())
        tags = hashed(reads)
        found = np.zeros(len(tags), np.bool_)
        if len(self._known):
            places = np.minimum(np.searchsorted(self._known, tags), len(self._known) - 1)
            found = self._known[places] == tags
            heard = places[found]
            self._seen_us[heard] = np.maximum(self._seen_us[heard], now)
        new = picked(reads, ~found)
        if len(new):
            tags, rows = np.unique(tags[~found], return_index=True)
            self._remember(tags, now)
            new = new[rows]
            new = new[self._shop.classify(new["epc"]) == TagClass.MEMBER]
        return new

    def recognise(self, conn: sqlite3.Connection, fresh: Reads) -> None:
        """Look up new tags; queue members with consent who have not been announced in this journey for `tell`."""
        for tag, row in zip(hashed(fresh).tolist(), fresh, strict=True):
            member = self._look_up(conn, tag, row)
            if member is not None and member.tag not in self._announced:
                self._announced[member.tag] = int(row["time_us"])
                self._untold.append((member, self._event(row, member)))

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Return the latest recognitions for the live state, latest first."""
        return [told for _, told in self._shown]

    @property
    def greeted(self) -> Mapping[bytes, int]:
        """Tag → time of the member's recognition in the current journey."""
        return self._announced

    @property
    def waiting(self) -> bool:
        """True if there are recognitions that have not been committed."""
        return bool(self._untold)

    def untold(self) -> list[Recognised]:
        """Recognitions queued for `tell`."""
        return [event for _, event in self._untold]

    def tell(self, conn: sqlite3.Connection) -> list[tuple[Member, Recognised]]:
        """Add queued recognitions to the outbox, in the caller's transaction; return them for `told`, after it."""
        untold = list(self._untold)
        rows = [(member.tag, member.member, event.read_us) for member, event in untold]
        conn.executemany("INSERT OR REPLACE INTO recognised VALUES (?, ?, ?)", rows)
        conn.execute(
            "UPDATE fact SET value = CAST(value AS INTEGER) + ? WHERE name = 'recognised'",
            (len(outbox.append(conn, "member", [event for _, event in untold])),),
        )
        return untold

    def told(self, number: int) -> None:
        """Record that this number of recognitions has been committed."""
        for member, event in self._untold[:number]:
            told = {"at_us": event.read_us, "member": event.member, "tier": event.tier, "zone": event.zone}
            self._shown.appendleft((member.tag, told))
        del self._untold[:number]

    def ended(self, journeys: list[Any]) -> None:
        """Process ended journeys: their tags are announced again when they return."""
        for journey in journeys:
            if journey.tag_class == TagClass.MEMBER:
                self._announced.pop(self._pseudonyms.member(*epc_of(journey.visits[0])), None)
        if journeys:
            self._forget(np.isin(self._known, hashed(np.stack([journey.visits[0] for journey in journeys]))))

    def sweep(self, now_us: int, under_way: Any) -> list[bytes]:
        """Forget tags that have not been read for long; return announcements to delete because no journey followed.

        `under_way`: rows with EPCs of tags with an open journey. A stray read, or one just before a crash, also leads
        to an announcement; without a journey, nothing else would allow that member to be announced again.
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
        """Apply a changed directory: members who were removed or withdrew consent are no longer shown or reported.

        `erased`: members who may also be known by other cards.
        """
        for tag, member in list(self._members.items()):
            if not known(conn, member.tag):
                self._members.pop(tag, None)
        # Unknown tags may belong to members now: look them up at the next read.
        self._forget(~np.isin(self._known, np.fromiter(self._members, np.uint64)))
        shown = [(tag, told) for tag, told in self._shown if told["member"] not in erased and known(conn, tag)]
        self._shown = deque(shown, maxlen=SHOWN)
        self._untold = [
            (member, event) for member, event in self._untold if member.member not in erased and known(conn, member.tag)
        ]

    def members(self, visits: Any, wanted: Callable[[Member], bool] = lambda _member: True) -> list[tuple[Member, Any]]:
        """Return the members with consent among `visits` (VISIT array) who are `wanted`, with their visit."""
        members = dict(self._members)  # the database's thread looks tags up meanwhile
        # Filter with arrays first, because accessing a single row takes longer than checking whether it is wanted.
        found = np.fromiter((tag for tag, member in members.items() if wanted(member)), np.uint64)
        tags = hashed(visits)
        here = np.isin(tags, found) & (visits["tag_class"] == TagClass.MEMBER)
        return [(members[tag], visit) for tag, visit in zip(tags[here].tolist(), visits[here], strict=True)]

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
    """Return the EPC of a READ or VISIT row, and its length in bits."""
    bits = int(row["epc_bits"])
    return epc_bytes(row["epc"], bits), bits
