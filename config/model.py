"""Models of the store file (TOML). Units stand in the names: `_s` seconds, `_mb` MiB, metres in polygons."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Letters, digits, dot, dash, underscore: an id stands in MQTT topics, file names and URLs."""


class Model(BaseModel):
    """Base: unknown keys are errors, since a misspelt key that is ignored is a setting that silently does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Names(Model):
    """A name in both languages of the page."""

    zh: str
    en: str


Name = str | Names


class ZoneKind(StrEnum):
    """What a zone is for; decides which thresholds and summaries apply to it."""

    ENTRANCE = "entrance"
    EXIT = "exit"
    COUNTER = "counter"
    AISLE = "aisle"
    FITTING_ROOM = "fitting_room"
    CHECKOUT = "checkout"
    SERVICE = "service"
    BACK_ROOM = "back_room"


def _timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"unknown time zone {name!r}; use an IANA name such as Asia/Shanghai or Europe/Berlin")
    return name


class Store(Model):
    """The shop itself."""

    id: Id
    name: Name
    timezone: Annotated[str, AfterValidator(_timezone)]

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


class Floor(Model):
    id: Id
    name: Name


Point = tuple[float, float]


class Zone(Model):
    """A named area; polygon in metres, at least three corners, on its floor's own coordinates."""

    id: Id
    name: Name
    kind: ZoneKind
    floor: Id
    polygon: Annotated[tuple[Point, ...], Field(min_length=3)]
    neighbours: tuple[Id, ...] | None = None
    """Zones one can walk to directly; absent: those whose polygons touch or lie within 3 m on the same floor."""


class Antenna(Model):
    """One antenna port of a reader, the zone it watches and where it hangs (metres)."""

    port: Annotated[int, Field(ge=1, le=64)]
    zone: Id
    position: Point


class Reader(Model):
    """A reader and its antennas. `address`: host, host:port, or a serial device such as /dev/rfid/gate-1."""

    id: Id
    driver: Literal["llrp", "thingmagic"]
    address: Annotated[str, Field(min_length=1)]
    antennas: Annotated[tuple[Antenna, ...], Field(min_length=1)]


class TagClass(Model):
    """Gives tags their class by GS1 scheme and company prefix, or by EPC prefix in hex; the first match wins."""

    class_: Annotated[Literal["member", "cart", "staff", "merchandise"], Field(alias="class")]
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
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Database(Model):
    path: Path
    quota_mb: Annotated[int, Field(ge=16)] = 2048
    checkpoint_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """How often the engine's state and all that follows from it are committed, in one transaction."""


class Web(Model):
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}$")] = "127.0.0.1:8080"


class Thresholds(Model):
    """Definitions that people's numbers depend on; raise `def_version` with every change, aggregates carry it."""

    def_version: Annotated[int, Field(ge=1)] = 1
    touch_s: Annotated[float, Field(gt=0)] = 5
    """Below: pass-by."""
    visit_s: Annotated[float, Field(gt=0)] = 30
    engaged_s: Annotated[float, Field(gt=0)] = 120
    join_gap_s: Annotated[float, Field(ge=0)] = 30
    """Pieces of presence in one zone this close together are one visit."""
    journey_end_after_exit_s: Annotated[float, Field(gt=0)] = 900
    journey_end_silence_s: Annotated[float, Field(gt=0)] = 10800
    business_day_start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "04:00"
    now_s: Annotated[float, Field(gt=0)] = 600
    assist_s: Annotated[float, Field(gt=0)] = 15
    returning_days: Annotated[int, Field(ge=1)] = 90
    small_cell: Annotated[int, Field(ge=0)] = 5
    recognition_ttl_s: Annotated[float, Field(gt=0)] = 300
    """How long a recognition is a cue; after that it is history."""
    lateness_s: Annotated[float, Field(ge=0.25, le=60)] = 2
    """How late a read may arrive and still be put in its place (0.24 s was the worst seen on real readers)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.touch_s < self.visit_s < self.engaged_s:
            raise ValueError("must rise: touch_s < visit_s < engaged_s")
        return self


class StoreConfig(Model):
    """One store: everything that its gateway needs to know."""

    store: Store
    floors: Annotated[tuple[Floor, ...], Field(min_length=1)]
    zones: Annotated[tuple[Zone, ...], Field(min_length=1)]
    readers: tuple[Reader, ...] = ()
    tag_classes: tuple[TagClass, ...] = ()
    mqtt: Mqtt
    database: Database
    web: Web = Web()
    thresholds: Thresholds = Thresholds()

    @field_validator("floors", "zones", "readers")
    @classmethod
    def _unique(cls, items: tuple[Floor | Zone | Reader, ...]) -> tuple[Floor | Zone | Reader, ...]:
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise ValueError(f"id {item.id!r} is used twice; ids must be unique")
            seen.add(item.id)
        return items
