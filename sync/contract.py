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
    """class member: a member with consent has been detected for the first time in a journey."""

    type: Literal["recognised"] = "recognised"
    member: Name
    tier: Name
    zone: Name
    floor: Name
    read_us: Us = Field(description="time of the read that caused the event")
    expires_us: Us = Field(description="until then staff can act on it; after that it is history")
    hint: Annotated[str, Field(max_length=300)] | None = Field(
        default=None, description="hint for the greeting from the directory, if it was still valid"
    )


class Words(Message):
    """Text in both languages of the web page."""

    zh: Annotated[str, Field(max_length=300)]
    en: Annotated[str, Field(max_length=300)]


class Cue(Numbered):
    """class member: staff were asked to attend to a member."""

    type: Literal["cue"] = "cue"
    kind: Literal["arrival", "waiting"] = Field(
        description="arrival: has just come in; waiting: at a counter for longer than the tier's target, without staff"
    )
    member: Name
    tier: Name
    zone: Name
    floor: Name
    since_us: Us = Field(description="arrival: time of the read; waiting: start of the visit to the zone")
    due_us: Us = Field(description="when staff was first needed; made_us minus due_us is the delay of the cue")
    made_us: Us
    expires_us: Us = Field(description="until then staff can act on it; after that it is history")
    action: Words | None = Field(default=None, description="what to do, according to the rule")
    rule: Name = Field(description="id of the rule that created the cue")
    rules_version: Annotated[int, Field(ge=1)]


class CueOutcome(Numbered):
    """class member: outcome of a cue. `acknowledged` and `snoozed` may be followed by other outcomes."""

    type: Literal["cue_outcome"] = "cue_outcome"
    cue: Annotated[str, Field(max_length=200)] = Field(description="id of the cue's event")
    member: Name
    outcome: Literal["acknowledged", "snoozed", "done", "attended", "expired"] = Field(
        description="attended: a staff badge stayed in the member's zone; expired: no response in time"
    )
    at_us: Us
    until_us: Us | None = Field(
        default=None, description="acknowledged: staff will be there by then; snoozed: shown again at that time"
    )


class Stop(Message):
    """One visit within a journey."""

    zone: Name
    enter_us: Us
    exit_us: Us
    reads: Annotated[int, Field(ge=0)]
    censored: bool = Field(description="start or end was not observed, e.g. because a reader was down")
    confidence: Annotated[float, Field(ge=0, le=1)]


class Journey(Numbered):
    """class journey: a member with consent in the store, from entrance to exit."""

    type: Literal["journey"] = "journey"
    tag: Name = Field(description="stable pseudonym of the member's card")
    tag_class: TagClassName
    member: Name | None = Field(description="member id from the directory; null only in journeys from earlier versions")
    business_date: str = Field(description="YYYY-MM-DD in the store's time zone; business days start at day_start")
    start_us: Us
    end_us: Us
    censored: bool
    def_version: int
    part: Annotated[int, Field(ge=1)] = Field(
        default=1, description="number of this part, if the journey is too long for one message"
    )
    parts: Annotated[int, Field(ge=1)] = Field(
        default=1, description="number of parts; all parts are identical except for their stops"
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
    """Counts of a zone's light barriers or door contacts in a window: passages of all people, in both directions."""

    passages: Annotated[int, Field(ge=0)]
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(
        description="share of the window in which the inputs were monitored"
    )


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
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(
        description="share of the window in which the zone's readers were up"
    )
    histogram: dict[str, int] = Field(
        description="dwell times of visits that ended: bin number → count; see docs/engine.md"
    )
    def_version: int
    door: Door | None = Field(
        default=None,
        description="counts of the zone's door counters, if any; only in its event for tag class member",
    )
    revision: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="1: as sent when the window was over; higher: the complete window again, after a change. Within an "
        "epoch the highest revision is valid, regardless of the order of arrival",
    )
    layout_version: Name = Field(default="", description="layout used for the measurement: see event layout")


class FloorTraffic(Numbered):
    """class agg: one floor, 15 minutes, sent when they are over. The final figures are in `floor_day`."""

    type: Literal["floor_window"] = "floor_window"
    floor: Name
    window_us: Us
    length_us: Annotated[int, Field(gt=0)]
    business_date: str
    member: int = Field(description="number of arrivals on the floor, from outside or from another floor")
    unknown: int
    cart: int
    visitors: int = Field(description="people in any of its zones, each counted once; not the sum over the zones")
    present_us: int = Field(description="sum of the time that people were present within the window")
    peak: int = Field(description="maximum number of people at the same time")
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(description="mean over its zones that have antennas")
    def_version: int
    layout_version: Name = ""


class LayoutZone(Message):
    """A zone as defined in the store file."""

    zone: Name
    name: Words
    kind: Name = Field(description="entrance, exit, counter, aisle, fitting_room, checkout, service, back_room")
    antennas: Annotated[int, Field(ge=0)] = Field(description="number of antennas; 0: nothing is measured there")


class LayoutFloor(Numbered):
    """class agg: one floor of a layout that has taken effect; one event for each floor."""

    type: Literal["layout"] = "layout"
    version: Name = Field(description="identical if the store returns to an earlier layout")
    from_us: Us
    floors: int = Field(description="number of floors of this layout, and so of events")
    floor: Name
    name: Words
    zones: list[LayoutZone]


class ServiceDigest(Numbered):
    """class health: outcomes of the cues and service cases of a business day, or of a week from Monday to Sunday."""

    type: Literal["service_digest"] = "service_digest"
    first_date: str
    last_date: str
    cues: dict[str, int] = Field(description="kind → number of cues")
    outcomes: dict[str, int] = Field(
        description="done, attended, expired → number of cues with this outcome; open: not finished"
    )
    answer_median_s: float | None = Field(
        description="median time from creation to acknowledged or done, of the cues with a response"
    )
    cue_p95_ms: float | None = Field(description="95th percentile of the delay from due_us to made_us, in real time")
    cases: dict[str, int] = Field(
        description="cases opened in this period: number that are now open, acknowledged, done, reviewed"
    )


class ReaderHealth(Numbered):
    """class health: a reader's connection changed, or the reader reported something."""

    type: Literal["reader"] = "reader"
    reader: Name
    link: Literal["down", "connecting", "up"]
    reason: Reason
    since_us: Us
    clock_offset_us: int | None
    changes: Annotated[int, Field(ge=1)] = Field(
        default=1, description="number of changes since the previous event; more than 1 for an unstable connection"
    )


class ClockSet(Message):
    """The gateway's clock was changed. Times reported before are wrong by the difference."""

    from_us: Annotated[int, Field(lt=2**63)]
    to_us: Us
    unkept_us: Annotated[int, Field(lt=2**63)] | None = Field(
        default=None, description="start of the period without a time service; times reported since then are unreliable"
    )


class Found(Message):
    """What an examination of the gateway found."""

    what: Name
    state: Literal["warning", "error"]
    said: Reason
    todo: Reason = Field(default="", description="what to do about it")


class GatewayHealth(Numbered):
    """class health: state of the gateway, once a minute and at start and stop."""

    type: Literal["gateway"] = "gateway"
    at_us: Us
    version: str
    reason: Literal["start", "periodic", "stop"]
    reads: int
    late_reads: int
    unknown_antenna_reads: int
    left_out_reads: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="reads ignored since the start because of implausibly many new tags: see the readers' events",
    )
    tags_present: int
    readers_up: int
    readers: int
    backlog: dict[str, int] = Field(description="class → events not yet acknowledged")
    failing: dict[str, Reason] = Field(
        default={},
        description="background job → reason of its failure; it is retried and does not affect anything else",
    )
    expiring: dict[str, int] = Field(
        default={},
        description="certificate (key of the store file, or broker) → days left, negative if expired; only "
        "certificates that expire within 30 days",
    )
    findings: Annotated[tuple[Found, ...], Field(max_length=MAX_FINDINGS)] | None = Field(
        default=None,
        description="what is wrong with the gateway or soon will be: once after each daily examination, else null",
    )
    protected: bool | None = Field(
        default=None,
        description="with a standby: whether it has everything that was sent, so that a takeover loses nothing; null "
        "without one",
    )
    clock: Literal["trusted", "holding over", "untrusted"] = Field(
        default="holding over",
        description="trusted: a time service keeps the gateway's clock, or the CRM confirms it; holding over: nothing "
        "confirms or contradicts it; untrusted: reads are held back until the time is known",
    )
    clock_reason: Reason = Field(default="", description="what contradicts the clock")
    clock_steps: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="number of changes of the clock since the start; all zones are unknown for the skipped time",
    )
    clock_set: ClockSet | None = Field(default=None, description="last change of the clock")


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
    """Sequence numbers `from` … `to` that the gateway no longer has, with the reason."""

    from_: Annotated[Seq, Field(alias="from")]
    to: Seq
    reason: Reason

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_ > self.to:
            raise ValueError("from is after to")
        return self


class Envelope(Message):
    """`up/{class}` without its events, which are numbered `first` … `first + n - 1` without gaps."""

    v: Literal[1] = V
    store: Name
    epoch: Epoch = Field(description="generated when the gateway's database was created")
    class_: Annotated[EventClass, Field(alias="class")]
    first: Seq
    n: Annotated[int, Field(ge=0)]
    sent_us: Us = Field(description="gateway's wall clock at sending")
    boot: Name = Field(description="id of the machine's boot; mono_us is comparable only within one boot")
    mono_us: int
    clock_offset_us: int | None = Field(default=None, description="gateway's clock minus true time, if known")
    lost: Annotated[list[Lost], Field(max_length=MAX_LOST)] = Field(default=[], description="all below `first`")
    term: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0,
        description="rises whenever another gateway of the store takes over: within an epoch, batches with a lower "
        "term than the highest seen come from a gateway that must not send any more, and are to be dropped",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first + self.n > 2**63:
            raise ValueError("first + n is beyond 64 bits")
        if any(lost.to >= self.first for lost in self.lost):
            raise ValueError("a lost range does not end before the first event")
        return self


class Batch(Envelope):
    """`up/{class}`: envelope and events."""

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
    """`state`, retained. The broker publishes the offline version as last will."""

    v: Literal[1] = V
    store: Name
    online: bool
    version: Name
    epoch: Epoch
    config_generation: Name = Field(description="hash of the store file")
    directory_generation: int
    instance: Name = Field(
        default="", description="id of the gateway's process; two at the same time mean two gateways"
    )
    started_us: Annotated[int, Field(ge=0, lt=2**63)] = 0
    term: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="as in batches: of two gateways of a store, the one with the lower term stops"
    )


class Ack(Message):
    """`down/ack/{class}`, retained: all events of the epoch up to `upto` are committed at the CRM."""

    epoch: Epoch
    upto: Annotated[int, Field(ge=0, lt=2**63)]
    pause_ms: Annotated[int, Field(ge=0)] = Field(default=0, description="don't send this class for this time")
    accepts: Annotated[tuple[Name, ...], Field(max_length=8)] = Field(
        default=(), description='accepted encodings of batches besides plain JSON; the only one is "gzip"'
    )
    at_us: Us | None = Field(
        default=None,
        description="the CRM's clock at sending; a gateway without a time service compares its clock with it",
    )


def event_id(store: str, epoch: str, class_: str, seq: int | str) -> str:
    """Return the id of an event: unique for ever, so that a consumer recognises repetitions."""
    return f"{store}/{epoch}/{class_}/{seq}"


def encode(envelope: Envelope, payloads: Sequence[str]) -> bytes:
    """Encode a batch from its envelope and the events' JSON from the outbox."""
    head = envelope.model_dump_json(by_alias=True, exclude=None if envelope.term else {"term"})
    return f'{head[:-1]},"events":[{",".join(payloads)}]}}'.encode()


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
