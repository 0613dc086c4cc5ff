"""Models of the readers in a store file."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, IPvAnyAddress, model_validator

from config.basis import FilePath, Id, Int, Model, Number, Point


class Antenna(Model):
    """An antenna of a reader."""

    port: Annotated[Int, Field(ge=1, le=64)]
    """Port of the reader that it is connected to, as printed on the reader."""
    zone: Id
    """The zone it covers."""
    position: Point
    """Where it hangs, as [x, y] in metres on the zone's floor."""
    height: Annotated[Number, Field(ge=0, le=50)] = 2.5
    """Metres above the floor."""
    tilt: Annotated[Number, Field(ge=-90, le=90)] | None = None
    """Degrees downwards: 90 is straight down, 0 is horizontal; default: unknown."""
    azimuth: Annotated[Number, Field(ge=-360, le=360)] | None = None
    """Direction on the plan, in degrees as on a compass: 0 along y, 90 along x; default: unknown."""
    beam: Annotated[Number, Field(gt=0, le=360)] | None = None
    """Beam width in degrees, as in the data sheet; default: unknown."""
    power: Annotated[Number, Field(ge=-10, le=40)] | None = None
    """LLRP: transmit power in dBm, rounded down to one of the reader's own; default: as configured on the reader."""
    mode: Annotated[Int, Field(ge=0, le=65535)] | None = None
    """LLRP: number of a mode of the reader, as shown by readers test; default: as configured on the reader."""
    population: Annotated[Int, Field(ge=1, le=65535)] | None = None
    """LLRP: number of tags to expect in its field; with the reader's session."""


class Input(Model):
    """A light barrier or door contact at an input (GPI); each change to active is a passage."""

    port: Annotated[Int, Field(ge=1, le=64)]
    zone: Id
    """Zone of the door."""
    active: Literal["high", "low"] = "high"
    debounce_s: Annotated[Number, Field(ge=0, le=60)] = 0.1
    """Time the input must be quiet before the next passage counts."""


class Output(Model):
    """A lamp or beeper at an output (GPO), switched on when a member of certain tiers enters a zone."""

    port: Annotated[Int, Field(ge=1, le=64)]
    zone: Id
    tiers: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(min_length=1)]
    """Tiers of the members that are announced."""
    seconds: Annotated[Number, Field(ge=0.5, le=600)] = 10
    """How long it stays on."""


Driver = Literal[
    "llrp",
    "json",
    "thingmagic",
    "r2000",
    "uhfreader18",
    "chafon-cf",
    "m100",
    "chainway",
    "hopeland",
    "gx",
    "nordicid",
    "tsl",
    "metratec",
]
Region = Literal["na", "eu", "kr", "in", "jp", "prc", "eu2", "eu3", "kr2", "prc2", "au", "nz", "na2", "na3"]
"""Region names used by ThingMagic: prc is China, 920 to 925 MHz; eu3 is Europe, 865 to 868 MHz; na is FCC."""
SERIAL_DRIVERS = frozenset(get_args(Driver)) - {"llrp", "json"}
LLRP_PROFILES = ("generic", "impinj", "zebra", "thingmagic", "alien", "kathrein", "slow")
JSON_PROFILES = ("generic", "impinj", "zebra", "keonn", "speedway")
JSON_KEYS = frozenset({"username", "password_file", "heartbeat_s", "holds", "preset", "source", "mapping"})
NETWORK_KEYS = frozenset({"identity", "tls", "ca", "pin", "cert", "key", "profile", "phase"})
"""Keys for llrp and json."""
RADIO_KEYS = ("power", "mode", "population")
"""Keys of antennas for llrp."""
STREAM_SCHEMES = ("http://", "https://", "ws://", "wss://")
JSON_SCHEMES = (*STREAM_SCHEMES, "mqtt://", "mqtts://", "listen://")

Pointer = Annotated[str, Field(pattern=r"^(/([^~/]|~[01])+)+$", max_length=200)]
"""JSON pointer through objects, such as "/data/idHex"."""


class JsonMapping(Model):
    """Where the values of a read are, for JSON in a format of its own. Pointers start at the read; what it lacks is
    looked up in the message around it."""

    reads: Pointer | None = None
    """Pointer to the list of reads in a message; default: a message is one read."""
    epc: Pointer
    epc_as: Literal["hex", "base64"] = "hex"
    antenna: Pointer | None = None
    rssi: Pointer | None = None
    rssi_unit: Literal["dbm", "cdbm"] = "dbm"
    time: Pointer | None = None
    """ISO 8601, or a number since 1970 in seconds, ms, µs or ns, which are told apart by their size."""
    count: Pointer | None = None
    sequence: Pointer | None = None
    """A number that increases by one with each read or message: gaps in it are reported."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        given = [
            value for name in ("epc", "antenna", "rssi", "time", "count", "sequence") if (value := getattr(self, name))
        ]
        for one in given:
            if any(other.startswith(f"{one}/") for other in given):
                raise ValueError(f"{one} can't be a value and lead to another one")
        return self


class Reader(Model):
    """A reader and its antennas.

    `address`: llrp host or host:port, or listen://host:port if the reader connects to the gateway;
    json http(s):// or ws(s)://host/path, mqtt(s)://broker/topic, or listen://host:port/path if the reader posts;
    serial /dev/rfid/gate-1 or tcp://host:port. `region` is for thingmagic; the keys from `username` on are for json,
    `identity` to `profile` and `phase` for llrp and json, all others for llrp.
    """

    id: Id
    driver: Driver
    address: Annotated[str, Field(min_length=1)]
    antennas: Annotated[tuple[Antenna, ...], Field(min_length=1)]
    via: Id | None = None
    """Forwarder at which the reader is; default: the gateway that runs the service."""
    region: Region | None = None
    """Region to set. By default the reader keeps its own; a reader without one is set to China (prc)."""
    identity: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5,15}$")] | None = None
    """The reader's MAC address (or EPC) in hex; a different reader at this address is not used."""
    tls: bool = False
    """Use TLS, default port 5085; with `ca` or `pin`, or for listen:// with `cert` and `key`."""
    ca: FilePath | None = None
    """Certificate (PEM) of the CA of the reader's certificate, which must contain the address."""
    pin: Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")] | None = None
    """SHA-256 fingerprint of the reader's own certificate."""
    cert: FilePath | None = None
    """The gateway's certificate (PEM), for readers that require one or connect to the gateway; with `key`."""
    key: FilePath | None = None
    profile: (
        Literal["generic", "impinj", "zebra", "thingmagic", "alien", "kathrein", "slow", "keonn", "speedway"] | None
    ) = None
    """Vendor profile; llrp: detected from the reader by default; json: required."""
    session: Annotated[Int, Field(ge=0, le=3)] | None = None
    """Gen2 session; default: as configured on the reader."""
    search_mode: Literal["reader", "single", "dual", "tagfocus"] | None = None
    """Impinj's search mode; default: as configured on the reader."""
    groups: tuple[tuple[Annotated[Int, Field(ge=1, le=64)], ...], ...] = ()
    """Antenna ports to search together, a group after the other, for hubs that can't have all at once."""
    group_s: Annotated[Number, Field(ge=0.1, le=60)] = 1
    """Time for each group."""
    report_tags: Annotated[Int, Field(ge=1, le=64)] = 1
    """Number of tags that the reader gathers for a report; above 1 a lone tag is reported late."""
    phase: bool = False
    """Request the phase in Impinj's reports, or keep it from JSON, for captures; it is not used otherwise."""
    filter: bool = False
    """Make the reader report only members, carts and staff: no merchandise, and no tags without a class."""
    inputs: tuple[Input, ...] = ()
    """Door counters at the reader's inputs."""
    outputs: tuple[Output, ...] = ()
    """Lamps and beepers at the reader's outputs."""
    takeover: bool = False
    """Delete other programs' inventories (ROSpecs) from the reader if they conflict with ours."""
    username: Annotated[str, Field(min_length=1)] | None = None
    """User name at the reader or the broker; with listen:// the one that the reader sends."""
    password_file: FilePath | None = None
    """File with the password; without `username` a token."""
    heartbeat_s: Annotated[Number, Field(ge=1, le=3600)] | None = None
    """Interval at which the reader sends something even without tags: it is down after two of them without anything."""
    holds: bool = False
    """The reader, or the broker for it, stores what can't be delivered, and delivers it later."""
    preset: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """Impinj: inventory preset to start, such as "default"."""
    source: IPvAnyAddress | None = None
    """With listen://, the only address that may send."""
    mapping: JsonMapping | None = None
    """For profile = "generic"."""

    @model_validator(mode="after")
    def _family(self) -> Self:
        if self.region is not None and self.driver != "thingmagic":
            raise ValueError('region: only for driver = "thingmagic"')
        radio = {key for each in self.antennas for key in RADIO_KEYS if getattr(each, key) is not None}
        if radio and self.driver != "llrp":
            raise ValueError(f'antennas: {", ".join(sorted(radio))}: only for driver = "llrp"')
        if "population" in radio and self.session is None:
            raise ValueError("population of antennas needs the reader's session")
        given = self.model_fields_set - {"id", "driver", "address", "antennas", "via", "region"}
        if self.driver == "json":
            if wrong := given - JSON_KEYS - NETWORK_KEYS:
                raise ValueError(f'{", ".join(sorted(wrong))}: only for driver = "llrp"')
            return self._json()
        fields = type(self).model_fields
        if wrong := {key for key in given & JSON_KEYS if getattr(self, key) != fields[key].default}:
            raise ValueError(f'{", ".join(sorted(wrong))}: only for driver = "json"')
        given -= JSON_KEYS
        if given and self.driver != "llrp":
            raise ValueError(f'{", ".join(sorted(given))}: only for driver = "llrp"')
        self._check_groups()
        if self.profile not in (None, *LLRP_PROFILES):
            raise ValueError(f'profile = "{self.profile}": only for driver = "json"')
        if self.address.startswith("listen://"):
            if self.identity is None:
                raise ValueError("listen:// needs the reader's identity")
            if self.pin is not None:
                raise ValueError(
                    "pin can't be used with listen://: save the reader's certificate as a PEM file "
                    "and set ca to that file"
                )
            if self.tls != (self.cert is not None) or (self.ca is not None and not self.tls):
                raise ValueError("with listen://, tls = true requires cert and key, and allows ca")
        elif self.tls != ((self.ca is None) != (self.pin is None)):
            raise ValueError("tls = true requires either ca or pin, and these require tls = true")
        if (self.cert is None) != (self.key is None) or (self.cert is not None and not self.tls):
            raise ValueError("cert and key must be used together, and with tls = true")
        return self

    def _check_groups(self) -> None:
        grouped = [port for group in self.groups for port in group]
        ports = {each.port for each in self.antennas}
        if self.groups and (len(self.groups) < 2 or not all(self.groups)):
            raise ValueError("groups: two or more, with a port or more each")
        if self.groups and (set(grouped) != ports or len(grouped) != len(ports)):
            raise ValueError("groups: each port of antennas belongs to one group")

    def _json(self) -> Self:
        scheme = next((each for each in JSON_SCHEMES if self.address.startswith(each)), None)
        if scheme is None:
            raise ValueError(f"address must begin with {', '.join(JSON_SCHEMES)}")
        if self.profile not in JSON_PROFILES:
            raise ValueError(f"driver json needs a profile: {', '.join(JSON_PROFILES)}")
        if (self.mapping is not None) != (self.profile == "generic"):
            raise ValueError('profile = "generic" needs a mapping, and only this profile has one')
        listens = scheme == "listen://"
        if not listens and self.tls:
            raise ValueError("tls is only for listen://; otherwise write https://, wss:// or mqtts://")
        secure = self.tls if listens else scheme in ("https://", "wss://", "mqtts://")
        if not secure and any((self.ca, self.pin, self.cert, self.key)):
            raise ValueError(
                "ca, pin, cert and key require TLS: https://, wss://, mqtts://, or listen:// with tls = true"
            )
        if listens and secure != (self.cert is not None):
            raise ValueError("with listen://, tls = true requires cert and key, and allows ca")
        if not listens and secure and (self.ca is None) == (self.pin is None):
            raise ValueError("https://, wss:// and mqtts:// require either ca or pin")
        if self.pin is not None and scheme in ("mqtts://", "listen://"):
            raise ValueError("pin can't be used with mqtts:// or listen://; use ca")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key must be used together")
        if self.preset is not None and (self.profile != "impinj" or not scheme.startswith("http")):
            raise ValueError('preset: only for profile = "impinj" and an address with http:// or https://')
        if self.source is not None and not listens:
            raise ValueError("source: only for listen://")
        if self.username is not None and self.password_file is None:
            raise ValueError("username needs a password_file")
        return self
