"""Suspected staff and stuck tags against a look at every second."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from dwell.layout import TagClass, ZoneKind
from dwell.stays import STAY, Place, Span, Stays
from dwell.suspects import BACK_ROOM, LONG, STUCK, Limits, suspicions

S = 1_000_000
K = ZoneKind
PLACE = Place(np.array([K.ENTRANCE, K.COUNTER, K.COUNTER, K.BACK_ROOM], np.uint8), np.zeros(4, np.int16), 1)
LIMITS = Limits(long_us=600 * S, back_room_us=30 * S, stuck_us=300 * S)
SPAN = Span(1_000 * S, 4_000 * S)


@st.composite
def stays(draw: st.DrawFn) -> Stays:
    rows = []
    for carrier in range(draw(st.integers(0, 6))):
        tag_class, at = draw(st.sampled_from((0, 1, 2, 3))), draw(st.integers(0, 3_500))
        zones = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
        for _ in range(draw(st.integers(1, 6))):
            long = draw(st.sampled_from((5, 29, 30, 120, 299, 300, 400)))
            rows.append((at * S, (at + long) * S, 0, carrier, draw(st.sampled_from(zones)), tag_class, 0))
            at += long + draw(st.integers(0, 50))
    return np.array(draw(st.permutations(rows)), STAY)


@settings(max_examples=examples(200), deadline=None)
@given(stays())
def test_suspicions_equal_a_look_at_every_second(given_: Stays) -> None:
    found = suspicions(given_, PLACE, SPAN, LIMITS)
    seconds = np.arange(SPAN.start_us, SPAN.end_us, S)
    for carrier in range(6):
        own = given_[given_["carrier"] == carrier]
        zone_of = np.full(len(seconds), -1)
        for stay in own:
            zone_of[(stay["enter_us"] <= seconds) & (seconds < stay["exit_us"])] = stay["zone"]
        there, behind = int((zone_of >= 0).sum()), int((zone_of == 3).sum())
        zones = len(set(zone_of.tolist()) - {-1})
        tag_class = TagClass(own["tag_class"][0]) if len(own) else TagClass.STAFF
        person = tag_class in (TagClass.UNKNOWN, TagClass.MEMBER)
        expect = [
            *([STUCK] if (person or tag_class is TagClass.CART) and 1 <= zones <= 2 and there >= 300 else []),
            *([LONG] if person and there >= 600 else []),
            *([BACK_ROOM] if person and behind >= 30 else []),
        ]
        assert list(found[carrier].reasons if carrier in found else ()) == expect
        if carrier in found:
            one = found[carrier]
            assert (one.present_us, one.back_room_us, one.zones) == (there * S, behind * S, zones)
