"""Shops, rooms and tracks that nothing was chosen by: the engine before and after learning, the peers, the oracle."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import body_worn
import pytest
import seconds
from drawn import JUDGING, Result, case, engine, learn, pooled, row

from simulators.shop.draws import SKETCHES

RULES = ("engine", "first2", "learnt")
ORACLE_SEEDS = 1
"""Of each shop: it takes half a minute each."""
BODY_WORN = os.environ.get("TAGTRAIL_UCI")
TRACKS = os.environ.get("TAGTRAIL_TRACKS")
Tell = Callable[[str, object], None]


def figures(result: Result) -> dict[str, float]:
    """What is told of a rule in a shop."""
    found = result.score
    return {
        "f1": round(found.f1, 4),
        "dwell": round(found.zone_dwell_wape, 4),
        "visit_dwell": round(found.dwell_wape, 4),
        "right": round(found.right_zone_share, 4),
        "ghosts": result.ghosts,
        "learnt_s": round(result.learnt_s, 1),
    }


@pytest.mark.benchmark_suite
@pytest.mark.parametrize("shop", range(len(SKETCHES)))
def test_drawn_shops(shop: int, record_property: Tell, capsys: Any) -> None:
    """Each row is a shop of five seeds, that is, of five plans, radios and crowds."""
    cases = [case(shop, seed) for seed in JUDGING]
    rows = [row(it, RULES) for it in cases]
    whole = pooled(rows)
    known = pooled([row(it, ("oracle",)) for it in cases[:ORACLE_SEEDS]])
    told: dict[str, Any] = {
        "shop": shop,
        "zones": [len(it.store.zones) for it in cases],
        "floors": SKETCHES[shop].floors,
        "aisles": SKETCHES[shop].aisles,
        "peer": {"name": whole.best, **figures(whole.peer)},
        "peers": {name: figures(result) for name, result in whole.peers.items()},
        "rules": {name: {"ratio": round(whole.ratio(name), 4), **figures(r)} for name, r in whole.rules.items()},
        "oracle": {"ratio": round(known.ratio("oracle"), 4), **figures(known.rules["oracle"])},
        "each": [{rule: round(one.ratio(rule), 4) for rule in RULES} for one in rows],
        "cost": max(one.rules["engine"].score.f1 - one.rules["learnt"].score.f1 for one in rows),
    }
    record_property("drawn", json.dumps(told))
    with capsys.disabled():
        ratios = ", ".join(f"{name} {told['rules'][name]['ratio']:.2f}" for name in RULES)
        print(f"\nshop {shop}: best peer {whole.best} {whole.peer.score.f1:.3f}; errors beside it: {ratios}", end="")
        print(f", with the true radio {told['oracle']['ratio']:.2f}")
    assert whole.ratio("learnt") < 1


@pytest.mark.benchmark_suite
def test_quadrants(record_property: Tell, capsys: Any) -> None:
    """One antenna a zone, and nothing is known of where."""
    rooms = [seconds.quadrants(seed) for seed in JUDGING]
    told = _told(rooms)
    record_property("seconds_right", json.dumps({"what": f"quadrants of {len(rooms)} drawn rooms", **told}))
    with capsys.disabled():
        print(f"\nquadrants: {_line(told)}")
    assert told["learnt"] > 0.5


@pytest.mark.benchmark_suite
@pytest.mark.skipif(not TRACKS, reason="TAGTRAIL_TRACKS names no folder; docs/benchmarks.md says where the data set is")
def test_tracks(record_property: Tell, capsys: Any) -> None:
    """Another radio than UHF, with true positions; learnt from the same reads, without labels."""
    hall = seconds.tracks(Path(str(TRACKS)))
    told = _told([hall]) | {"grids": seconds.on_grids(hall, engine, learn)}
    record_property("seconds_right", json.dumps({"what": "tracks in a hall", **told}))
    with capsys.disabled():
        print(f"\ntracks: {_line(told)}, {told['grids']:.3f} on {seconds.GRIDS} grids")
    assert told["learnt"] > 0.5
    few = seconds.alone(hall)
    told = _told(few)
    record_property("seconds_right", json.dumps({"what": f"one receiver per quadrant, {len(few)} choices", **told}))
    with capsys.disabled():
        print(f"one receiver per quadrant: {_line(told)}")


@pytest.mark.benchmark_suite
@pytest.mark.skipif(not BODY_WORN, reason="TAGTRAIL_UCI names no folder; docs/benchmarks.md says where the data set is")
def test_body_worn(record_property: Tell, capsys: Any) -> None:
    """Older people with a tag on the chest, two zones a room."""
    for room in body_worn.rooms(Path(str(BODY_WORN))):
        rows: list[dict[str, Any]] = [
            {"rule": "Tagtrail, out of the box", **room.decided(engine).as_dict()},
            {"rule": "Tagtrail, learnt", **room.decided(engine, learn).as_dict()},
            *(
                {"rule": f"{name}, {timeout_s} s", **found.as_dict()}
                for name, (timeout_s, found) in room.peers().items()
            ),
        ]
        record_property("recorded", json.dumps({"room": room.name, "rows": rows}))
        with capsys.disabled():
            print(f"\nroom {room.name}: " + ", ".join(f"{each['rule']} {each['f1']:.3f}" for each in rows), end="")
        assert rows[1]["f1"] > 0.5


def _told(recordings: list[seconds.Seconds]) -> dict[str, Any]:
    best = [{name: share for name, (_, share) in seconds.peers(it).items()} for it in recordings]
    return {
        "box": statistics.mean(seconds.decided(it, engine) for it in recordings),
        "learnt": statistics.mean(seconds.decided(it, engine, learn) for it in recordings),
        "knowing": statistics.mean(map(seconds.knowing, recordings)),
        "peers": {name: statistics.mean(each[name] for each in best) for name in best[0]},
    }


def _line(told: dict[str, Any]) -> str:
    learnt = f"{told['box']:.3f}, {told['learnt']:.3f} after learning, {told['knowing']:.3f} with hindsight"
    return f"{learnt}, best peer {max(told['peers'].values()):.3f}"
