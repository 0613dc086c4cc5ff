"""Models of the store file (TOML). Units stand in the names: `_s` seconds, `_mb` MiB, metres in polygons."""

from __future__ import annotations

import datetime as dt
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Strict, Tag, model_validator

from config.facts import PrintedClass, ZoneKind

Int = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""TOML has types: "5" and true are no numbers. (Whole numbers are fine where a Number is wanted.)"""
Metres = Annotated[Number, Field(ge=-10_000, le=10_000)]
Seconds = Annotated[Number, Field(gt=0, le=30 * 86_400)]

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Letters, digits, dot, dash, underscore: an id stands in MQTT topics, file names and URLs."""


class Model(BaseModel):
    """Base: unknown keys are errors, since a misspelt key that is ignored is a setting that silently does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Names(Model):
    """A name in both languages of the page."""

    zh: Annotated[str, Field(min_length=1)]
    en: Annotated[str, Field(min_length=1)]


NAME_TAGS = ("<text>", "<zh, en>")
"""Stand in the places that pydantic reports for errors within a name; no key of the file looks like them."""


def _name_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return NAME_TAGS[0]
    return NAME_TAGS[1] if isinstance(value, dict | Names) else None


Name = Annotated[
    Annotated[str, Field(min_length=1), Tag(NAME_TAGS[0])] | Annotated[Names, Tag(NAME_TAGS[1])],
    Discriminator(_name_tag, custom_error_type="name_type", custom_error_message="neither a text nor {zh, en}"),
]


def _timezone(name: str) -> str:
    if name not in available_timezones():
        near = get_close_matches(name, available_timezones(), 1)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        raise ValueError(f'no time zone "{name}"{hint}; needed: an IANA name such as "Asia/Shanghai"')
    return name


def _path(path: Path) -> Path:
    # Path("") is the current folder.
    if str(path) == "." or "\0" in str(path):
        raise ValueError("needed: the path of a file")
    return path


FilePath = Annotated[Path, AfterValidator(_path)]


class Store(Model):
    """The shop itself."""

    id: Id
    name: Name
    timezone: Annotated[str, AfterValidator(_timezone)]
    holidays: Literal["CN"] | None = None
    """Whose public holidays and working weekends days are compared by; None: only by weekday."""

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


class Floor(Model):
    id: Id
    name: Name


Point = tuple[Metres, Metres]


class Zone(Model):
    """A named area; polygon in metres, at least three corners, on its floor's own coordinates."""

    id: Id
    name: Name
    kind: ZoneKind
    floor: Id
    polygon: Annotated[tuple[Point, ...], Field(min_length=3)]
    neighbours: tuple[Id, ...] | None = None
    """Zones one can walk to directly, instead of the default: those that touch or lie within 3 m on the same floor.
    A zone listed by one side is a neighbour of both."""


class Antenna(Model):
    """One antenna port of a reader, the zone it watches and where it hangs (metres)."""

    port: Annotated[Int, Field(ge=1, le=64)]
    zone: Id
    position: Point


class Input(Model):
    """A light barrier or door contact at an input (GPI): each time that it becomes active, somebody came through."""

    port: Annotated[Int, Field(ge=1, le=64)]
    zone: Id
    """Whose door it is."""
    active: Literal["high", "low"] = "high"
    debounce_s: Annotated[Number, Field(ge=0, le=60)] = 0.1
    """It must have been quiet for so long before it counts again."""


class Output(Model):
    """A lamp or beeper at an output (GPO): on when a member of some tier comes to a zone."""

    port: Annotated[Int, Field(ge=1, le=64)]
    zone: Id
    tiers: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(min_length=1)]
    seconds: Annotated[Number, Field(ge=0.5, le=600)] = 10
    """For so long."""


Driver = Literal["llrp", "thingmagic", "r2000", "uhfreader18", "chafon-cf", "m100"]
Region = Literal["na", "eu", "kr", "in", "jp", "prc", "eu2", "eu3", "kr2", "prc2", "au", "nz", "na2", "na3"]
"""By the names of ThingMagic's own programs: prc is China, 920 to 925 MHz; eu3 Europe, 865 to 868 MHz; na the FCC's."""
SERIAL_DRIVERS = frozenset(get_args(Driver)) - {"llrp"}


class Reader(Model):
    """A reader and its antennas. `address`: llrp host or host:port, or listen://host:port if the reader connects to us;
    serial /dev/rfid/gate-1 or tcp://host:port. `region` is for thingmagic, all keys behind it are for llrp."""

    id: Id
    driver: Driver
    address: Annotated[str, Field(min_length=1)]
    antennas: Annotated[tuple[Antenna, ...], Field(min_length=1)]
    region: Region | None = None
    """The reader is set to it. Unless given it keeps its own, and one that has none is set to China (prc)."""
    identity: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5,15}$")] | None = None
    """The reader's MAC (or EPC) in hex: another reader at its address gets no inventory."""
    tls: bool = False
    """Speak TLS, port 5085 unless given; with `ca` or `pin`, or for listen:// with `cert` and `key`."""
    ca: FilePath | None = None
    """Certificate (PEM) of who signed the reader's, which must name the address."""
    pin: Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")] | None = None
    """SHA-256 fingerprint of the reader's own certificate."""
    cert: FilePath | None = None
    """Our certificate (PEM), for readers that ask for one and for those that connect to us; with `key`."""
    key: FilePath | None = None
    profile: Literal["generic", "impinj", "zebra", "thingmagic", "alien", "kathrein"] | None = None
    """The reader's make, if what the reader says of itself is not to decide."""
    session: Annotated[Int, Field(ge=0, le=3)] | None = None
    """Gen2 session; as configured on the reader unless given."""
    search_mode: Literal["reader", "single", "dual", "tagfocus"] | None = None
    """Impinj's search mode; as configured on the reader unless given."""
    phase: bool = False
    """Impinj's reports carry the phase too, for captures of what goes over the network; nothing else uses it."""
    filter: bool = False
    """Have the reader report members, carts and staff only: no merchandise, and no tag that is in no class."""
    inputs: tuple[Input, ...] = ()
    """Door counters."""
    outputs: tuple[Output, ...] = ()
    """Lamps and beepers."""
    takeover: bool = False
    """Delete other programs' inventories (ROSpecs) from the reader if they stand in the way."""

    @model_validator(mode="after")
    def _llrp(self) -> Self:
        if self.region is not None and self.driver != "thingmagic":
            raise ValueError('region: only for driver = "thingmagic"')
        given = self.model_fields_set - {"id", "driver", "address", "antennas", "region"}
        if given and self.driver != "llrp":
            raise ValueError(f'{", ".join(sorted(given))}: only for driver = "llrp"')
        if self.address.startswith("listen://"):
            if self.identity is None:
                raise ValueError("listen:// needs the reader's identity")
            if self.pin is not None:
                raise ValueError(
                    "pin does not go with listen://, where a fingerprint alone can't be asked for: save the reader's "
                    "certificate as a PEM file and name that as ca"
                )
            if self.tls != (self.cert is not None) or (self.ca is not None and not self.tls):
                raise ValueError(
                    "with listen:// tls = true goes with cert and key, and with ca if readers have their own"
                )
        elif self.tls != ((self.ca is None) != (self.pin is None)):
            raise ValueError("tls = true goes with either ca or pin, and these with it")
        if (self.cert is None) != (self.key is None) or (self.cert is not None and not self.tls):
            raise ValueError("cert and key go together, and with tls = true")
        return self


class TagClass(Model):
    """Gives tags their class by GS1 scheme and company prefix, or by EPC prefix in hex; the first match wins."""

    class_: Annotated[PrintedClass, Field(alias="class")]
    scheme: Literal["sgtin-96", "sscc-96", "sgln-96", "grai-96", "giai-96", "gid-96", "gsrn-96", "gsrnp-96"] | None = (
        None
    )
    company_prefix: Annotated[str, Field(pattern=r"^[0-9]{6,12}$")] | None = None
    epc_prefix: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{1,124}$")] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.epc_prefix is None) == (self.scheme is None):
            raise ValueError("give either scheme (with company_prefix) or epc_prefix")
        if self.company_prefix is not None and self.scheme is None:
            raise ValueError("company_prefix needs a scheme, e.g. gsrn-96")
        if self.company_prefix is not None and self.scheme == "gid-96":
            raise ValueError("gid-96 has no company_prefix; use epc_prefix")
        return self


class Mqtt(Model):
    """The chain's broker."""

    url: Annotated[str, Field(pattern=r"^mqtts?://[^/\s]+$")]
    version: Literal["3.1.1", "5"] = "3.1.1"
    username: str | None = None
    password_file: FilePath | None = None
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None


class Database(Model):
    path: FilePath
    quota_mb: Annotated[Int, Field(ge=16, le=1 << 20)] = 2048
    checkpoint_s: Annotated[Number, Field(gt=0, le=60)] = 5.0
    """How often the engine's state and all that follows from it are committed, in one transaction."""
    keep_days: Annotated[Int, Field(ge=1, le=3660)] = 400
    """How long windows are kept; journeys and visits are kept 35 days longer than `returning_days`."""


class Calibration(Model):
    """What `tagtrail calibrate` has learnt of the store's antennas."""

    file: FilePath | None = None


class Web(Model):
    """The floor manager's page. On another address than loopback it wants users, and should have TLS."""

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$")] = "127.0.0.1:8080"
    cert: FilePath | None = None
    """Certificate (PEM, with its chain) of the page: with it and `key` the page speaks HTTPS only."""
    key: FilePath | None = None


class Thresholds(Model):
    """Definitions that people's numbers depend on; raise `def_version` with every change, aggregates carry it."""

    def_version: Annotated[Int, Field(ge=1, le=1_000_000_000)] = 1
    touch_s: Seconds = 5
    """Below: pass-by."""
    visit_s: Seconds = 30
    engaged_s: Seconds = 120
    join_gap_s: Annotated[Number, Field(ge=0, le=86_400)] = 30
    """Pieces of presence in one zone this close together are one visit."""
    journey_end_after_exit_s: Seconds = 900
    journey_end_silence_s: Seconds = 10800
    business_day_start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "04:00"
    assist_s: Seconds = 15
    returning_days: Annotated[Int, Field(ge=1, le=3660)] = 90
    small_cell: Annotated[Int, Field(ge=0, le=1000)] = 5
    suspect_s: Seconds = 28_800
    """So long in the store on one day: suspected staff, excluded and listed."""
    suspect_back_room_s: Seconds = 600
    """So long in back rooms on one day: the same. Well above what a neighbour's reads put there: a wall is thin."""
    stuck_s: Seconds = 14_400
    """So long on one day in at most two zones: a tag that lies somewhere, excluded and listed."""
    min_coverage: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """Windows of a zone that are less covered are unknown: no number is made of them."""
    recognition_ttl_s: Seconds = 300
    """How long a recognition is a cue; after that it is history."""
    lateness_s: Annotated[Number, Field(ge=0.25, le=60)] = 2
    """How late a read may arrive and still be put in its place (0.24 s was the worst seen on real readers)."""


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
Time = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Ids = Annotated[tuple[Id, ...], Field(min_length=1)]


class OpeningHours(Model):
    """When floors are open, by local time; of several that fit a day the last one holds. Without any: always."""

    open: Time
    close: Time
    """Not after `open`: on the next day."""
    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = WEEKDAYS
    floors: Ids | None = None
    """None: all."""


class SpecialDay(Model):
    """A business day with other hours, or closed if it has none."""

    date: dt.date
    name: Name | None = None
    open: Time | None = None
    close: Time | None = None
    floors: Ids | None = None
    """None: all."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.open is None) != (self.close is None):
            raise ValueError("give open and close, or neither for a day on which it is closed")
        return self


class QuietHours(Model):
    """A span of local time in which no cue is made; `end` not after `begin`: on the next day."""

    begin: Time
    end: Time


CueKind = Literal["arrival", "waiting"]


class CueRule(Model):
    """When the floor is told to go to a member; of several that fit a tier and a zone the first holds."""

    id: Id
    kind: CueKind
    tiers: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=32)], ...], Field(min_length=1)] | None = None
    """Tiers of the member directory; None: every tier."""
    zones: Ids | None = None
    """None: an arrival anywhere; a wait at every counter, fitting room and service desk."""
    wait_s: Seconds | None = None
    """For kind "waiting": so long without a staff badge in the zone is too long."""
    expires_s: Seconds = 300
    """After so long nobody needs to go any more; what is unattended then becomes a service case."""
    action: Name | None = None
    """What to do; None: a sentence of the page's own."""

    @model_validator(mode="after")
    def _wait(self) -> Self:
        if (self.wait_s is None) == (self.kind == "waiting"):
            raise ValueError('wait_s goes with kind = "waiting", and only with it')
        return self


class Cues(Model):
    """When to call somebody to a member. A manager may change these rules on the page; the last change holds."""

    quiet: Annotated[tuple[QuietHours, ...], Field(max_length=10)] = ()
    rules: Annotated[tuple[CueRule, ...], Field(max_length=20)] = ()


class _Tried(Model):
    id: Id
    name: Name
    zones: Ids
    controls: Ids | None = None
    """Zones that show what would have been; None: all counters that nothing was tried in."""

    @model_validator(mode="after")
    def _others(self) -> Self:
        if self.controls is not None and set(self.controls) & set(self.zones):
            raise ValueError("a zone can't be its own control")
        return self


class Promotion(_Tried):
    """A promotion in some zones, from its first business day to its last."""

    first_day: dt.date
    last_day: dt.date

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.last_day < self.first_day:
            raise ValueError("last_day is before first_day")
        return self


class LayoutChange(_Tried):
    """Zones that were moved or rebuilt before the store opened on a day."""

    date: dt.date


class ServiceTarget(Model):
    """What members of a tier are to be offered; reports tell how often it was kept."""

    tier: Annotated[str, Field(min_length=1, max_length=40)]
    wait_s: Seconds
    """Staff within so long of the start of a visit …"""
    assist_s: Seconds | None = None
    """… and for so long."""


class StoreConfig(Model):
    """One store: everything that its gateway needs to know.

    The models check each value; what values must be to each other (ids that exist, unique ports …) config.check does.
    """

    store: Store
    floors: Annotated[tuple[Floor, ...], Field(min_length=1)]
    zones: Annotated[tuple[Zone, ...], Field(min_length=1)]
    readers: tuple[Reader, ...] = ()
    tag_classes: tuple[TagClass, ...] = ()
    opening_hours: tuple[OpeningHours, ...] = ()
    special_days: tuple[SpecialDay, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    layout_changes: tuple[LayoutChange, ...] = ()
    service_targets: tuple[ServiceTarget, ...] = ()
    mqtt: Mqtt
    database: Database
    calibration: Calibration = Calibration()
    web: Web = Web()
    thresholds: Thresholds = Thresholds()
    cues: Cues = Cues()
