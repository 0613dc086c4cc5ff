"""View of the page "Now": the live state combined with the store file, in one language."""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10

from config import StoreConfig
from edge.store.live_state import BrokerNow, CueNow, LiveClient, Now, ReaderNow, State
from edge.web.drawings.plan import Plan
from edge.words.languages import named

LEVELS = (1, 3, 6, 11, 21)
"""Number of people in a zone at which the next shade of the plan begins."""

PEOPLE = ("member", "unknown")
"""Tag classes that are counted as people."""
CUE_ORDER = ("open", "acknowledged", "snoozed")
"""Cues waiting for a response first."""


@dataclass(frozen=True)
class ZonePicture:
    """A zone now; `people` and `level` are None if unknown."""

    id: str
    name: str
    people: int | None
    level: int | None
    members: int | None
    """None for users who must not be able to follow individual members."""
    carts: int
    staff: int


@dataclass(frozen=True)
class FloorPicture:
    plan: Plan
    name: str
    zones: Mapping[str, ZonePicture]
    people: int | None
    unknown_zones: int


@dataclass(frozen=True)
class Sighting:
    """A member and their location, for managers; masked, because other people can see the screen."""

    member: str
    tier: str
    zone: str
    at: str


@dataclass(frozen=True)
class CuePicture:
    """A cue; times of day are texts."""

    id: int
    kind: str
    member: str
    """Masked; empty for all users except managers."""
    tier: str
    zone: str
    """Present zone of the member, as far as the user may know it: where staff must go."""
    began: str | None
    """Zone in which the cue began, if it is another one."""
    since: str
    waited_s: int
    """Waiting time until the cue was created."""
    expires: str
    state: str
    until: str | None
    who: str | None
    action: str | None
    rule: str
    version: int


@dataclass(frozen=True)
class Picture:
    state: State
    as_of: str | None
    floors: tuple[FloorPicture, ...]
    people: int | None
    unknown_zones: int
    members: tuple[Sighting, ...]
    """For managers only, like `recognitions`; empty for other users."""
    members_here: int | None
    tiers: tuple[tuple[str, int], ...]
    """Tier → number of members in the store."""
    recognitions: tuple[Sighting, ...]
    manager: bool
    cues: tuple[CuePicture, ...]
    carts: int | None
    staff: int | None
    now: Now | None
    """The live state, or None if it is too old to be shown."""
    reads_per_s: int
    readers: tuple[ReaderNow, ...]
    readers_up: int
    broker: BrokerNow | None
    pending: int


def take(config: StoreConfig, plans: tuple[Plan, ...], live: LiveClient, lang: str, *, manager: bool) -> Picture:
    """Build the picture for managers or for other users. Without the service, every zone is unknown."""
    heard = live.now if live.state in (State.LIVE, State.STALE) else None
    now = None if heard is None else for_eyes(heard, manager=manager)
    told = {zone.id: zone for zone in now.zones} if now else {}
    names = {zone.id: named(zone.name, lang) for zone in config.zones}
    floors = []
    for plan in plans:
        zones = {}
        for drawn in plan.zones:
            zone = told.get(drawn.id)
            known = zone is not None and zone.state == "ok"
            by_class = zone.by_class if zone is not None and known else {}
            people = zone.people if zone is not None and known else None
            zones[drawn.id] = ZonePicture(
                id=drawn.id,
                name=names[drawn.id],
                people=people,
                level=None if people is None else bisect_right(LEVELS, people),
                members=by_class.get("member", 0) if manager else None,
                carts=by_class.get("cart", 0),
                staff=by_class.get("staff", 0),
            )
        floors.append(
            FloorPicture(
                plan=plan,
                name=named(plan.name, lang),
                zones=zones,
                people=_sum([zone.people for zone in zones.values()]),
                unknown_zones=sum(zone.people is None for zone in zones.values()),
            )
        )

    def at(us: int) -> str:
        return clock_time(config, us)[:5]

    every = [zone for floor in floors for zone in floor.zones.values()]
    known_zones = [zone for zone in every if zone.people is not None]
    return Picture(
        state=live.state,
        as_of=clock_time(config, live.now.as_of_us) if live.now else None,
        floors=tuple(floors),
        people=_sum([zone.people for zone in every]),
        unknown_zones=len(every) - len(known_zones),
        members=tuple(
            Sighting(m.member, m.tier, names.get(m.zone, m.zone), at(m.since_us)) for m in (now.members if now else ())
        ),
        members_here=None if heard is None else len(heard.members),
        tiers=tuple(sorted(Counter(m.tier for m in heard.members).items())) if heard else (),
        manager=manager,
        recognitions=tuple(
            Sighting(r.member, r.tier, names.get(r.zone, r.zone), clock_time(config, r.at_us))
            for r in (now.recognitions if now else ())
        ),
        cues=tuple(
            _cue(cue, names, lang, at)
            for cue in sorted(now.cues.open if now else (), key=lambda cue: (CUE_ORDER.index(cue.state), cue.id))
        ),
        carts=sum(zone.carts for zone in known_zones) if known_zones else None,
        staff=sum(zone.staff for zone in known_zones) if known_zones else None,
        now=now,
        reads_per_s=_two_digits(now.reads_per_s) if now else 0,
        readers=now.readers if now else (),
        readers_up=sum(reader.link == "up" for reader in now.readers) if now else 0,
        broker=now.broker if now else None,
        pending=sum(backlog.pending for backlog in now.outbox.values()) if now else 0,
    )


def _cue(cue: CueNow, names: Mapping[str, str], lang: str, at: Callable[[int], str]) -> CuePicture:
    here = cue.zone if cue.here is None else cue.here
    return CuePicture(
        id=cue.id,
        kind=cue.kind,
        member=cue.member,
        tier=cue.tier,
        zone=names.get(here, here),
        began=names.get(cue.zone, cue.zone) if here != cue.zone else None,
        since=at(cue.since_us),
        waited_s=max(0, cue.made_us - cue.since_us) // 1_000_000,
        expires=at(cue.expires_us),
        state=cue.state,
        until=None if cue.until_us is None else at(cue.until_us),
        who=cue.who,
        action=None if cue.action is None else json.loads(cue.action)[lang],
        rule=cue.rule,
        version=cue.version,
    )


def for_eyes(now: Now, *, manager: bool) -> Now:
    """Return the live state that may leave the page's process: for managers, with masked members.

    For other users, all data about individual members is removed, including the counts of members by zone: repeated
    requests would show the path of a member.
    """
    lists = (now.members, now.recognitions, now.cues.open) if manager else ()
    masked = masks(one.member for each in lists for one in each)
    cues = tuple(
        cue.model_copy(update={"member": masked[cue.member]} if manager else {"member": "", "here": None})
        for cue in now.cues.open
    )
    shown: dict[str, object] = {"cues": now.cues.model_copy(update={"open": cues})}
    if manager:
        for name in ("members", "recognitions"):
            shown[name] = tuple(one.model_copy(update={"member": masked[one.member]}) for one in getattr(now, name))
    else:
        zones = (
            zone.model_copy(update={"by_class": {k: n for k, n in zone.by_class.items() if k not in PEOPLE}})
            for zone in now.zones
        )
        shown |= {"members": (), "recognitions": (), "zones": tuple(zones)}
    return now.model_copy(update=shown)


def mask(member: str) -> str:
    """Mask a member number except for its last digits: enough to compare with a card, too little to look someone up."""
    shown = _shown(member)
    return "••••" + (member[-shown:] if shown else "")


def masks(members: Iterable[str]) -> dict[str, str]:
    """Mask member numbers that are shown together, so that different members look different.

    Of numbers with the same last digits, as few other characters as needed to tell them apart are also shown, in place:
    M-1234567 and M-2234567 become `••••1••4567` and `••••2••4567`.
    """
    alike: dict[str, list[str]] = {}
    for member in sorted(set(members)):
        alike.setdefault(mask(member), []).append(member)
    return {member: text for group in alike.values() for member, text in _apart(group).items()}


def _apart(group: Sequence[str]) -> dict[str, str]:
    """Mask numbers with the same last digits by showing characters until all differ, from the last one on."""
    if len(group) == 1 or any(not _shown(member) for member in group):
        return {member: mask(member) for member in group}
    hidden = {member: member[: len(member) - _shown(member)].rjust(max(map(len, group))) for member in group}
    places: list[int] = []
    kinds = 1
    for place in reversed(range(max(map(len, group)))):
        found = len({tuple(text[i] for i in (*places, place)) for text in hidden.values()})
        if found > kinds:
            places, kinds = [*places, place], found
    first = min(places)
    return {
        member: "••••"
        + "".join(text[i] if i in places else "•" for i in range(first, len(text))).replace(" ", "")
        + mask(member).lstrip("•")
        for member, text in hidden.items()
    }


def _shown(member: str) -> int:
    return 4 if len(member) >= 8 else 2 if len(member) >= 4 else 0


def clock_time(config: StoreConfig, at_us: int) -> str:
    """Format a time as `14:03:22` in the store's local time."""
    return f"{dt.datetime.fromtimestamp(at_us / 1e6, config.store.tz):%H:%M:%S}"


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _two_digits(value: float) -> int:
    """Round to two significant digits, so that small fluctuations do not cause updates."""
    return round(value) if value < 100 else int(round(value, 1 - floor(log10(value))))
