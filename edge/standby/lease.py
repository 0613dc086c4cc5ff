"""Who may run the service, by a witness: a register somewhere else, which both gateways read and write.

The register has one entry (`Held`) and a revision, and is only written in place of a revision that is known.

1. The service renews its entry every fifth of `lease_s`. Nothing leaves the store after `lease_s`, less a margin, since
   the last renewal began, or since a sign of life of the standby, which promises not to take over for as long.
2. The standby takes over once it has seen the same revision for `lease_s`, its promise is over as well, and the entry
   doesn't say `alone`. So either gateway or the witness may fail, and never do both run the service.
3. Before the service lets anything leave that the standby doesn't have, the entry says `alone`: from then on only a
   person decides whether the standby, which lacks something, takes over.

Times are monotonic ones of each gateway. No clocks are compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import msgspec

from drivers.links import LinkFailure

log = logging.getLogger("tagtrail.standby")

ANSWER_S = 2.0
MARGIN = 0.25
"""Part of a lease by which the service ends it earlier than the standby."""
RENEWALS = 5


class Held(msgspec.Struct, frozen=True):
    """Who runs the service, with which term, and whether it goes on without the standby."""

    holder: str
    term: int
    alone: bool


class Entry(msgspec.Struct, frozen=True):
    """What is in the register: its revision, 0 for an empty one."""

    revision: int
    held: Held | None


class Register(Protocol):
    """A witness. Both raise LinkFailure if it does not answer."""

    async def get(self) -> Entry:
        """Return what is there."""

    async def put(self, revision: int, held: Held) -> int | None:
        """Write in place of a revision; returns the new one, None if another one is there."""


class Lease:
    """The service's lease: `run` renews it. `superseded` is called with a higher term in the register, and its
    holder."""

    def __init__(
        self,
        register: Register,
        holder: str,
        term: int,
        lease_s: float,
        superseded: Callable[[int, str], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._register, self._holder, self._term, self._superseded = register, holder, term, superseded
        self._length_s, self._now_s = lease_s, now_s
        self._until_s = float("-inf")
        self._lock = asyncio.Lock()
        self._entry: Entry | None = None
        self._wants_alone = True
        self._alone = False
        self.reason = "not yet asked"

    @property
    def valid(self) -> bool:
        """True while events may leave the store."""
        return self._now_s() < self._until_s

    @property
    def alone(self) -> bool:
        """True if the register says for certain that the standby doesn't have everything."""
        return self._alone

    def promised(self, since_s: float) -> None:
        """The standby has answered what was said at a time of our monotonic clock."""
        self._until_s = max(self._until_s, self._end_s(since_s))

    def not_alone(self) -> None:
        """The standby has everything from now on."""
        self._wants_alone = self._alone = False

    async def go_alone(self) -> bool:
        """Have the witness know that the standby does not have everything; False if it can't be told."""
        self._wants_alone = True
        return self._alone or (await self.renew() and self._alone)

    async def run(self) -> NoReturn:
        """Renew until cancelled."""
        while True:
            await self.renew()
            await asyncio.sleep(self._length_s / RENEWALS)

    async def renew(self) -> bool:
        """Renew once; False if that fails."""
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWER_S):
                    done = await self._renew()
                reason = "" if done else "another gateway has written there"
            except TimeoutError:
                done, reason = False, "the witness does not answer"
            except LinkFailure as failure:
                done, reason = False, str(failure)
            if reason != self.reason:
                self.reason = reason
                (log.warning if reason else log.info)("witness: %s", reason or "answers")
            return done

    def told(self) -> dict[str, Any]:
        """Return the state for the live state."""
        return {"valid": self.valid, "reason": self.reason}

    async def _renew(self) -> bool:
        for _ in range(2):  # the second time, knowing what is there
            entry, self._entry = self._entry, None
            if entry is None:
                entry = await self._register.get()
                there = entry.held
                if there is not None and there.term >= self._term and there.holder != self._holder:
                    self._superseded(there.term, there.holder)
                    return False
            began_s, alone = self._now_s(), self._wants_alone
            if not alone:
                self._alone = False
            held = Held(self._holder, self._term, alone)
            revision = await self._register.put(entry.revision, held)
            if revision is not None:
                self._entry = Entry(revision, held)
                self._until_s = max(self._until_s, self._end_s(began_s))
                self._alone = alone and self._wants_alone
                return True
        return False

    def _end_s(self, since_s: float) -> float:
        return since_s + self._length_s * (1 - MARGIN)


class Claim:
    """The standby's view of the register: `look` every second."""

    def __init__(
        self, register: Register, holder: str, lease_s: float, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._register, self._holder = register, holder
        self._length_s, self._now_s = lease_s, now_s
        self._seen: tuple[int, float] | None = None
        self._promised_s = now_s()
        """An earlier process of ours may have promised just before it ended."""
        self.reason = ""

    def promise(self) -> None:
        """We are about to answer the service."""
        self._promised_s = self._now_s()

    async def look(self, own_term: int) -> int | None:
        """Take the lease if it has ended; returns our term then. `own_term`: that of our copy."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._look(own_term)
        except TimeoutError:
            self.reason = "the witness does not answer"
        except LinkFailure as failure:
            self.reason = str(failure)
        return None

    async def take(self, term: int) -> None:
        """Take the lease in any case: a person has decided, or the service has handed over. LinkFailure or TimeoutError
        if the witness can't be told."""
        for _ in range(3):
            async with asyncio.timeout(ANSWER_S):
                entry = await self._register.get()
                if await self._register.put(entry.revision, Held(self._holder, term, True)) is not None:
                    return
        raise LinkFailure("another gateway goes on writing to the witness")

    async def _look(self, own_term: int) -> int | None:
        entry = await self._register.get()
        held, now_s = entry.held, self._now_s()
        if held is None:
            self.reason = "no service has asked the witness yet"
            return None
        if held.holder == self._holder and held.term > own_term:
            return held.term  # it was taken, but not yet used
        if self._seen is None or self._seen[0] != entry.revision:
            self._seen = entry.revision, now_s
        if held.alone:
            self.reason = "the service went on alone: only tagtrail takeover decides"
            return None
        self.reason = ""
        if now_s - max(self._seen[1], self._promised_s) < self._length_s:
            return None
        term = max(int(time.time()), held.term + 1, own_term + 1)
        taken = await self._register.put(entry.revision, Held(self._holder, term, True))
        return term if taken is not None else None
