"""Decide when to create cues: a member has arrived, or has been waiting. edge.cues.book stores them.

Arrival cues are created in the transaction of the recognition, waiting cues at the next periodic check. The cue's row
prevents duplicates, even across restarts and crashes.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.cues import is_quiet, pick
from config.model import CueKind
from dwell.layout import TagClass
from dwell.markov.decisions import Decisions
from dwell.visits import Visits
from edge.cues import book
from edge.cues.book import Going, Rules, Wanted
from edge.cues.waits import NEVER, p95, waited
from edge.store.compose import Shop
from edge.store.pseudonyms import Member
from sync.contract import Recognised

LOOK_BACK_US = 4 * 3_600_000_000
"""Staff who left longer ago no longer count as a contact."""
SAME_STAY_US = 30_000_000
"""A badge that is seen again in a zone within this time counts as having stayed."""
SHOWN = 60
"""Maximum number of cues in the live state; a rule that matches everyone is a mistake, but must not overload it."""
LATENCIES = 500
"""Number of latest cues of each kind used for the latency figures."""


@dataclass(frozen=True)
class Steps:
    """Changes found by a periodic check."""

    wanted: tuple[Wanted, ...] = ()
    attended: tuple[int, ...] = ()
    expired: tuple[int, ...] = ()
    woken: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.wanted or self.attended or self.expired or self.woken)


class CueDesk:
    """Current rules and open cues, as committed. `speed`: speed of the store's clock."""

    def __init__(self, shop: Shop, speed: float) -> None:
        self.rules = Rules(0, shop.config.cues, 0, "", "")
        self.going: tuple[Going, ...] = ()
        self.untold_ms: list[tuple[int, float]] = []
        """Cue id and latency, not yet stored."""
        self._shop = shop
        self._speed = speed
        self._kinds = {zone.id: zone.kind for zone in shop.config.zones}
        self._assist_us = round(shop.config.thresholds.assist_s * 1e6)
        self._waited: set[tuple[bytes, int]] = set()
        """Tag and journey for which a waiting cue has been created."""
        self._staff: dict[int, list[tuple[int, int]]] = {}
        """Zone → completed stays of staff, from final decisions."""
        self._near: dict[tuple[int, bytes], tuple[int, int]] = {}
        """Zone and badge → last stay, from live positions at the last check."""
        self._latencies: dict[CueKind, deque[float]] = {
            "arrival": deque(maxlen=LATENCIES),
            "waiting": deque(maxlen=LATENCIES),
        }

    def restore(self, conn: sqlite3.Connection, now_us: int) -> None:
        """Restore the state after a restart, in a transaction, and adopt rules that changed in the store file."""
        self.rules = book.adopt(conn, self._shop.config.cues, now_us)
        self.going = book.going(conn)
        self._waited = set(
            conn.execute(
                "SELECT cue.tag, greeted_us FROM cue JOIN recognised AS r ON r.tag = cue.tag AND r.at_us = greeted_us"
                " WHERE kind = 'waiting'"
            ).fetchall()
        )
        numbers = {zone: number for number, zone in enumerate(self._shop.zones)}
        for zone, enter_us, exit_us in conn.execute(
            "SELECT zone, enter_us, exit_us FROM visit WHERE tag_class = ? AND enter_us >= ?",
            (int(TagClass.STAFF), now_us - LOOK_BACK_US),
        ):
            if zone in numbers:
                self._staff.setdefault(numbers[zone], []).append((enter_us, exit_us))
        for kind, kept in self._latencies.items():
            query = "SELECT latency_ms FROM cue WHERE kind = ? AND latency_ms IS NOT NULL ORDER BY id DESC LIMIT ?"
            kept.extendleft(ms for (ms,) in conn.execute(query, (kind, LATENCIES)))

    # Creating cues.

    def arrive(self, conn: sqlite3.Connection, told: Iterable[tuple[Member, Recognised]], now_us: int) -> list[int]:
        """Create arrival cues for recognitions, in their transaction; return the new ids."""
        if self._quiet(now_us):
            return []
        wanted = []
        for member, event in told:
            rule = pick(self.rules.cues, "arrival", event.tier, event.zone, self._kinds[event.zone])
            if rule is not None:
                at_us = event.read_us
                who = (member.tag, at_us, event.member, event.tier, event.zone, event.floor)
                wanted.append(Wanted("arrival", *who, since_us=at_us, due_us=at_us, rule=rule))
        return book.make(conn, wanted, self.rules.version, now_us)

    def look_around(
        self,
        visits: Visits,
        members: Callable[[Visits, Callable[[Member], bool]], Sequence[tuple[Member, Any]]],
        greeted: Mapping[bytes, int],
        covered: set[int],
        now_us: int,
    ) -> Steps:
        """Find out what has to be done now.

        `visits`: live positions of the tags; `members`: finds members with consent among selected visits;
        `greeted`: tag → time of the journey's recognition; `covered`: zones whose readers are up.
        """
        staff = self._badges(visits, now_us)
        wanted = []
        waits = [(rule.wait_s, rule.tiers) for rule in self.rules.cues.rules if rule.wait_s is not None]
        if waits and not self._quiet(now_us):
            # Most members match no rule, already have a cue, or have not waited long enough; they are filtered out
            # before the rest is examined one by one.
            long = visits[visits["enter_us"] <= now_us - round(min(wait_s for wait_s, _ in waits) * 1e6)]
            tiers = {tier for _, tiers in waits for tier in tiers or ()}
            anybody = any(tiers is None for _, tiers in waits)

            def wanted_by_any(member: Member) -> bool:
                return (anybody or member.tier in tiers) and (member.tag, greeted.get(member.tag)) not in self._waited

            for member, visit in members(long[np.isin(long["zone"], list(covered))], wanted_by_any):
                if (one := self._waits(member, visit, greeted, staff, now_us)) is not None:
                    wanted.append(one)
        called = {cue.tag for cue in self.going}
        met = members(visits, lambda member: member.tag in called) if called else ()
        here = {member.tag: visit for member, visit in met}
        attended = [cue.id for cue in self.going if self._attended(cue, here.get(cue.tag), staff, now_us)]
        gone = [cue.id for cue in self.going if cue.id not in attended and cue.expires_us <= now_us]
        woken = [cue.id for cue in self.going if cue.state == "snoozed" and (cue.until_us or 0) <= now_us]
        return Steps(tuple(wanted), tuple(attended), tuple(gone), tuple(set(woken) - set(attended) - set(gone)))

    def carry_out(self, conn: sqlite3.Connection, steps: Steps, now_us: int) -> list[int]:
        """Store the changes found by a check, in the caller's transaction; return the ids of new cues."""
        book.attended(conn, steps.attended, now_us)
        book.expire(conn, steps.expired, now_us)
        book.wake(conn, steps.woken, now_us)
        return book.make(conn, steps.wanted, self.rules.version, now_us)

    # After the commit.

    def show(self, going: tuple[Going, ...], made: Sequence[int] = (), now_us: int = 0) -> None:
        """Set the current cues; `made` are new and were committed at `now_us`."""
        self.going = going
        fresh = set(made)
        for cue in going:
            if cue.id in fresh:
                ms = (now_us - cue.due_us) / 1000 / self._speed
                self._latencies[cue.kind].append(ms)
                self.untold_ms.append((cue.id, ms))
                if cue.kind == "waiting":
                    self._waited.add((cue.tag, cue.greeted_us))

    def decided(self, decisions: Decisions) -> None:
        """Record the completed stays of staff."""
        closed = decisions.closed
        for visit in closed[closed["tag_class"] == TagClass.STAFF] if len(closed) else ():
            self._staff.setdefault(int(visit["zone"]), []).append((int(visit["enter_us"]), int(visit["exit_us"])))

    def forget(self, greeted: Mapping[bytes, int], now_us: int) -> None:
        """Forget state that is no longer needed."""
        self._waited = {(tag, at_us) for tag, at_us in self._waited if greeted.get(tag) == at_us}
        for zone, stays in self._staff.items():
            self._staff[zone] = [stay for stay in stays if stay[1] > now_us - LOOK_BACK_US]
        self._near = {key: stay for key, stay in self._near.items() if stay[1] > now_us - LOOK_BACK_US}

    @property
    def idle(self) -> bool:
        """True if no periodic check is needed."""
        return not self.going and not any(rule.kind == "waiting" for rule in self.rules.cues.rules)

    def told(self, here: Mapping[str, str], now_us: int) -> dict[str, Any]:
        """Return the part of the live state about cues. `here`: member → current zone."""
        first = sorted(self.going, key=lambda cue: (book.STATES.index(cue.state), cue.id))[:SHOWN]
        return {
            "version": self.rules.version,
            "rules": len(self.rules.cues.rules),
            "quiet": self._quiet(now_us),
            "more": len(self.going) - len(first),
            "took_ms": {kind: {"n": len(kept), "p95": p95(kept)} for kind, kept in self._latencies.items()},
            "open": [
                {
                    "id": cue.id,
                    "kind": cue.kind,
                    "member": cue.member,
                    "tier": cue.tier,
                    "zone": cue.zone,
                    "here": here.get(cue.member),
                    "since_us": cue.since_us,
                    "due_us": cue.due_us,
                    "made_us": cue.made_us,
                    "expires_us": cue.expires_us,
                    "rule": cue.rule,
                    "version": cue.version,
                    "action": cue.action,
                    "state": cue.state,
                    "until_us": cue.until_us,
                    "who": cue.who,
                }
                for cue in first
            ],
        }

    def _badges(self, visits: Visits, now_us: int) -> dict[int, list[tuple[int, int]]]:
        """Return zone → stays of the badges in it now, and record them, because final decisions come much later."""
        here: dict[int, list[tuple[int, int]]] = {}
        for visit in visits[visits["tag_class"] == TagClass.STAFF]:
            zone, enter_us = int(visit["zone"]), int(visit["enter_us"])
            began_us, last_us = self._near.get(key := (zone, visit["epc"].tobytes()), (enter_us, now_us))
            if now_us - last_us <= SAME_STAY_US:
                enter_us = min(enter_us, began_us)
            self._near[key] = (enter_us, now_us)
            here.setdefault(zone, []).append((enter_us, NEVER))
        return here

    def _quiet(self, now_us: int) -> bool:
        local = dt.datetime.fromtimestamp(now_us / 1e6, self._shop.config.store.tz)
        return is_quiet(self.rules.cues, local.time())

    def _waits(
        self,
        member: Member,
        visit: Any,
        greeted: Mapping[bytes, int],
        staff: Mapping[int, list[tuple[int, int]]],
        now_us: int,
    ) -> Wanted | None:
        number, since_us = int(visit["zone"]), int(visit["enter_us"])
        zone, greeted_us = self._shop.zones[number], greeted.get(member.tag)
        if greeted_us is None or (member.tag, greeted_us) in self._waited:
            return None
        rule = pick(self.rules.cues, "waiting", member.tier, zone, self._kinds[zone])
        if rule is None or rule.wait_s is None or since_us + round(rule.wait_s * 1e6) > now_us:
            return None
        left = [stay for (at, _), stay in self._near.items() if at == number and stay[1] < now_us]
        stays = [*self._staff.get(number, ()), *left, *staff.get(number, ())]
        due_us = waited(since_us, now_us, stays, round(rule.wait_s * 1e6), self._assist_us)
        if due_us is None or due_us + round(rule.expires_s * 1e6) <= now_us:
            return None
        who = (member.tag, greeted_us, member.member, member.tier, zone, self._shop.zone_floor[number])
        return Wanted("waiting", *who, since_us=since_us, due_us=due_us, rule=rule)

    def _attended(self, cue: Going, visit: Any, staff: Mapping[int, list[tuple[int, int]]], now_us: int) -> bool:
        if visit is None:
            return False
        began_us = max(cue.due_us, int(visit["enter_us"]))
        return any(
            now_us - max(began_us, enter_us) >= self._assist_us for enter_us, _ in staff.get(int(visit["zone"]), ())
        )
