"""What is told of antennas that drift and of tags that rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shopdays import store_values

from config import StoreConfig
from dwell.layout import TagClass
from dwell.visits import VISIT
from edge.readers.antennas import drifted, resting
from edge.store.compose import compose


def test_antennas_that_drift_are_named_from_three_db_on(tmp_path: Path) -> None:
    shop = compose(StoreConfig.model_validate(store_values(tmp_path)))
    drift = np.zeros(len(shop.ports))
    drift[0], drift[1], drift[2] = -3.42, 2.9, 3.0
    told = drifted(shop, drift)
    assert [(one["reader"], one["port"], one["drift_db"]) for one in told] == [
        (*shop.ports[0], -3.4),
        (*shop.ports[2], 3.0),
    ]
    assert told[0]["zone"] == shop.zones[int(shop.layout.antenna_zone[0])]


def test_what_an_installer_tells_of_antennas_is_in_the_layout(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    antennas = values["readers"][0]["antennas"]
    antennas[0] |= {"height": 3.2, "tilt": 60, "azimuth": 180, "beam": 65}
    layout = compose(StoreConfig.model_validate(values)).layout
    told = (layout.antenna_height_m, layout.antenna_tilt_deg, layout.antenna_azimuth_deg, layout.antenna_beam_deg)
    assert [float(each[0]) for each in told] == pytest.approx([3.2, 60, 180, 65])
    assert layout.antenna_height_m[1] == 2.5
    assert all(np.isnan(each[1]) for each in told[1:])


def test_tags_that_rest_are_told_without_saying_which(tmp_path: Path) -> None:
    shop = compose(StoreConfig.model_validate(store_values(tmp_path)))
    stuck = np.zeros(3, VISIT)
    stuck["zone"], stuck["enter_us"], stuck["tag_class"] = (2, -1, 1), (9, 5, 7), TagClass.CART
    stuck["epc"][:, 0] = 12345
    assert resting(shop, stuck) == [
        {"zone": shop.zones[1], "tag_class": "cart", "since_us": 7},
        {"zone": shop.zones[2], "tag_class": "cart", "since_us": 9},
    ]
