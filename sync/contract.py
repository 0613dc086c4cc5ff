"""The contract with the CRM as models: what crosses MQTT under `tagtrail/v1/{shard}/{store}/`, both ways.

Within v1 fields are only added, never removed or given another meaning. Times are UTC in microseconds since 1970
(`_us`); ids of zones and floors are those of the store file.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from config.facts import TagClassName
from sync.contract_base import Message as Message
from sync.contract_base import Name as Name
from sync.contract_base import Numbered as Numbered
from sync.contract_base import Us as Us
from sync.contract_days import FloorDay, FlowDay, Scorecard, ServiceDay, SuspectDay, TierDay, TrialResult, WayDay

V: Literal[1] = 1
MAX_MESSAGE_BYTES = 64 * 1024
"""Maximum size of a message on the broker, and unpacked."""
PACK_FROM_BYTES = 512
"""Smaller messages, such as a single event, shrink only by a third: less than the overhead of a publish
(docs/benchmarks.md)."""
PACK_LEVEL = 1
"""Level 6 would take twice the time to save another tenth."""
GZIP = "gzip"
GZIP_MAGIC = b"\x1f\x8b"
MAX_EVENT_BYTES = 56 * 1024
"""Largest JSON of all events in one batch, and so of one event; the rest of the message is the envelope's."""
MAX_LOST = 32
"""Lost ranges in one batch; what is over goes with the next."""
MAX_STOPS = 250
"""Stops in one journey event; a longer journey is sent in parts."""
MAX_ACK_BYTES = 512

EventClass = Literal["member", "journey", "agg", "health"]
CLASSES: tuple[EventClass, ...] = get_args(EventClass)
"""Event classes by priority: the first never waits behind the others and is evicted last."""
Seq = Annotated[int, Field(ge=1, lt=2**63)]
Epoch = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Reason = Annotated[
    str, BeforeValidator(lambda text: text[:300] if isinstance(text, str) else text), Field(max_length=300)
]
"""A sentence for people; cut, because it may carry what a reader or a broker said."""
MAX_FINDINGS = 16


class Recognised(Numbered):
    """class member: a member with consent was seen for the first time in a journey."""

    type: Literal["recognised"] = "recognised"
    member: Name
    tier: Name
    zone: Name
    floor: Name
    read_us: Us = Field(description="time of the read that did it")
    expires_us: Us = Field(description="a cue until then, history after")
    hint: Annotated[str, Field(max_length=300)] | None = Field(
        default=None, description="the directory's word for the greeting, while it was good"
    )


class Words(Message):
    """A sentence for people in both languages of the page."""

    zh: Annotated[str, Field(max_length=300)]
    en: Annotated[str, Field(max_length=300)]


class Cue(Numbered):
    """class member: somebody should go to a member, and the floor has been told so."""

    type: Literal["cue"] = "cue"
    kind: Literal["arrival", "waiting"] = Field(
        description="arrival: has just come in; waiting: at a counter for longer than the tier's target, no staff near"
    )
    member: Name
    tier: Name
    zone: Name
    floor: Name
    since_us: Us = Field(description="arrival: the read that did it; waiting: when the visit to the zone began")
    due_us: Us = Field(description="from here on somebody was wanted; made_us minus this is how long the cue took")
    made_us: Us
    expires_us: Us = Field(description="a cue until then, history after")
    action: Words | None = Field(default=None, description="the rule's word for what to do")
    rule: Name = Field(description="id of the rule that made it")
    rules_version: Annotated[int, Field(ge=1)]


class CueOutcome(Numbered):
    """class member: what became of a cue. After `acknowledged` and `snoozed` others may follow."""

    type: Literal["cue_outcome"] = "cue_outcome"
    cue: Annotated[str, Field(max_length=200)] = Field(description="id of the cue's event")
    member: Name
    outcome: Literal["acknowledged", "snoozed", "done", "attended", "expired"] = Field(
        description="attended: a staff badge stayed in the member's zone; expired: nobody came in time"
    )
    at_us: Us
    until_us: Us | None = Field(
        default=None, description="acknowledged: somebody will be there by then; snoozed: it is shown again then"
    )


class Stop(Message):
    """One visit within a journey."""

    zone: Name
    enter_us: Us
    exit_us: Us
    reads: Annotated[int, Field(ge=0)]
    censored: bool = Field(description="an end of it was not seen, e.g. because the reader was down")
    confidence: Annotated[float, Field(ge=0, le=1)]


class Journey(Numbered):
    """class journey: a member with consent in the store, from entrance to exit."""

    type: Literal["journey"] = "journey"
    tag: Name = Field(description="stable pseudonym of the member's card")
    tag_class: TagClassName
    member: Name | None = Field(description="directory's member id; null in journeys told by earlier versions only")
    business_date: str = Field(description="YYYY-MM-DD in the store's zone, day cut as defined")
    start_us: Us
    end_us: Us
    censored: bool
    def_version: int
    part: Annotated[int, Field(ge=1)] = Field(
        default=1, description="of a journey too long for one message: which part this is"
    )
    parts: Annotated[int, Field(ge=1)] = Field(
        default=1, description="of how many; all but the stops is alike in every part"
    )
    stops: list[Stop]

    def split(self) -> list[Journey]:
        """Split the journey into parts of at most MAX_STOPS stops."""
        cuts = range(0, max(1, len(self.stops)), MAX_STOPS)
        return [
            self.model_copy(update={"part": i, "parts": len(cuts), "stops": self.stops[cut : cut + MAX_STOPS]})
            for i, cut in enumerate(cuts, 1)
        ]


class Door(Message):
    """Counts of a zone's light barriers or door contacts in a window: passages in either direction, of anybody."""

    passages: Annotated[int, Field(ge=0)]
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(description="share of the window in which they were watched")


class ZoneWindow(Numbered):
    """class agg: one zone, one tag class, 15 minutes."""

    type: Literal["zone_window"] = "zone_window"
    zone: Name
    floor: Name
    tag_class: TagClassName
    window_us: Us
    length_us: Annotated[int, Field(gt=0)]
    business_date: str
    entered: int
    ended: int
    censored: int
    pass_by: int
    touch: int
    visit: int
    engaged: int
    present_us: int
    peak: int
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(description="share of the window with the zone's readers up")
    histogram: dict[str, int] = Field(description="dwell of ended visits: bin number → count; see docs/engine.md")
    def_version: int
    door: Door | None = Field(
        default=None,
        description="the zone's door counters, if it has any, in its event of class member only",
    )
    revision: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="1: as it was when the window had ended; of a window that became something else, the whole of it "
        "anew: within an epoch the highest replaces all lower ones, whatever order they come in",
    )
    layout_version: Name = Field(default="", description="the layout that it was measured with: see event layout")


class FloorTraffic(Numbered):
    """class agg: one floor, 15 minutes, when they are over; `floor_day` has the last word on them."""

    type: Literal["floor_window"] = "floor_window"
    floor: Name
    window_us: Us
    length_us: Annotated[int, Field(gt=0)]
    business_date: str
    member: int = Field(description="times that one came to the floor, from outside or from another floor")
    unknown: int
    cart: int
    visitors: int = Field(description="people who were in any of its zones, each once: no sum of its zones' visitors")
    present_us: int = Field(description="presence of people within the window, summed")
    peak: int = Field(description="most people at once")
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(description="mean of its zones that have antennas")
    def_version: int
    layout_version: Name = ""


class LayoutZone(Message):
    """A zone as the store file has it."""

    zone: Name
    name: Words
    kind: Name = Field(description="entrance, exit, counter, aisle, fitting_room, checkout, service, back_room")
    antennas: Annotated[int, Field(ge=0)] = Field(description="0: nothing is measured there")


class LayoutFloor(Numbered):
    """class agg: one floor of a layout that came into force; one event for each of its floors."""

    type: Literal["layout"] = "layout"
    version: Name = Field(description="the same again when the store goes back to a layout that it had")
    from_us: Us
    floors: int = Field(description="how many floors, and so events, this layout has")
    floor: Name
    name: Words
    zones: list[LayoutZone]


class ServiceDigest(Numbered):
    """class health: what became of the cues and service cases of a business day, or of a week from Monday to Sunday."""

    type: Literal["service_digest"] = "service_digest"
    first_date: str
    last_date: str
    cues: dict[str, int] = Field(description="kind → cues made")
    outcomes: dict[str, int] = Field(description="done, attended, expired → cues that ended so; open: not ended yet")
    answer_median_s: float | None = Field(description="made → acknowledged or done, of those that were")
    cue_p95_ms: float | None = Field(description="due → made, real time")
    cases: dict[str, int] = Field(description="opened in the time; of them by now open, acknowledged, done, reviewed")


class ReaderHealth(Numbered):
    """class health: a reader's link changed, or the reader has something to say."""

    type: Literal["reader"] = "reader"
    reader: Name
    link: Literal["down", "connecting", "up"]
    reason: Reason
    since_us: Us
    clock_offset_us: int | None
    changes: Annotated[int, Field(ge=1)] = Field(
        default=1, description="so many changes since the event before it; where it is more than 1, a link that flaps"
    )


class ClockSet(Message):
    """The gateway's clock was set. What was told of before stands as much too early, or too late."""

    from_us: Annotated[int, Field(lt=2**63)]
    to_us: Us
    unkept_us: Annotated[int, Field(lt=2**63)] | None = Field(
        default=None, description="since when nobody had kept the clock, so that what was told since is doubtful"
    )


class Found(Message):
    """What an examination of the gateway found."""

    what: Name
    state: Literal["warning", "error"]
    said: Reason
    todo: Reason = Field(default="", description="what to do about it")


class GatewayHealth(Numbered):
    """class health: the gateway's own state, once a minute and at start and stop."""

    type: Literal["gateway"] = "gateway"
    at_us: Us
    version: str
    reason: Literal["start", "periodic", "stop"]
    reads: int
    late_reads: int
    unknown_antenna_reads: int
    left_out_reads: Annotated[int, Field(ge=0)] = Field(
        default=0, description="since the start, of more new tags than a shop has: see the events of their readers"
    )
    tags_present: int
    readers_up: int
    readers: int
    backlog: dict[str, int] = Field(description="class → events not yet acknowledged")
    failing: dict[str, Reason] = Field(
        default={}, description="background job → why it fails; it is tried again, and everything else goes on"
    )
    expiring: dict[str, int] = Field(
        default={},
        description="certificate (key of the store file, or broker) → days left, negative once it has expired; of "
        "those that expire within 30 days",
    )
    findings: Annotated[tuple[Found, ...], Field(max_length=MAX_FINDINGS)] | None = Field(
        default=None,
        description="what is wrong with the gateway or soon will be: once after each daily examination, else null",
    )
    clock: Literal["trusted", "holding over", "untrusted"] = Field(
        default="holding over",
        description="trusted: something keeps the gateway's clock right; holding over: nothing does, and nothing "
        "speaks against it; untrusted: what the gateway hears waits until its time is known",
    )
    clock_reason: Reason = Field(default="", description="what speaks against the clock")
    clock_steps: Annotated[int, Field(ge=0)] = Field(
        default=0, description="how often the clock was set since the start; all zones are unknown for such a time"
    )
    clock_set: ClockSet | None = Field(default=None, description="the last time that it was set")


Event = Annotated[
    Recognised
    | Cue
    | CueOutcome
    | Journey
    | ZoneWindow
    | FloorTraffic
    | LayoutFloor
    | FloorDay
    | FlowDay
    | WayDay
    | Scorecard
    | ServiceDay
    | TierDay
    | TrialResult
    | ReaderHealth
    | GatewayHealth
    | SuspectDay
    | ServiceDigest,
    Field(discriminator="type"),
]


CLASS_OF: dict[str, EventClass] = {
    "recognised": "member",
    "cue": "member",
    "cue_outcome": "member",
    "journey": "journey",
    "zone_window": "agg",
    "floor_window": "agg",
    "layout": "agg",
    "service_digest": "health",
    "floor_day": "agg",
    "flow_day": "agg",
    "way_day": "agg",
    "scorecard": "agg",
    "service_day": "agg",
    "tier_day": "agg",
    "trial": "agg",
    "reader": "health",
    "gateway": "health",
    "suspect_day": "health",
}
"""Class of each event type."""


class Lost(Message):
    """Sequence numbers `from` … `to` that the gateway no longer has, and why."""

    from_: Annotated[Seq, Field(alias="from")]
    to: Seq
    reason: Reason

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_ > self.to:
            raise ValueError("from is after to")
        return self


class Envelope(Message):
    """`up/{class}` without its events, which are numbered `first` … `first + n - 1` without a gap."""

    v: Literal[1] = V
    store: Name
    epoch: Epoch = Field(description="drawn when the gateway's database was created")
    class_: Annotated[EventClass, Field(alias="class")]
    first: Seq
    n: Annotated[int, Field(ge=0)]
    sent_us: Us = Field(description="gateway's wall clock at sending")
    boot: Name = Field(description="id of the machine's boot: mono_us compares only within one")
    mono_us: int
    clock_offset_us: int | None = Field(default=None, description="gateway's clock minus true time, if known")
    lost: Annotated[list[Lost], Field(max_length=MAX_LOST)] = Field(
        default=[], description="all of them before `first`"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first + self.n > 2**63:
            raise ValueError("first + n is beyond 64 bits")
        if any(lost.to >= self.first for lost in self.lost):
            raise ValueError("a lost range does not end before the first event")
        return self


class Batch(Envelope):
    """`up/{class}`: an envelope and its events."""

    events: list[Event]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n != len(self.events):
            raise ValueError(f"n is {self.n}, but there are {len(self.events)} events")
        stem = event_id(self.store, self.epoch, self.class_, "")
        for seq, event in enumerate(self.events, self.first):
            if event.id != f"{stem}{seq}" or CLASS_OF[event.type] != self.class_:
                raise ValueError(f"event {event.id!r} ({event.type}) stands where {stem}{seq} belongs")
        return self


class State(Message):
    """`state`, retained; the broker publishes the offline form as last will."""

    v: Literal[1] = V
    store: Name
    online: bool
    version: Name
    epoch: Epoch
    config_generation: Name = Field(description="hash of the store file")
    directory_generation: int
    instance: Name = Field(default="", description="of the gateway's process: two at a time are two gateways")
    started_us: Annotated[int, Field(ge=0, lt=2**63)] = 0


class Ack(Message):
    """`down/ack/{class}`, retained: all events of the epoch up to `upto` are committed at the CRM."""

    epoch: Epoch
    upto: Annotated[int, Field(ge=0, lt=2**63)]
    pause_ms: Annotated[int, Field(ge=0)] = Field(default=0, description="send no more of this class for so long")
    accepts: Annotated[tuple[Name, ...], Field(max_length=8)] = Field(
        default=(), description='forms of a batch that the CRM takes besides plain JSON; "gzip" is the one there is'
    )
    at_us: Us | None = Field(
        default=None,
        description="the CRM's clock when it sent this; a gateway without a time service holds its own to it",
    )


def event_id(store: str, epoch: str, class_: str, seq: int | str) -> str:
    """Return the id of an event: unique for ever, so that a consumer recognises repetitions."""
    return f"{store}/{epoch}/{class_}/{seq}"


def encode(envelope: Envelope, payloads: Sequence[str]) -> bytes:
    """Encode a batch from its envelope and the events' JSON from the outbox."""
    return f'{envelope.model_dump_json(by_alias=True)[:-1]},"events":[{",".join(payloads)}]}}'.encode()


def pack(message: bytes) -> bytes:
    """Compress a message for a CRM that accepts gzip; small ones stay as they are."""
    if len(message) < PACK_FROM_BYTES:
        return message
    packer = zlib.compressobj(PACK_LEVEL, wbits=31)
    return packer.compress(message) + packer.flush()


def unpack(payload: bytes) -> bytes:
    """Return the JSON of a message, plain or gzip by its first two bytes. ValueError if it is incomplete, or larger
    than MAX_MESSAGE_BYTES; no more than that is unpacked.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{len(payload)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    if not payload.startswith(GZIP_MAGIC):
        return payload
    unpacker = zlib.decompressobj(wbits=31)
    try:
        message = unpacker.decompress(payload, MAX_MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"not gzip: {error}") from None
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"unpacks to more than {MAX_MESSAGE_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("not gzip: it is cut off or something follows it")
    return message
