"""Models of the store file (TOML). Names carry units: `_s` seconds, `_mb` MiB; polygons are in metres."""

from __future__ import annotations

import datetime as dt
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    IPvAnyAddress,
    Tag,
    model_validator,
)

from config import timezones
from config.basis import FilePath, Id, Int, Metres, Model, Number, Point, Seconds
from config.facts import PrintedClass, ZoneKind
from config.forwarding import Forwarder, Forwarding, Standby
from config.mail import Mail
from config.readers import Reader

WayClass = Literal["member", "unknown", "cart", "staff"]


class Names(Model):
    """A name in both languages of the page."""

    zh: Annotated[str, Field(min_length=1)]
    en: Annotated[str, Field(min_length=1)]


NAME_TAGS = ("<text>", "<zh, en>")
"""Tags in the places that pydantic reports for errors within a name; they can't be confused with keys."""


def _name_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return NAME_TAGS[0]
    return NAME_TAGS[1] if isinstance(value, dict | Names) else None


Name = Annotated[
    Annotated[str, Field(min_length=1), Tag(NAME_TAGS[0])] | Annotated[Names, Tag(NAME_TAGS[1])],
    Discriminator(_name_tag, custom_error_type="name_type", custom_error_message="neither a text nor {zh, en}"),
]


def _timezone(name: str) -> str:
    if name not in timezones.known():
        near = timezones.meant(name)
        hint = f' (did you mean "{near}"?)' if near else ""
        raise ValueError(f'no time zone "{name}"{hint}; expected: an IANA name such as "Asia/Shanghai"')
    return name


class Store(Model):
    """The store itself."""

    id: Id
    """Id by which the CRM knows the store."""
    name: Name
    timezone: Annotated[str, AfterValidator(_timezone)]
    """Where the store is, such as "Asia/Shanghai"."""
    holidays: Literal["CN"] | None = None
    """Country whose public holidays and make-up working days are used to compare days; default: weekdays only."""

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


class FloorImage(Model):
    """A picture of a floor, shown faintly under its zones, and the area of the floor that it covers."""

    file: FilePath
    """A PNG, JPEG or SVG file of at most 2 MB, without anything that isn't a drawing."""
    left: Metres = 0.0
    """Where its left edge is, in metres."""
    bottom: Metres = 0.0
    width: Annotated[Number, Field(gt=0, le=10_000)]
    """Its size on the floor, in metres."""
    height: Annotated[Number, Field(gt=0, le=10_000)]


class Floor(Model):
    """A floor of the store, with coordinates of its own."""

    id: Id
    name: Name
    image: FloorImage | None = None
    """Picture of the floor, such as the architect's plan."""


class Zone(Model):
    """An area of a floor, such as a counter."""

    id: Id
    name: Name
    kind: ZoneKind
    floor: Id
    polygon: Annotated[tuple[Point, ...], Field(min_length=3)]
    """Its corners in order, at least three, as [x, y] in metres on its floor."""
    neighbours: tuple[Id, ...] | None = None
    """Zones that can be reached directly; default: zones that touch or are within 3 m on the same floor.
    If one zone lists another, they are neighbours of each other."""


class TagClass(Model):
    """Rule that assigns a class by GS1 scheme and company prefix, or by EPC prefix in hex; the first match wins."""

    class_: Annotated[PrintedClass, Field(alias="class")]
    scheme: Literal["sgtin-96", "sscc-96", "sgln-96", "grai-96", "giai-96", "gid-96", "gsrn-96", "gsrnp-96"] | None = (
        None
    )
    company_prefix: Annotated[str, Field(pattern=r"^[0-9]{6,12}$")] | None = None
    """GS1 company prefix of whoever numbers the tags; default: any."""
    epc_prefix: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{1,124}$")] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.epc_prefix is None) == (self.scheme is None):
            raise ValueError("use either scheme (with company_prefix) or epc_prefix")
        if self.company_prefix is not None and self.scheme is None:
            raise ValueError("company_prefix needs a scheme, e.g. gsrn-96")
        if self.company_prefix is not None and self.scheme == "gid-96":
            raise ValueError("gid-96 has no company_prefix; use epc_prefix")
        return self


class Mqtt(Model):
    """The chain's MQTT broker."""

    url: Annotated[str, Field(pattern=r"^mqtts?://[^/\s]+$")]
    """Its address: mqtts:// with TLS, mqtt:// without; then host, or host:port."""
    version: Literal["3.1.1", "5"] = "3.1.1"
    """Version of MQTT."""
    username: str | None = None
    password_file: FilePath | None = None
    """File that contains the password."""
    ca: FilePath | None = None
    """Certificates (PEM) of the CA that signed the broker's; default: those that the machine trusts."""
    cert: FilePath | None = None
    """The gateway's certificate (PEM), if the broker requires one; with `key`."""
    key: FilePath | None = None


class Database(Model):
    """The store's database: visits, windows, and events for the CRM."""

    path: FilePath
    quota_mb: Annotated[Int, Field(ge=16, le=1 << 20)] = 2048
    """Most space that it may take, in MB; when it is full, the oldest data is deleted early."""
    checkpoint_s: Annotated[Number, Field(gt=0, le=60)] = 5.0
    """Seconds between two commits; as much is computed again after a power cut."""
    keep_days: Annotated[Int, Field(ge=1, le=3660)] = 400
    """Days that figures are kept; visits and journeys are kept for `returning_days` + 35 days."""


class Calibration(Model):
    """Output of `tagtrail calibrate` for the store's antennas."""

    file: FilePath | None = None


class TierColour(Model):
    """Colour of a membership tier on the page."""

    tier: Annotated[str, Field(min_length=1, max_length=40)]
    colour: Annotated[str, Field(pattern="^#[0-9A-Fa-f]{6}$")]
    """As "#rrggbb". The text on it is black or white, whichever can be read better."""


class Web(Model):
    """The page for managers. Beyond this machine it requires users, and should use TLS."""

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$")] = "127.0.0.1:8080"
    """Address and port of the page."""
    cert: FilePath | None = None
    """Certificate (PEM, with its chain) of the page; with it and `key` the page uses HTTPS only."""
    key: FilePath | None = None
    public: Annotated[str, Field(pattern=r"^https?://[^/\s@]+$")] | None = None
    """Public address of the page behind a reverse proxy, such as "https://page.shop.example"."""
    proxies: Annotated[tuple[IPvAnyAddress, ...], Field(min_length=1)] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    """Addresses of that proxy. X-Forwarded-For and X-Forwarded-Proto are ignored from any other address."""
    tiers: tuple[TierColour, ...] = ()
    """Colours of membership tiers; others are grey."""

    @model_validator(mode="after")
    def _one_colour_each(self) -> Self:
        if len({one.tier for one in self.tiers}) < len(self.tiers):
            raise ValueError("tiers: a tier has two colours")
        return self


class Monitoring(Model):
    """Health and metrics for programs on this machine. They need no login, and name nobody."""

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$")] | None = None
    """Loopback address and port, such as "127.0.0.1:9464"; default: only the Unix socket beside the database."""


class Privacy(Model):
    """Data sent to the CRM in addition to journeys of members with consent and totals of everyone."""

    ways: tuple[WayClass, ...] = ()
    """Tag classes whose paths are sent to the CRM: once a day, with the number of journeys of each path, and only paths
    taken by at least `small_cell` carriers."""


class Thresholds(Model):
    """Limits by which people's figures are counted; increase `def_version` with every change. Times ending in _s are
    seconds."""

    def_version: Annotated[Int, Field(ge=1, le=1_000_000_000)] = 1
    touch_s: Seconds = 5
    """Shorter visits are pass-bys; from `visit_s` on they are visits, from `engaged_s` on engaged ones."""
    visit_s: Seconds = 30
    engaged_s: Seconds = 120
    join_gap_s: Annotated[Number, Field(ge=0, le=86_400)] = 30
    """Periods of presence in one zone with at most this gap are one visit."""
    journey_end_after_exit_s: Seconds = 900
    """A journey is over when the carrier was last seen at an exit so long ago …"""
    journey_end_silence_s: Seconds = 10800
    """… or anywhere so long ago."""
    business_day_start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "04:00"
    assist_s: Seconds = 15
    returning_days: Annotated[Int, Field(ge=1, le=3660)] = 90
    """Members seen in so many days before are returning."""
    small_cell: Annotated[Int, Field(ge=0, le=1000)] = 5
    """Figures of fewer people are not shown and not sent."""
    suspect_s: Seconds = 28_800
    """Time in the store on one day from which a tag is suspected staff, excluded and listed."""
    suspect_back_room_s: Seconds = 600
    """Time in back rooms on one day with the same effect. Well above what reads through a wall amount to."""
    stuck_s: Seconds = 14_400
    """Time on one day in at most two zones from which a tag is stuck, excluded and listed."""
    min_coverage: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """Windows of a zone with less coverage are unknown and not used for figures."""
    recognition_ttl_s: Seconds = 300
    """Time for which a recognition is actionable; after that it is history."""
    lateness_s: Annotated[Number, Field(ge=0.25, le=60)] = 2
    """Maximum delay of a read that is still processed in order (the maximum seen on real readers was 0.24 s)."""


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
Time = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Ids = Annotated[tuple[Id, ...], Field(min_length=1)]


class OpeningHours(Model):
    """Opening hours of floors in local time; the last entry that matches a day applies. Default: always open."""

    open: Time
    close: Time
    """If not after `open`: on the next day."""
    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = WEEKDAYS
    floors: Ids | None = None
    """Default: all floors."""


class SpecialDay(Model):
    """A business day with different hours, or closed all day."""

    date: dt.date
    name: Name | None = None
    open: Time | None = None
    close: Time | None = None
    floors: Ids | None = None
    """Default: all floors."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.open is None) != (self.close is None):
            raise ValueError("set both open and close, or neither for a closed day")
        return self


class QuietHours(Model):
    """A period of local time without cues; if `end` is not after `begin`, it ends on the next day."""

    begin: Time
    end: Time


CueKind = Literal["arrival", "waiting"]


class CueRule(Model):
    """Rule for asking staff to attend to a member; the first rule that matches tier and zone applies."""

    id: Id
    kind: CueKind
    tiers: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=32)], ...], Field(min_length=1)] | None = None
    """Tiers in the member directory; default: all tiers."""
    zones: Ids | None = None
    """Default: for arrivals, all zones; for waits, all counters, fitting rooms and service desks."""
    wait_s: Seconds | None = None
    """For kind "waiting": allowed time without a staff badge in the zone."""
    expires_s: Seconds = 300
    """Lifetime of the cue; if it is unattended by then, it becomes a service case."""
    action: Name | None = None
    """Instruction for staff; default: the page's default text."""

    @model_validator(mode="after")
    def _wait(self) -> Self:
        if (self.wait_s is None) == (self.kind == "waiting"):
            raise ValueError('wait_s is required for kind = "waiting", and allowed only there')
        return self


class Cues(Model):
    """Rules for asking staff to attend to members. Managers can edit them on the page; the latest change applies."""

    quiet: Annotated[tuple[QuietHours, ...], Field(max_length=10)] = ()
    rules: Annotated[tuple[CueRule, ...], Field(max_length=20)] = ()


class _Tried(Model):
    id: Id
    name: Name
    zones: Ids
    controls: Ids | None = None
    """Control zones; default: all counters without a promotion or change."""

    @model_validator(mode="after")
    def _others(self) -> Self:
        if self.controls is not None and set(self.controls) & set(self.zones):
            raise ValueError("a zone can't be its own control")
        return self


class Promotion(_Tried):
    """A promotion in some zones, from its first to its last business day."""

    first_day: dt.date
    last_day: dt.date

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.last_day < self.first_day:
            raise ValueError("last_day is before first_day")
        return self


class LayoutChange(_Tried):
    """A layout change: zones that were moved or rebuilt before the store opened on a day."""

    date: dt.date


class ServiceTarget(Model):
    """Service targets for members of a tier; reports show how often they are met."""

    tier: Annotated[str, Field(min_length=1, max_length=40)]
    wait_s: Seconds
    """Time from the start of a visit within which staff should arrive."""
    assist_s: Seconds | None = None
    """Time that staff should stay."""


class StoreConfig(Model):
    """Complete configuration of one store.

    The models validate single values; config.check validates relations between them (existing ids, unique ports …).
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
    forwarders: tuple[Forwarder, ...] = ()
    forwarding: Forwarding | None = None
    standby: Standby | None = None
    mqtt: Mqtt
    database: Database
    calibration: Calibration = Calibration()
    web: Web = Web()
    monitoring: Monitoring = Monitoring()
    mail: Mail | None = None
    privacy: Privacy = Privacy()
    thresholds: Thresholds = Thresholds()
    cues: Cues = Cues()
