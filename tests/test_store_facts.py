"""Facts of every store stand in config/, and as numbers in dwell/, which may not import it; they are the same."""

from __future__ import annotations

from typing import get_args

import dwell.layout
import dwell.service
import dwell.stays
from config import Thresholds
from config.facts import COUNTED, DOORS, SERVED, TAG_CLASSES, WINDOW_US, PrintedClass, ZoneKind
from dwell.facts import FLOOR_FACTS, STORE_FACTS, ZONE_FACTS
from dwell.layout import Settings, TagClass
from dwell.stays import Place, Span
from simulators.shop.epcs import _DEFAULT_SCHEMES


def test_kinds_of_zones() -> None:
    assert {kind.name for kind in ZoneKind} == {kind.name for kind in dwell.layout.ZoneKind}
    assert {kind.name for kind in SERVED} == {kind.name for kind in dwell.service.SERVED}
    assert {kind.value for kind in DOORS} == {"entrance", "exit"}


def test_classes_of_tags() -> None:
    assert tuple(TagClass(number).name.lower() for number in range(len(TagClass))) == TAG_CLASSES
    assert set(get_args(PrintedClass)) == set(TAG_CLASSES) - {"unknown"} == set(_DEFAULT_SCHEMES)
    assert {tag_class.name.lower() for tag_class in dwell.stays.COUNTED} == set(COUNTED)
    for table in (ZONE_FACTS, FLOOR_FACTS, STORE_FACTS):
        assert set(COUNTED) < set(table.names or ())


def test_windows_and_thresholds() -> None:
    assert WINDOW_US == Settings.window_us == Span.window_us
    limits = Thresholds().model_dump()
    for model, least in ((Settings, 8), (Place, 4)):
        defaults = {name: us for name, us in vars(model).items() if name.endswith("_us") and isinstance(us, int)}
        defaults.pop("window_us", None)
        assert len(defaults) >= least
        assert defaults == {name: round(limits[name.removesuffix("us") + "s"] * 1e6) for name in defaults}
