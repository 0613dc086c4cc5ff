"""Calibration figures of a layout: neutral when left out, one an antenna, and felt by the radio tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwell import radio, tables
from dwell.layout import Layout, Settings
from dwell.tuning import Tuning


def test_calibration_left_out_is_neutral(layout: Layout) -> None:
    antennas = len(layout.antenna_zone)
    assert (layout.antenna_offset_db == 0).all()
    assert (layout.antenna_rate == 1).all()
    assert len(layout.antenna_offset_db) == len(layout.antenna_rate) == antennas
    with pytest.raises(ValueError, match="antenna_rate must have"):
        replace(layout, antenna_rate=np.ones(antennas + 1, np.float32))


def test_antennas_hang_at_the_usual_height_and_look_nobody_knows_where_unless_told(layout: Layout) -> None:
    assert (layout.antenna_height_m == 2.5).all()
    for name in ("antenna_tilt_deg", "antenna_azimuth_deg", "antenna_beam_deg"):
        figures = getattr(layout, name)
        assert figures.dtype == np.float32
        assert figures.shape == layout.antenna_zone.shape
        assert np.isnan(figures).all()
    with pytest.raises(ValueError, match="antenna_height_m must have"):
        replace(layout, antenna_height_m=np.ones(1, np.float32))


def test_a_loud_antenna_is_expected_to_be_loud(layout: Layout) -> None:
    offset = np.zeros(len(layout.antenna_zone), np.float32)
    offset[0] = 3.0
    plain, calibrated = (
        radio.build(each, Settings(), Tuning()) for each in (layout, replace(layout, antenna_offset_db=offset))
    )

    def level(made: tables.Radio) -> dict[int, int]:
        return {int(made.cell[e]): int(made.step[e]) for e in range(made.row[0], made.row[1])}

    before, after = level(plain), level(calibrated)
    assert set(before) <= set(after)
    assert all(after[cell] - before[cell] == 3.0 / radio.LOUD_STEP_DB for cell in before)
    same = slice(plain.row[1], None), slice(calibrated.row[1], None)
    assert np.array_equal(plain.step[same[0]], calibrated.step[same[1]])


def test_a_rare_antenna_is_expected_to_be_rare(layout: Layout) -> None:
    rate = np.ones(len(layout.antenna_zone), np.float32)
    rate[0] = 0.5
    plain, calibrated = (
        radio.build(each, Settings(), Tuning()) for each in (layout, replace(layout, antenna_rate=rate))
    )
    mine = slice(0, plain.row[1])
    assert np.allclose(calibrated.rate[:, mine], np.maximum(plain.rate[:, mine] / 2, radio.MIN_RATE))
