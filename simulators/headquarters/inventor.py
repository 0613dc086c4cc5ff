"""Invented events of a store: every type that a real one may send, consistent with each other."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from config.facts import WINDOW_US
from sync.contract import (
    CLASS_OF,
    Cue,
    CueOutcome,
    Event,
    EventClass,
    FloorTraffic,
    GatewayHealth,
    Journey,
    LayoutFloor,
    LayoutZone,
    ReaderHealth,
    Recognised,
    ServiceDigest,
    Stop,
    Words,
    ZoneWindow,
)
from sync.contract_days import (
    FloorDay,
    FloorWindow,
    FlowDay,
    FlowLink,
    FlowPath,
    LayoutInForce,
    Scorecard,
    ServiceDay,
    SuspectDay,
    TierDay,
    TrialResult,
    WayDay,
)

ZONES = ("door", "cosmetics", "shoes", "bags", "checkout")
KINDS = ("entrance", "counter", "counter", "counter", "checkout")
LAYOUT = "0123456789ab"
ANEW = 0.1
"""Share of windows that are corrected."""
RARE = 0.1
"""Share of events other than recognitions, journeys and windows."""


class Inventor:
    """Event generator of one store; starts with its layout."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._told = False
        self._windows: list[ZoneWindow] = []
        self._revisions: dict[tuple[str, str, int, int], int] = {}
        self._cue: tuple[str, Cue] | None = None

    def next(self) -> tuple[EventClass, Event]:
        """Return a new event and its class."""
        event = self._event()
        return CLASS_OF[event.type], event

    def numbered(self, event: Event, id_: str) -> None:
        """Take the id that an event was given, for events that refer to it."""
        if isinstance(event, Cue):
            self._cue = id_, event

    def _event(self) -> Event:
        if not self._told:
            self._told = True
            return self._layout()
        kind = self._dice.random()
        if kind < RARE:
            return self._rare()
        if kind < RARE + 0.1:
            return self._recognised()
        return self._journey() if kind < 0.5 else self._window()

    def _rare(self) -> Event:
        makers = (
            self._cue_made,
            self._outcome,
            self._floor_window,
            self._reader,
            self._gateway,
            self._day,
            self._digest,
        )
        return self._dice.choice(makers)()

    def _member(self) -> str:
        return f"M{self._dice.randrange(100_000):06}"

    def _layout(self) -> LayoutFloor:
        zones = [
            LayoutZone(zone=zone, name=Words(zh=zone, en=zone), kind=kind, antennas=1)
            for zone, kind in zip(ZONES, KINDS, strict=True)
        ]
        floor = Words(zh="1", en="1")
        return LayoutFloor(version=LAYOUT, from_us=now_us(), floors=1, floor="F1", name=floor, zones=zones)

    def _recognised(self) -> Recognised:
        now = now_us()
        tier, until_us = self._dice.choice("ABC"), now + 300_000_000
        return Recognised(member=self._member(), tier=tier, zone="door", floor="F1", read_us=now, expires_us=until_us)

    def _cue_made(self) -> Cue:
        now = now_us()
        return Cue(
            kind="arrival",
            member=self._member(),
            tier="A",
            zone="door",
            floor="F1",
            since_us=now,
            due_us=now,
            made_us=now + 200_000,
            expires_us=now + 300_000_000,
            action=Words(zh="请迎接", en="Please greet"),
            rule="vip",
            rules_version=1,
        )

    def _outcome(self) -> Event:
        if self._cue is None:
            return self._cue_made()
        (id_, cue), self._cue = self._cue, None
        return CueOutcome(cue=id_, member=cue.member, outcome="done", at_us=now_us())

    def _journey(self) -> Journey:
        now, dice = now_us(), self._dice
        times = sorted(now - dice.randrange(3_600_000_000) for _ in range(2 * dice.randint(1, 8)))
        return Journey(
            tag=dice.randbytes(16).hex(),
            tag_class="member",
            member=self._member(),
            business_date=_date(now),
            start_us=times[0],
            end_us=times[-1],
            censored=False,
            def_version=1,
            stops=[
                Stop(zone=dice.choice(ZONES), enter_us=a, exit_us=b, reads=9, censored=False, confidence=0.9)
                for a, b in zip(times[::2], times[1::2], strict=True)
            ],
        )

    def _window(self) -> ZoneWindow:
        if self._windows and self._dice.random() < ANEW:
            return self._corrected()
        now = now_us()
        entered = self._dice.randrange(20)
        window = ZoneWindow(
            zone=self._dice.choice(ZONES),
            floor="F1",
            tag_class="unknown",
            window_us=now // WINDOW_US * WINDOW_US - WINDOW_US,
            length_us=WINDOW_US,
            business_date=_date(now),
            entered=entered,
            ended=entered,
            censored=0,
            pass_by=entered,
            touch=0,
            visit=0,
            engaged=0,
            present_us=entered * 3_000_000,
            peak=min(entered, 3),
            coverage=0.2,
            histogram={"3": entered} if entered else {},
            def_version=1,
            layout_version=LAYOUT,
        )
        self._windows = [*self._windows[-20:], window]
        return window

    def _corrected(self) -> ZoneWindow:
        window = self._dice.choice(self._windows)
        key = window.zone, window.tag_class, window.window_us, window.length_us
        self._revisions[key] = self._revisions.get(key, 1) + 1
        return window.model_copy(update={"revision": self._revisions[key]})

    def _floor_window(self) -> FloorTraffic:
        now, n = now_us(), self._dice.randrange(50)
        return FloorTraffic(
            floor="F1",
            window_us=now // WINDOW_US * WINDOW_US - WINDOW_US,
            length_us=WINDOW_US,
            business_date=_date(now),
            member=n // 5,
            unknown=n - n // 5,
            cart=n // 3,
            visitors=n,
            present_us=n * 60_000_000,
            peak=n // 2,
            coverage=1,
            def_version=1,
            layout_version=LAYOUT,
        )

    def _reader(self) -> ReaderHealth:
        link = self._dice.choice(("up", "down"))
        why = "taking inventory" if link == "up" else "the reader closed the connection"
        made = {"reader": "gate-1", "link": link, "reason": why, "since_us": now_us(), "clock_offset_us": None}
        return ReaderHealth.model_validate(made)

    def _gateway(self) -> GatewayHealth:
        none = dict.fromkeys(
            ("reads", "late_reads", "unknown_antenna_reads", "tags_present", "readers_up", "readers"), 1
        )
        made = {"at_us": now_us(), "version": "fleet", "reason": "periodic", "backlog": {"agg": 0}}
        return GatewayHealth.model_validate(none | made)

    def _digest(self) -> ServiceDigest:
        day = _date(now_us() - 86_400_000_000)
        made = {"first_date": day, "last_date": day, "cues": {"arrival": 3}, "outcomes": {"done": 2, "expired": 1}}
        return ServiceDigest.model_validate(
            made | {"answer_median_s": 40.0, "cue_p95_ms": 210.0, "cases": {"opened": 1}}
        )

    def _day(self) -> Event:
        now = now_us()
        # The latest day that is over; each is told in the revision that its moment in time makes it.
        date = datetime.fromtimestamp(now / 1e6, UTC).date() - timedelta(days=1)
        head: dict[str, Any] = {
            "first_day": date.isoformat(),
            "last_day": date.isoformat(),
            "days": 1,
            "revision": max(1, now // 1000 % 2**40),
            "as_of_us": now,
            "def_version": 1,
            "small_cell": 5,
            "layouts": [LayoutInForce(version=LAYOUT, from_us=0)],
        }
        kind = self._dice.choice((FloorDay, FlowDay, WayDay, Scorecard, ServiceDay, TierDay, TrialResult, SuspectDay))
        unknown = {name: None for name, field in kind.model_fields.items() if field.is_required()} | head
        return kind.model_validate(unknown | _PARTS[kind.__name__](self._dice))


def _scorecard(dice: random.Random) -> dict[str, Any]:
    n = dice.randrange(30, 300)
    return {
        "zone": dice.choice(ZONES[1:4]),
        "floor": "F1",
        "coverage": 1.0,
        "n": n,
        "pass_by": n,
        "touch": 0,
        "visit": 0,
    }


_PARTS: dict[str, Any] = {
    "FloorDay": lambda dice: {
        "floor": "F1",
        "windows": [FloorWindow(window_us=0, member=1, unknown=dice.randrange(9), cart=0, mean=0.5, peak=2)],
    },
    "FlowDay": lambda dice: {
        "links": [FlowLink(from_zone=None, to_zone="door", n=dice.randrange(5, 99))],
        "steps": 99,
        "paths": [],
        "with_path": 0,
        "entries": {"door": 9},
        "exits": {"door": 9},
    },
    "WayDay": lambda dice: {
        "tag_class": "unknown",
        "ways": [FlowPath(zones=["door", "shoes"], n=dice.randrange(5, 99))],
        "with_path": 99,
    },
    "Scorecard": _scorecard,
    "ServiceDay": lambda dice: {
        "zone": dice.choice(ZONES[1:4]),
        "floor": "F1",
        "wanted": dice.randrange(99),
        "hours": [],
    },
    "TierDay": lambda dice: {"journeys": dice.randrange(999), "tiers": [], "history_days": 30},
    "TrialResult": lambda _: {
        "trial": "sale",
        "kind": "promotion",
        "state": "running",
        "zones": ["shoes"],
        "controls": ["bags"],
        "phases": [],
    },
    "SuspectDay": lambda _: {"n": 0, "tags": []},
}
"""Contents of day events beside their head; all else is null."""


def now_us() -> int:
    """Return UTC now in microseconds."""
    return time.time_ns() // 1000


def _date(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()
