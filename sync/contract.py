"""The contract with the CRM as models: what crosses MQTT under `tagtrail/v1/{shard}/{store}/`, both ways.

Within v1 fields are only added, never removed or given another meaning. Times are UTC in microseconds since 1970
(`_us`); ids of zones and floors are those of the store file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

V = 1
MAX_MESSAGE_BYTES = 64 * 1024

EventClass = Literal["member", "journey", "agg", "health"]
TagClassName = Literal["unknown", "member", "cart", "staff", "merchandise"]
Us = Annotated[int, Field(ge=0, description="UTC, microseconds since 1970")]


class Message(BaseModel):
    """Base: frozen. Consumers ignore keys they don't know, so that v1 can grow."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Recognised(Message):
    """class member: a member with consent was seen for the first time in a journey."""

    type: Literal["recognised"] = "recognised"
    id: str = Field(description="store/epoch/class/sequence")
    member: str
    tier: str
    zone: str
    floor: str
    read_us: Us = Field(description="time of the read that did it")
    expires_us: Us = Field(description="a cue until then, history after")


class Stop(Message):
    """One visit within a journey."""

    zone: str
    enter_us: Us
    exit_us: Us
    reads: Annotated[int, Field(ge=0)]
    censored: bool = Field(description="an end of it was not seen, e.g. because the reader was down")
    confidence: Annotated[float, Field(ge=0, le=1)]


class Journey(Message):
    """class journey: one tag in the store from entrance to exit."""

    type: Literal["journey"] = "journey"
    id: str
    tag: str = Field(description="member: stable pseudonym; else a keyed pseudonym that changes every business day")
    tag_class: TagClassName
    member: str | None = Field(description="directory's member id, only with consent")
    business_date: str = Field(description="YYYY-MM-DD in the store's zone, day cut as defined")
    start_us: Us
    end_us: Us
    censored: bool
    def_version: int
    stops: list[Stop]


class ZoneWindow(Message):
    """class agg: one zone, one tag class, 15 minutes."""

    type: Literal["zone_window"] = "zone_window"
    id: str
    zone: str
    floor: str
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


class ReaderHealth(Message):
    """class health: a reader's link changed."""

    type: Literal["reader"] = "reader"
    id: str
    reader: str
    link: Literal["down", "connecting", "up"]
    reason: str
    since_us: Us
    clock_offset_us: int | None


class GatewayHealth(Message):
    """class health: the gateway's own state, once a minute and at start and stop."""

    type: Literal["gateway"] = "gateway"
    id: str
    at_us: Us
    version: str
    reason: Literal["start", "periodic", "stop"]
    reads: int
    late_reads: int
    unknown_antenna_reads: int
    tags_present: int
    readers_up: int
    readers: int
    backlog: dict[str, int] = Field(description="class → events not yet acknowledged")


Event = Annotated[Recognised | Journey | ZoneWindow | ReaderHealth | GatewayHealth, Field(discriminator="type")]


class Lost(Message):
    """Sequence numbers that will never come, and why."""

    from_: Annotated[int, Field(ge=1, alias="from")]
    to: Annotated[int, Field(ge=1)]
    reason: str


class Batch(Message):
    """`up/{class}`: events `first` … `first + n - 1` of a class, in order, without gaps but for `lost`."""

    v: Literal[1] = 1
    store: str
    epoch: str = Field(description="drawn when the gateway's database was created")
    class_: Annotated[EventClass, Field(alias="class")]
    first: Annotated[int, Field(ge=1)]
    n: Annotated[int, Field(ge=0)]
    sent_us: Us = Field(description="gateway's wall clock at sending")
    boot: str = Field(description="id of the machine's boot: mono_us compares only within one")
    mono_us: int
    clock_offset_us: int | None = Field(description="gateway's clock minus true time, if known")
    lost: list[Lost] = []
    events: list[Event]


class State(Message):
    """`state`, retained; the broker publishes the offline form as last will."""

    v: Literal[1] = 1
    store: str
    online: bool
    version: str
    epoch: str
    config_generation: str = Field(description="hash of the store file")
    directory_generation: int


class Ack(Message):
    """`down/ack/{class}`, retained: all events of the epoch up to `upto` are committed at the CRM."""

    epoch: str
    upto: Annotated[int, Field(ge=0)]
    pause_ms: Annotated[int, Field(ge=0)] = 0
