"""What minutes of reads say of a reader's settings, and what is proposed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.readers import Reader
from drivers.read import ANTENNA_UNKNOWN, READ, RSSI_UNKNOWN, epc_words
from drivers.session import Tables
from edge.readers import tuning
from edge.readers.tuning import Port, measure, propose
from edge.store.errors import Trouble
from edge.store.file_edit import edit

ZONES = {0: "shoes", 1: "shoes", 2: "bags"}
PORTS = {1: 0, 2: 1, 3: 2}
TABLES = Tables((1000, 2000, 3000), {0: 640_000, 1: 320_000, 2: 68_500, 3: 21_000, 1000: 40_000})


def reads(*rows: tuple[float, int, int, int]) -> Any:
    """Second, tag, antenna, RSSI in dBm or RSSI_UNKNOWN."""
    out = np.zeros(len(rows), READ)
    for at, (second, tag, antenna, dbm) in enumerate(rows):
        cdbm = dbm if dbm == RSSI_UNKNOWN else 100 * dbm
        out[at] = (round(1e6 * second), epc_words(tag.to_bytes(12)), antenna, cdbm, 1, 96)
    return out


def entry(session: int | None = None, **antenna: Any) -> Reader:
    hung = [{"port": port, "zone": ZONES[at], "position": [0, 0], **antenna} for port, at in PORTS.items()]
    given = {"id": "g", "driver": "llrp", "address": "x", "antennas": hung, "session": session}
    return Reader.model_validate({key: value for key, value in given.items() if value is not None})


GOOD = Port(1, "shoes", 5000, 8.0, 40, 10, 4.0, 0.05, 0.2)


def test_no_more_reads_are_kept_than_there_is_room_for() -> None:
    collected = tuning.Collected(most=5)
    for _ in range(3):
        assert not collected.full or len(collected.reads()) == 5
        collected.add("g", np.zeros(3, READ))
    assert collected.full
    assert len(collected.reads()) == 5


def test_ports_are_measured_by_second_and_tag() -> None:
    told = [(second, 1, 0, -50) for second in range(10) for _ in range(3)]
    told += [(second, 1, 2, -65) for second in range(0, 10, 2)]  # heard across the aisle
    told += [(second, 2, 2, -50) for second in (0, 1, 3, 4)]
    told += [(5, 9, ANTENNA_UNKNOWN, -40)]
    first, second, third = measure(reads(*told), PORTS, ZONES, 10)
    assert (first.reads, first.reads_per_s, first.tags, first.field) == (30, 3.0, 1, 1)
    assert (first.rate, first.missed, first.neighbours) == (3.0, 0.0, 0.0)
    assert (second.reads, second.tags, second.neighbours) == (0, 0, 0.0)
    assert math.isnan(second.rate)
    assert (third.reads, third.tags, third.field) == (9, 2, 2)
    assert third.neighbours == 5 / 9
    assert (third.rate, third.missed) == (0.75, 0.25)


def test_antennas_of_the_same_zone_are_no_neighbours() -> None:
    told = [(second, 1, antenna, dbm) for second in range(10) for antenna, dbm in ((0, -50), (1, -60))]
    assert [port.neighbours for port in measure(reads(*told), PORTS, ZONES, 10)] == [0, 0, 0]


def test_without_strength_the_antenna_with_most_reads_is_the_nearest() -> None:
    told = [(second, 1, 0, RSSI_UNKNOWN) for second in range(10) for _ in range(3)]
    told += [(second, 1, 2, RSSI_UNKNOWN) for second in range(10)]
    first, _, third = measure(reads(*told), PORTS, ZONES, 10)
    assert (first.neighbours, third.neighbours) == (0.0, 1.0)


def test_no_reads_are_measured_too() -> None:
    assert [port.reads for port in measure(np.zeros(0, READ), PORTS, ZONES, 0)] == [0, 0, 0]
    assert not propose(entry(), measure(np.zeros(0, READ), PORTS, ZONES, 0), TABLES)


@pytest.mark.parametrize(
    ("port", "given", "keys", "antenna"),
    [
        (GOOD, {"session": 0}, {}, {}),
        (GOOD, {}, {"session": 0}, {}),
        (replace(GOOD, field=5), {"session": 0}, {}, {"population": 8}),
        (replace(GOOD, field=20), {"session": 0}, {}, {}),
        (replace(GOOD, neighbours=0.4), {"session": 0, "population": 16}, {}, {"power": 27}),
        (replace(GOOD, neighbours=0.7), {"session": 0, "population": 16, "power": 14.0}, {}, {"power": 10}),
        (replace(GOOD, neighbours=0.7), {"session": 0, "population": 16, "power": 10.0}, {}, {}),
        (replace(GOOD, neighbours=0.0, rate=0.5), {"session": 0, "population": 16}, {}, {}),
        (replace(GOOD, neighbours=0, rate=0.5), {"session": 0, "population": 16, "power": 20}, {}, {"power": 23}),
        (replace(GOOD, missed=0.5), {"session": 0, "population": 16}, {}, {"mode": 2}),
        (replace(GOOD, missed=0.5), {"session": 0, "population": 16, "mode": 2}, {}, {"mode": 3}),
        (replace(GOOD, missed=0.5), {"session": 0, "population": 16, "mode": 1000}, {}, {}),
        (replace(GOOD, field=60, missed=0.5), {"session": 0, "population": 64}, {"session": 1}, {"mode": 1}),
        (replace(GOOD, field=150), {"session": 0, "population": 128}, {"session": 1}, {}),
        (replace(GOOD, reads_per_s=900), {"session": 0, "population": 16}, {"report_tags": 45}, {}),
        (replace(GOOD, reads=100, neighbours=0.9), {}, {}, {}),
    ],
)
def test_what_is_proposed(port: Port, given: dict[str, Any], keys: dict[str, Any], antenna: dict[str, Any]) -> None:
    done = propose(entry(**given), [port], TABLES)
    assert done.keys == keys
    assert done.antennas == ({1: antenna} if antenna else {})
    assert len(done.reasons) == len(keys) + len(antenna)


def test_without_tables_neither_power_nor_mode_is_proposed() -> None:
    done = propose(entry(session=0, population=16), [replace(GOOD, neighbours=0.9, missed=0.9)], Tables())
    assert not done


def test_of_other_families_only_the_session_is_proposed() -> None:
    """Nothing else can be set, in the store file or in most readers."""
    other = Reader.model_validate(entry().model_dump(exclude_unset=True) | {"driver": "tsl", "address": "/dev/x"})
    done = propose(other, [replace(GOOD, field=5, reads_per_s=1000, neighbours=0.9)], TABLES)
    assert (done.keys, done.antennas, len(done.reasons)) == ({"session": 0}, {}, 1)


def test_the_file_is_changed_only_if_it_stays_valid(tmp_path: Path) -> None:
    file = tmp_path / "store.toml"
    text = '[[readers]]\nid = "g"\n'
    file.write_text(text)
    with pytest.raises(Trouble, match="would not be valid"):
        edit(file, "g", {"session": 1}, {})
    assert file.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["store.toml"]
    with pytest.raises(Trouble, match="no reader"):
        edit(file, "other", {"session": 1}, {})


def test_columns_are_as_many_as_values() -> None:
    (row,) = tuning.rows([GOOD])
    assert len(row) == len(tuning.COLUMNS)
