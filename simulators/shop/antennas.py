"""Real mounting of antennas, which a store file describes only in part or inexactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from config import StoreConfig
from simulators.shop.plan import Floats, Ints, Plan

HEIGHT_M = 2.4
"""Height of an antenna if the store file has none."""


@dataclass(frozen=True)
class Antennas:
    """Antenna ports of a store, numbered in the file's order."""

    reader: Ints
    port: Ints
    zone: Ints
    floor: Ints
    place: Floats
    """(A, 3) metres; the height is above the antenna's own floor."""
    look: Floats
    """(A, 3) unit vectors of direction; zero without one."""
    beam: Floats
    """(A,) radians between the half-power points; NaN: unknown, but less is heard behind than in front."""

    @staticmethod
    def of(config: StoreConfig, plan: Plan) -> Antennas:
        """Create from a store file. Where it leaves the direction open, antennas off the centre of their zone point at
        it."""
        rows = [(i, a) for i, r in enumerate(config.readers) for a in r.antennas]
        number = {id_: i for i, id_ in enumerate(plan.ids)}
        zone = np.array([number[a.zone] for _, a in rows], np.int64)
        heights = [a.height if "height" in a.model_fields_set else HEIGHT_M for _, a in rows]
        place = np.array([(*a.position, h) for (_, a), h in zip(rows, heights, strict=True)], float).reshape(-1, 3)
        ahead = plan.centres[zone] - place[:, :2] if rows else place[:, :2]
        compass = np.where(np.hypot(*ahead.T) > 0.75, np.degrees(np.arctan2(ahead[:, 0], ahead[:, 1])), np.nan)
        told = np.array([(a.azimuth, a.tilt, a.beam) for _, a in rows], float).reshape(-1, 3)
        azimuth = np.where(np.isnan(told[:, 0]), compass, told[:, 0])
        return Antennas(
            np.array([reader for reader, _ in rows], np.int64),
            np.array([a.port for _, a in rows], np.int64),
            zone,
            plan.floors[zone] if rows else zone,
            place,
            direction(azimuth, np.nan_to_num(told[:, 1])),
            np.radians(told[:, 2]),
        )


def direction(azimuth_deg: Floats, tilt_deg: Floats) -> Floats:
    """Compute unit vectors (A, 3); zero where the azimuth is NaN, unless pointing straight up or down."""
    azimuth, tilt = np.radians(azimuth_deg), np.radians(tilt_deg)
    level = np.cos(tilt)
    made = np.stack([np.sin(azimuth) * level, np.cos(azimuth) * level, -np.sin(tilt)], axis=-1)
    steep = np.abs(tilt_deg) > 89
    made[steep] = np.stack([0 * tilt, 0 * tilt, -np.sign(tilt)], axis=-1)[steep]
    return np.where(np.isnan(made).any(axis=-1, keepdims=True), 0.0, made)
