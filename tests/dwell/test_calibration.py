"""Self-calibration finds what was put in: loud and rare antennas; a walk test is believed over the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dwell import calibration
from dwell.layout import Layout, Settings, TagClass
from dwell.read import READ, RSSI_UNKNOWN, Reads
from dwell.visits import VISIT

LOUD, RARE = 1, 6
SHOES, BAGS = 1, 2


@pytest.fixture(scope="module")
def day(walk: Any) -> Reads:
    """Forty people who stay in three zones each; antenna LOUD hears them 6 dB louder, RARE every third time."""
    rng = np.random.default_rng(3)
    parts = []
    for number in range(40):
        at = float(rng.uniform(0, 600))
        stays = []
        for zone in rng.choice([0, 1, 2, 3], 3, replace=False):
            stays.append((int(zone), at, at + 60.0))
            at += 70.0
        parts.append(walk(stays, number=number, seed=9, rate=2.0))
    reads = np.concatenate(parts)
    reads["rssi_cdbm"][reads["antenna"] == LOUD] += 600
    reads = reads[(reads["antenna"] != RARE) | (rng.random(len(reads)) < 1 / 3)]
    return reads[np.argsort(reads["time_us"], kind="stable")]


@pytest.fixture(scope="module")
def learnt(layout: Layout, settings: Settings, day: Reads) -> calibration.Calibration:
    return calibration.calibrate(layout, settings, day)


def test_the_loud_and_the_rare_antenna_are_found(learnt: calibration.Calibration) -> None:
    others = np.delete(np.arange(7), [LOUD, RARE])
    assert learnt.offset_db[LOUD] > learnt.offset_db[others].max() + 2
    assert learnt.rate[RARE] < 0.75 * np.median(learnt.rate[others])
    assert learnt.reads[7] < calibration.READS_WANTED, "nobody went upstairs"
    assert learnt.offset_db[7] == 0


def test_it_explains_reads_that_it_has_not_seen(
    layout: Layout, settings: Settings, day: Reads, learnt: calibration.Calibration
) -> None:
    half = int(np.median(day["time_us"]))
    first = calibration.calibrate(layout, settings, day[day["time_us"] < half])
    later = day[day["time_us"] >= half]
    before = calibration.likelihood(layout, settings, later)
    assert calibration.likelihood(first.apply(layout), settings, later) > before + 0.1


def test_the_order_of_reads_makes_no_difference(
    layout: Layout, settings: Settings, day: Reads, learnt: calibration.Calibration
) -> None:
    mixed = calibration.calibrate(layout, settings, day[np.random.default_rng(1).permutation(len(day))])
    assert np.allclose(mixed.offset_db, learnt.offset_db, atol=1e-6)
    assert np.allclose(mixed.rate, learnt.rate, atol=1e-6)


def test_without_rssi_the_shares_are_learnt_all_the_same(layout: Layout, settings: Settings, day: Reads) -> None:
    bare = day.copy()
    bare["rssi_cdbm"] = RSSI_UNKNOWN
    learnt = calibration.calibrate(layout, settings, bare)
    assert (learnt.offset_db == 0).all()
    assert learnt.rate[RARE] < 0.8


def test_nothing_to_learn_from_is_an_error(layout: Layout, settings: Settings) -> None:
    with pytest.raises(ValueError, match="no tag makes a visit"):
        calibration.calibrate(layout, settings, np.zeros(0, READ))


def test_a_walk_is_believed_over_the_engine(layout: Layout, settings: Settings, walk: Any) -> None:
    """Who is told that these people stood at the shoes finds the bags' antenna loud and theirs weak."""
    reads = np.concatenate([walk([(BAGS, 120.0 * n, 120.0 * n + 100)], number=n, rate=3.0) for n in range(8)])
    known = np.zeros(8, VISIT)
    for visit, epc in zip(known, np.unique(reads["epc"][:, 0]), strict=True):
        mine = reads[reads["epc"][:, 0] == epc]
        visit["epc"], visit["epc_bits"], visit["zone"] = mine["epc"][0], 96, SHOES
        visit["enter_us"], visit["exit_us"] = mine["time_us"].min(), mine["time_us"].max()
        visit["tag_class"] = TagClass.MEMBER
    alone = calibration.calibrate(layout, settings, reads)
    told = calibration.calibrate(layout, settings, reads, walk=known)
    assert told.offset_db[3] > alone.offset_db[3]
    assert told.offset_db[2] < alone.offset_db[2] - 1, "of the shoes, and hardly heard"


def test_findings_tell_own_from_near_and_how_long_silences_are(layout: Layout, settings: Settings, day: Reads) -> None:
    found = calibration.findings(layout, day, calibration.visits_of(layout, settings, day))
    assert found.own_dbm[1] > found.near_dbm[1]
    assert 0.3 < found.own_share < 1
    assert (np.diff(found.silence_s) >= 0).all()
    assert 0 <= found.silent_share < 0.5
