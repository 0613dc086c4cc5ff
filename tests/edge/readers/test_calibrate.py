"""`tagtrail calibrate`: learns from a recording, writes a file that replay and run take, and judges by a walk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from config.check import load
from drivers.read import Reads
from dwell.layout import Layout
from dwell.markov import cells, fit, learning
from dwell.markov.learning import Learnt
from edge.cli.main import app
from edge.readers.calibrate import Result, Walk
from edge.store import calibration_file
from edge.store.compose import compose
from edge.store.errors import Trouble
from simulators.shop.replays import write_replay
from simulators.shop.score import read_stays
from simulators.shop.worlds import WORLDS

DEMO = Path(__file__).parents[3] / "config/demo.toml"


@pytest.fixture(scope="module", autouse=True)
def briefly() -> Iterator[None]:
    """Learn from less and not as long: these tests are about the command and its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "MOST_TICKS", 300)
        patch.setattr(fit, "SWEEPS", 2)
        yield


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reads.csv and truth.csv of five minutes."""
    folder = tmp_path_factory.mktemp("day")
    config = load(DEMO, files=False)
    write_replay(config, WORLDS["worn"], folder / "reads.csv", folder / "truth.csv", seed=11, minutes=5, shoppers=12)
    return folder


@pytest.fixture(scope="module")
def made(day: Path) -> Path:
    out = day / "calibration.json"
    result = tagtrail("calibrate", "--from", day / "reads.csv", "-c", DEMO, "--out", out)
    assert "explained better" in result
    assert "f1-doors" in result
    return out


def tagtrail(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if code and result.exception and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, Trouble)
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def walk_of(day: Path, path: Path, *, epc: bool) -> Path:
    """The stays of the tag that changed zones the most, as somebody with a clipboard writes them down."""
    by_tag: dict[str, list[tuple[str, int, int]]] = {}
    for stay in read_stays(day / "truth.csv"):
        if stay.exit_us - stay.enter_us > 15_000_000:
            by_tag.setdefault(stay.epc, []).append((stay.zone, stay.enter_us, stay.exit_us))
    walker = max(by_tag, key=lambda tag: len({zone for zone, _, _ in by_tag[tag]}))
    rows = [f"{zone},{a},{b}{',' + walker if epc else ''}" for zone, a, b in by_tag[walker]]
    path.write_text("\n".join(["zone,from,to" + ",epc" * epc, *rows]) + "\n")
    return path


def test_the_file_names_version_store_layout_and_every_antenna(made: Path) -> None:
    written = json.loads(made.read_text())
    assert written["tagtrail_calibration"] == 2
    assert written["store"] == "demo"
    config = load(DEMO, files=False)
    assert len(written["antennas"]) == sum(len(reader.antennas) for reader in config.readers)
    assert len({a["offset_db"] for a in written["antennas"]}) > 3
    assert all(0 < a["rate"] <= 1 for a in written["antennas"])
    assert written["level_1m_dbm"] > written["level_3m_dbm"]
    assert written["density_after"] >= written["density_before"]
    assert written["reads"] > written["seconds"] > written["tags"] > 10


def test_replay_takes_it_by_option_and_by_the_store_file(day: Path, made: Path, tmp_path: Path) -> None:
    def visits(*options: object, config: Path = DEMO) -> bytes:
        out = tmp_path / "visits.csv"
        tagtrail("replay", day / "reads.csv", "-c", config, "--visits", out, *options)
        return out.read_bytes()

    own = tmp_path / "store.toml"
    own.write_text(DEMO.read_text("utf-8") + f'\n[calibration]\nfile = "{made}"\n', "utf-8")
    plain, by_option = visits(), visits("--calibration", made)
    assert plain != by_option
    assert visits(config=own) == by_option


def test_it_is_learnt_afresh_whatever_the_store_uses(day: Path, made: Path, tmp_path: Path) -> None:
    own = tmp_path / "store.toml"
    own.write_text(DEMO.read_text("utf-8") + f'\n[calibration]\nfile = "{made}"\n', "utf-8")
    again = tmp_path / "again.json"
    tagtrail("calibrate", "--from", day / "reads.csv", "-c", own, "--out", again)
    assert again.read_bytes() == made.read_bytes()


@pytest.fixture(scope="module")
def learn_once() -> Callable[[Layout, Reads], Learnt]:
    """Learn, unless it has been learnt from the same reads."""
    learn, known = learning.learn, dict[bytes, Learnt]()

    def learnt(layout: Layout, reads: Reads) -> Learnt:
        key = reads.tobytes()
        if key not in known:
            known[key] = learn(layout, reads)
        return known[key]

    return learnt


@pytest.mark.parametrize("epc", [True, False])
def test_a_walk_is_scored_zone_by_zone(
    day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learn_once: object, epc: bool
) -> None:
    """The walker's tag is told or found, and what is learnt without it is the same."""
    monkeypatch.setattr(learning, "learn", learn_once)
    walk = walk_of(day, tmp_path / "walk.csv", epc=epc)
    told = tagtrail("calibrate", "--from", day / "reads.csv", "-c", DEMO, "--walk", walk)
    table = told[told.index("Walk test") :]
    for row in walk.read_text().splitlines()[1:]:
        assert row.split(",")[0] in table
    assert "%" in table


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("zone,from\nbags,1\n", "first line must be"),
        ("zone,from,to\nnowhere,1,2\n", "no zone 'nowhere'"),
        ("zone,from,to\nbags,2,1\n", "not after"),
        ("zone,from,to\nbags,noon,2\n", "neither a time"),
        ("zone,from,to\nbags,2026-01-31T10:00,2026-01-31T10:01\n", "no tag was heard"),
        ("zone,from,to\n", "no rows"),
    ],
)
def test_a_walk_that_cannot_be_is_told_in_a_line(day: Path, tmp_path: Path, text: str, reason: str) -> None:
    walk = tmp_path / "walk.csv"
    walk.write_text(text)
    assert reason in tagtrail("calibrate", "--from", day / "reads.csv", "-c", DEMO, "--walk", walk, code=1)


def test_a_calibration_of_another_layout_is_refused(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.toml"
    moved.write_text(
        DEMO.read_text("utf-8").replace("position = [2, 12.5]", "position = [2, 12.9]")
        + f'\n[calibration]\nfile = "{made}"\n',
        "utf-8",
    )
    with pytest.raises(Trouble, match="another layout"):
        compose(load(moved, files=False))


@pytest.mark.parametrize("text", ["", "[]", '{"tagtrail_calibration": 1}', '{"tagtrail_calibration": 1, "store": 1'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(text)
    shop = compose(load(DEMO, files=False))
    with pytest.raises(Trouble, match="is not a calibration"):
        calibration_file.load(file, "demo", shop.layout, shop.zones, shop.ports)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tagtrail_calibration": 1}, "version 1.*calibrate again"),
        ({"store": "other"}, "store 'other'"),
        ({"layout": "0"}, "another layout"),
        ({"slope_db": None}, "is not a calibration"),
        ({"slope_db": float("nan")}, "figures that are none"),
        ({"spread_db": 0}, "figures that are none"),
        ({"level_3m_dbm": float("inf")}, "figures that are none"),
        ({"density_after": float("nan")}, "figures that are none"),
        ({"antennas": []}, "another layout"),
        ({"antennas": [1]}, "is not a calibration"),
        ({"table_dbm": [[-50.0]]}, "figures that are none"),
        ({"table_dbm": [[-50.0], [1, 2]]}, "is not a calibration"),
    ],
)
def test_a_damaged_file_says_what_to_do(made: Path, tmp_path: Path, change: dict[str, object], reason: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(json.loads(made.read_text()) | change))
    shop = compose(load(DEMO, files=False))
    with pytest.raises(Trouble, match=reason):
        calibration_file.load(file, "demo", shop.layout, shop.zones, shop.ports)


def test_what_is_saved_is_loaded_with_and_without_positions(made: Path, tmp_path: Path) -> None:
    shop = compose(load(DEMO, files=False))
    first = calibration_file.load(made, "demo", shop.layout, shop.zones, shop.ports)
    again = tmp_path / "again.json"
    calibration_file.save(again, "demo", shop.layout, shop.zones, shop.ports, first)
    assert again.read_bytes() == made.read_bytes()
    zones = len(shop.zones)
    bare = replace(
        shop.layout,
        antenna_xy=np.zeros_like(shop.layout.antenna_xy),
        corner_zone=np.zeros(0, np.int16),
        corner_xy=np.zeros((0, 2), np.float32),
    )
    levels = np.full((len(shop.ports), len(cells.build(bare))), -61.25)
    assert levels.shape[1] >= zones
    levels[0, 1] = -np.inf
    learnt = replace(first, field=replace(first.field, table=levels))
    calibration_file.save(again, "demo", bare, shop.zones, shop.ports, learnt)
    found = calibration_file.load(again, "demo", bare, shop.zones, shop.ports)
    assert found.field.table is not None
    assert np.array_equal(found.field.table, levels)


def test_the_fingerprint_knows_zones_ports_and_places() -> None:
    shop = compose(load(DEMO, files=False))
    prints = [
        calibration_file.fingerprint(shop.layout, shop.zones, shop.ports),
        calibration_file.fingerprint(shop.layout, shop.zones[::-1], shop.ports),
        calibration_file.fingerprint(shop.layout, shop.zones, shop.ports[::-1]),
    ]
    assert all(a != b for a, b in pairwise(prints))


@pytest.mark.parametrize(
    ("density", "right", "better"), [(1.0, 8.0, True), (-1.0, 8.0, False), (1.0, 2.0, False), (1.0, None, True)]
)
def test_a_walk_that_becomes_worse_outweighs_the_reads(density: float, right: float | None, better: bool) -> None:
    before, after = (np.array([[r, 10.0 - r]]) for r in (5.0, right or 0.0))
    walk = None if right is None else Walk("", before, after, [], [])
    unused: Any = None
    learnt = calibration_file.Calibration(unused, 0, 0, 0, 0, 0.0, density)
    assert Result(unused, learnt, unused, unused, walk).better is better
