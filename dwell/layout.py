"""What the engine knows of a store and of its definitions: plain numbers, made by whoever reads the store file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class ZoneKind(IntEnum):
    """What a zone is for."""

    ENTRANCE = 0
    EXIT = 1
    COUNTER = 2
    AISLE = 3
    FITTING_ROOM = 4
    CHECKOUT = 5
    SERVICE = 6
    BACK_ROOM = 7


class TagClass(IntEnum):
    """Whom or what a tag stands for."""

    UNKNOWN = 0
    MEMBER = 1
    CART = 2
    STAFF = 3
    MERCHANDISE = 4


@dataclass(frozen=True)
class Layout:
    """Zones, antennas and tag rules as arrays; Z zones, A antennas, R rules."""

    antenna_zone: NDArray[np.int16]
    """(A,) zone number that each antenna watches."""
    antenna_xy: NDArray[np.float32]
    """(A, 2) metres on the zone's floor."""
    zone_kind: NDArray[np.uint8]
    """(Z,) ZoneKind."""
    zone_floor: NDArray[np.int16]
    """(Z,) floor number."""
    neighbours: NDArray[np.bool_]
    """(Z, Z) symmetric: can one walk from one zone to the other without crossing a third."""
    rule_mask: NDArray[np.uint64]
    """(R, 8) bits of the EPC words that a rule looks at."""
    rule_value: NDArray[np.uint64]
    """(R, 8) what they must be."""
    rule_class: NDArray[np.uint8]
    """(R,) TagClass of the first rule that matches."""
    corner_zone: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    """(K,) zone that each corner of a polygon belongs to; without any, zones lie around their antennas."""
    corner_xy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    """(K, 2) metres on the zone's floor, in the order of each polygon."""
    antenna_height_m: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(A,) metres above the floor; left out: 2.5."""
    antenna_tilt_deg: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(A,) how far each antenna looks down, 90 straight at the floor; NaN or left out: unknown."""
    antenna_azimuth_deg: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(A,) where each antenna looks on the plan, clockwise from y; NaN or left out: unknown."""
    antenna_beam_deg: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(A,) width between the half-power points; NaN or left out: unknown."""

    def __post_init__(self) -> None:
        """ValueError if anything told of antennas doesn't have one figure an antenna."""
        antennas = len(self.antenna_zone)
        for name, neutral in (
            ("antenna_height_m", 2.5),
            ("antenna_tilt_deg", np.nan),
            ("antenna_azimuth_deg", np.nan),
            ("antenna_beam_deg", np.nan),
        ):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(antennas, neutral, np.float32))
            if len(getattr(self, name)) != antennas:
                raise ValueError(f"{name} must have {antennas} figures, one an antenna")


@dataclass(frozen=True)
class Settings:
    """Definitions that visits, journeys and windows depend on, in microseconds."""

    lateness_us: int = 2_000_000
    join_gap_us: int = 30_000_000
    touch_us: int = 5_000_000
    visit_us: int = 30_000_000
    engaged_us: int = 120_000_000
    journey_end_after_exit_us: int = 900_000_000
    journey_end_silence_us: int = 10_800_000_000
    window_us: int = 900_000_000
    stuck_us: int = 14_400_000_000
    """A longer visit is nobody's, but that of a card in a drawer or of somebody else's goods. Staff may stay."""

    def rest_us(self) -> NDArray[np.int64]:
        """By TagClass, the longest that a visit may be."""
        rest = np.full(len(TagClass), self.stuck_us, np.int64)
        rest[TagClass.STAFF] = np.iinfo(np.int64).max
        return rest
