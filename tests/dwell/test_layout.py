"""What a layout tells of its antennas: usual when left out, and one figure an antenna."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwell.layout import Layout


def test_antennas_hang_at_the_usual_height_and_look_nobody_knows_where_unless_told(layout: Layout) -> None:
    assert (layout.antenna_height_m == 2.5).all()
    for name in ("antenna_tilt_deg", "antenna_azimuth_deg", "antenna_beam_deg"):
        figures = getattr(layout, name)
        assert figures.dtype == np.float32
        assert figures.shape == layout.antenna_zone.shape
        assert np.isnan(figures).all()
    with pytest.raises(ValueError, match="antenna_height_m must have"):
        replace(layout, antenna_height_m=np.ones(1, np.float32))
