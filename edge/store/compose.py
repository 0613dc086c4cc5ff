"""The store file turned into the plain numbers that engine and drivers work with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from config.geometry import neighbours
from config.readers import RADIO_KEYS, Reader
from config.tags import shape
from drivers.session import Push, Radio, ReaderSettings, Tls
from dwell.layout import Layout, Settings, TagClass, ZoneKind
from dwell.markov.field import Field
from edge.store import calibration_file
from edge.store.calibration_file import Calibration
from edge.store.filters import selects

CLOCK_TOLERANCE_US = 100_000
"""A reader's clock this close to ours is taken as it is; in time of the wall."""


@dataclass(frozen=True)
class Shop:
    """A store in numbers: zone z is `zones[z]`; antenna a belongs to reader `antenna_reader[a]`."""

    config: StoreConfig
    layout: Layout
    settings: Settings
    zones: tuple[str, ...]
    zone_floor: tuple[str, ...]
    readers: tuple[ReaderSettings, ...]
    antennas_of: dict[str, NDArray[np.int64]]
    ports: tuple[tuple[str, int], ...]
    """Reader and port of each antenna."""
    calibration: Calibration | None = None
    """The one that the store file names."""

    @property
    def field(self) -> Field | None:
        """The store's radio as calibrated; None: not yet known."""
        return None if self.calibration is None else self.calibration.field

    @property
    def floors(self) -> tuple[str, ...]:
        """Floor f of the layout is `floors[f]`."""
        return tuple(floor.id for floor in self.config.floors)

    def fingerprint(self) -> str:
        """Changes with anything that gives the engine's state its meaning; with another radio it goes on."""
        digest = hashlib.sha256(repr((self.zones, self.settings)).encode())
        for name in Layout.__dataclass_fields__:
            digest.update(getattr(self.layout, name).tobytes())
        return digest.hexdigest()

    def classify(self, epc: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """(n,) TagClass of EPCs given as READ's words (n, 8), by the first rule that matches."""
        classes = np.full(len(epc), TagClass.UNKNOWN, np.uint8)
        rules = zip(self.layout.rule_mask, self.layout.rule_value, self.layout.rule_class, strict=True)
        for mask, value, class_ in reversed(list(rules)):
            classes[((epc & mask) == value).all(axis=1)] = class_
        return classes


def compose(config: StoreConfig, speed: float = 1.0) -> Shop:
    """Number zones, antennas and readers in the order of the file; `speed` is that of the store's clock.

    Trouble if the file names a calibration that can't be used.
    """
    zones = tuple(zone.id for zone in config.zones)
    number = {zone: index for index, zone in enumerate(zones)}
    floors = {floor.id: index for index, floor in enumerate(config.floors)}
    antennas = [(reader, antenna) for reader in config.readers for antenna in reader.antennas]
    ports: dict[str, dict[int, int]] = {reader.id: {} for reader in config.readers}
    for index, (reader, antenna) in enumerate(antennas):
        ports[reader.id][antenna.port] = index
    adjacent = np.zeros((len(zones), len(zones)), np.bool_)
    for zone, others in neighbours(config).items():
        for other in others:
            adjacent[number[zone], number[other]] = adjacent[number[other], number[zone]] = True
    rules = [(shape(rule), TagClass[rule.class_.upper()]) for rule in config.tag_classes]
    layout = Layout(
        antenna_zone=np.array([number[antenna.zone] for _, antenna in antennas], np.int16),
        antenna_xy=np.array([antenna.position for _, antenna in antennas], np.float32).reshape(-1, 2),
        antenna_height_m=np.array([antenna.height for _, antenna in antennas], np.float32),
        antenna_tilt_deg=np.array([antenna.tilt for _, antenna in antennas], np.float32),
        antenna_azimuth_deg=np.array([antenna.azimuth for _, antenna in antennas], np.float32),
        antenna_beam_deg=np.array([antenna.beam for _, antenna in antennas], np.float32),
        zone_kind=np.array([ZoneKind[zone.kind.name] for zone in config.zones], np.uint8),
        zone_floor=np.array([floors[zone.floor] for zone in config.zones], np.int16),
        neighbours=adjacent,
        rule_mask=np.array([_words(mask) for (mask, _), _ in rules], np.uint64).reshape(-1, 8),
        rule_value=np.array([_words(value) for (_, value), _ in rules], np.uint64).reshape(-1, 8),
        rule_class=np.array([class_ for _, class_ in rules], np.uint8),
        corner_zone=np.array([number[zone.id] for zone in config.zones for _ in zone.polygon], np.int16),
        corner_xy=np.array([corner for zone in config.zones for corner in zone.polygon], np.float32),
    )
    names = tuple((reader.id, antenna.port) for reader, antenna in antennas)
    calibration = None
    if config.calibration.file is not None:
        calibration = calibration_file.load(config.calibration.file, config.store.id, layout, zones, names)
    limits = config.thresholds
    tolerance_us = round(CLOCK_TOLERANCE_US * speed)
    settings = Settings(
        lateness_us=_us(limits.lateness_s),
        join_gap_us=_us(limits.join_gap_s),
        touch_us=_us(limits.touch_s),
        visit_us=_us(limits.visit_s),
        engaged_us=_us(limits.engaged_s),
        journey_end_after_exit_us=_us(limits.journey_end_after_exit_s),
        journey_end_silence_us=_us(limits.journey_end_silence_s),
        stuck_us=_us(limits.stuck_s),
    )
    return Shop(
        config=config,
        layout=layout,
        settings=settings,
        zones=zones,
        zone_floor=tuple(zone.floor for zone in config.zones),
        readers=tuple(_reader(r, ports[r.id], tolerance_us, config) for r in config.readers),
        antennas_of={r.id: np.array(sorted(ports[r.id].values()), np.int64) for r in config.readers},
        ports=names,
        calibration=calibration,
    )


def _reader(reader: Reader, ports: dict[int, int], tolerance_us: int, config: StoreConfig) -> ReaderSettings:
    tls = None
    if reader.tls or reader.ca is not None or reader.pin is not None:
        pin = reader.pin.replace(":", "").upper() if reader.pin is not None else None
        tls = Tls(reader.ca, pin, reader.cert, reader.key)
    identity = None
    if reader.identity is not None:
        identity = reader.identity.replace(":", "").replace("-", "").upper()
    return ReaderSettings(
        reader.id,
        reader.driver,
        reader.address,
        ports,
        tolerance_us,
        tls=tls,
        region=reader.region,
        identity=identity,
        profile=reader.profile,
        session=reader.session,
        search_mode=reader.search_mode,
        radio={
            each.port: Radio(None if each.power is None else round(100 * each.power), each.mode, each.population)
            for each in reader.antennas
            if any(getattr(each, key) is not None for key in RADIO_KEYS)
        },
        groups=reader.groups,
        group_s=reader.group_s,
        report_tags=reader.report_tags,
        phase=reader.phase,
        select=selects(config.tag_classes) if reader.filter else (),
        inputs=tuple(each.port for each in reader.inputs),
        outputs=tuple(each.port for each in reader.outputs),
        takeover=reader.takeover,
        push=_push(reader) if reader.driver == "json" else None,
    )


def _push(reader: Reader) -> Push:
    mapping = reader.mapping.model_dump(exclude_none=True) if reader.mapping is not None else {}
    return Push(
        reader.username,
        reader.password_file,
        reader.heartbeat_s,
        reader.holds,
        reader.preset,
        str(reader.source) if reader.source is not None else None,
        mapping,
    )


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _words(prefix: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(prefix.ljust(64, b"\0"), ">u8").astype(np.uint64)
