"""Replay: the same rows give the same bytes, and malformed ones are told with their line."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
from gateways import Gateway, antennas, member_card
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from config.check import load
from drivers.read import Reads
from dwell.layout import Layout
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.markov.learning import Learnt
from dwell.read import SHORT
from edge.readers import read_file
from edge.readers.read_file import BLOCK, HEADER, Report, chunks
from edge.readers.replay import replay
from edge.readers.visit_file import VisitFile
from edge.store.compose import Shop, compose
from edge.store.errors import Trouble

T0 = 1_800_000_000_000_000


@pytest.fixture
def shop(gateway: Gateway) -> Shop:
    gateway.configure(
        readers=[
            {"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes", "bags", "out")},
        ]
    )
    return compose(load(gateway.file))


def rows(seed: int = 1, minutes: float = 4, tags: int = 6) -> list[str]:
    """Tags that stay in zones for a while, with strays, unknown RSSI, rows that come late and some too late."""
    rng = np.random.default_rng(seed)
    out: list[tuple[float, str]] = []
    for tag in range(tags):
        t = T0 + int(rng.integers(0, 20_000_000))
        while t < T0 + minutes * 60e6:
            port, stay = int(rng.integers(1, 5)), float(rng.exponential(60e6))
            end = t + stay
            while t < end:
                t += int(rng.exponential(400_000))
                stray = rng.random() < 0.3
                level = "" if rng.random() < 0.05 else f"{rng.normal(-66 if stray else -55, 4):.2f}"
                seen = 1 + (port + int(stray)) % 4 if stray else port
                late = rng.random()
                arrival = t + (0 if late > 0.22 else rng.uniform(0, 240_000) if late > 0.005 else 5_000_000)
                out.append((arrival, f"{t},r1,{seen},{member_card(tag).hex()},{level}"))
    return [row for _, row in sorted(out)]


def written(shop: Shop, file: Path, out: Path, chunk_rows: int) -> bytes:
    visits, _ = replay(shop, file, chunk_rows=chunk_rows)
    with VisitFile(out, shop.zones) as visit_file:
        visit_file.write(visits)
    return out.read_bytes()


def test_however_the_rows_are_cut_the_file_is_the_same(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "reads.csv"
    file.write_text("\n".join([",".join(HEADER), *rows()]) + "\n")
    whole = written(shop, file, tmp_path / "whole.csv", 1 << 20)
    assert whole.count(b"\n") > 10
    for chunk_rows in (1, 7, 1000):
        assert written(shop, file, tmp_path / "cut.csv", chunk_rows) == whole, chunk_rows


def weaker(layout: Layout, known: Field | None) -> Learnt:
    """In place of what is learnt, which takes half of a short replay."""
    field = replace(Field.prior(layout), level_3m_dbm=-60.0 if known is None else known.level_3m_dbm - 1)
    return Learnt(field, 6, 100, -2.0, -1.0)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30), chunk_rows=st.integers(1, 3000), held=st.sampled_from([50, 300, 10**6]))
def test_any_rows_in_any_cut(shop: Shop, tmp_path: Path, seed: int, chunk_rows: int, held: int) -> None:
    file = tmp_path / "reads.csv"
    file.write_text("\n".join([",".join(HEADER), *rows(seed, minutes=1.5, tags=3)]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.readers.replay.look", lambda layout, _, known: weaker(layout, known))
        patch.setattr("edge.readers.replay.HELD_READS", held)
        patch.setattr("dwell.markov.learner.MOMENTS_US", (20_000_000, 20_000_000, 40_000_000, 80_000_000))
        patch.setattr("dwell.markov.learner.WANTED_S", (10, 20, 60, 100))
        patch.setattr("dwell.markov.learner.WAIT_US", 7_000_000)
        assert written(shop, file, tmp_path / "a.csv", 1 << 20) == written(shop, file, tmp_path / "b.csv", chunk_rows)


def test_the_command_takes_plain_files_gzip_and_stdin(gateway: Gateway, shop: Shop, tmp_path: Path) -> None:
    text = "\n".join([",".join(HEADER), *rows()]) + "\n"
    plain, packed = tmp_path / "reads.csv", tmp_path / "reads.csv.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    results = []
    for number, source in enumerate([str(plain), str(packed), "-"]):
        out = tmp_path / f"visits{number}.csv"
        given = text.encode() if source == "-" else b""
        done = forked.run("replay", source, "--config", gateway.file, "--visits", out, given=given)
        assert done.returncode == 0, done.stderr
        results.append(out.read_bytes())
    assert results[0] == results[1] == results[2]
    header = results[0].splitlines()[0]
    assert header == b"epc,zone,enter_us,exit_us,reads,censored"


MALFORMED = {
    2: ("soon,r1,1,E200,-50", "invalid literal"),
    3: (f"{T0},r1,1,XYZ,-50", "hexadecimal"),
    4: (f"{T0},r1,1,E2003", "columns"),
    5: (f"{T0},r1,1,E200,loud", "could not convert"),
    6: (f"{T0},r1,1,,-50", "hex digits"),
    7: ("-5,r1,1,E200,-50", "not a time"),
    8: (f"{T0},r1,1,E200,nan", "out of range"),
    9: (f"{T0},r1,1,{'E2' * 63},-50", "hex digits"),
}  # fmt: skip


def test_malformed_rows_are_told_and_left_out(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "reads.csv"
    file.write_text(
        "\n".join([",".join(HEADER), *(row for row, _ in MALFORMED.values()), f"{T0},nobody,9,E200,-50", *rows()])
        + "\n"
    )
    visits, report = replay(shop, file)
    assert report.malformed == len(MALFORMED)
    assert report.unknown_antenna == 1
    for problem, (line, (_, reason)) in zip(report.problems, MALFORMED.items(), strict=True):
        assert problem.startswith(f"line {line}: ")
        assert reason in problem
    clean = tmp_path / "clean.csv"
    clean.write_text("\n".join([",".join(HEADER), *rows()]) + "\n")
    assert (visits == replay(shop, clean)[0]).all()


def test_strict_stops_at_the_first(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "reads.csv"
    file.write_text(f"{','.join(HEADER)}\n{T0},r1,1,E200,-50\nsoon,r1,1,E200,-50\n")
    with pytest.raises(Trouble, match="line 3"):
        replay(shop, file, strict=True)


@pytest.mark.parametrize("text", ["", "epc,zone\n", "\n"])
def test_a_file_of_another_kind_is_refused(shop: Shop, tmp_path: Path, text: str) -> None:
    file = tmp_path / "reads.csv"
    file.write_text(text)
    with pytest.raises(Trouble, match="first line must be"):
        replay(shop, file)


def test_a_missing_file_and_a_damaged_archive_are_one_line(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="cannot read"):
        replay(shop, tmp_path / "none.csv")
    broken = io.BytesIO()
    with gzip.open(broken, "wt") as file:
        file.write("\n".join([",".join(HEADER), *rows()]))
    (tmp_path / "half.csv.gz").write_bytes(broken.getvalue()[:500])
    with pytest.raises(Trouble, match="cannot read"):
        replay(shop, tmp_path / "half.csv.gz")


def read(shop: Shop, file: Path, *lines: str) -> tuple[list[tuple[int, int, int, str]], Report]:
    """Time, antenna, level and EPC of the rows of a file."""
    file.write_bytes("".join(lines).encode())
    report = Report()
    made = [row for chunk in chunks(shop, file, report) for row in chunk]
    return [
        (int(r["time_us"]), int(r["antenna"]), int(r["rssi_cdbm"]), f"{int(r['epc'][0]):016x}") for r in made
    ], report


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_rows_mean_the_same_however_they_are_written(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, quote: str
) -> None:
    """In more than one block, of which each is smaller here than usually."""
    monkeypatch.setattr("edge.readers.read_file.BLOCK", BLOCK >> 4)

    def line(n: int, level: str) -> str:
        return f"{T0 + n},r1,{quote}{1 + n % 4}{quote},E2{n:04X},{level}{end}"

    lines = [",".join(HEADER) + end, *(line(n, "" if n % 9 == 0 else f"-{50 + n % 30}.25") for n in range(2_500))]
    assert len("".join(lines)) > BLOCK >> 4
    lines[1_875] = f"soon,r1,1,E200,-50{end}"
    lines.insert(1_876, end)
    lines.insert(1_877, f"{T0},r1,1,E200{end}")
    made, report = read(shop, tmp_path / "reads.csv", *lines)
    assert report.rows == len(made) == 2_499
    assert [problem.split(":")[0] for problem in report.problems] == ["line 1876", "line 1878"]
    assert made[9] == (T0 + 9, 1, -32768, "e200090000000000")
    assert made[-1] == (T0 + 2_499, 3, -5000 - (2_499 % 30) * 100 - 25, "e209c30000000000")


def test_quoted_fields_may_go_over_lines_and_the_last_row_may_end_without_one(shop: Shop, tmp_path: Path) -> None:
    text = f'{",".join(HEADER)}\n{T0},"r\n1",1,E200,-50\n{T0},r1,1,zz,-50\n{T0 + 1},r1,2,E201,-51'
    made, report = read(shop, tmp_path / "reads.csv", text)
    assert [row[:3] for row in made] == [(T0, 65535, -5000), (T0 + 1, 1, -5100)]
    assert [problem.split(":")[0] for problem in report.problems] == ["line 4"]


def test_a_field_too_many_and_one_too_few_do_not_make_up_for_each_other(shop: Shop, tmp_path: Path) -> None:
    text = f"{','.join(HEADER)}\n{T0},r1,1,E200,-50,1\nr1,1,E200,-50\n{T0},r1,1,E200,-50\n"
    made, report = read(shop, tmp_path / "reads.csv", text)
    assert len(made) == 1
    assert [problem.split(":")[0] for problem in report.problems] == ["line 2", "line 3"]


def test_what_is_learnt_on_the_way_does_not_depend_on_the_cut(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is learnt when the recording says, from what had come by then."""
    asked: list[tuple[int, bool, bytes]] = []

    def look(layout: Layout, reads: Reads, known: Field | None) -> Learnt:
        asked.append((len(reads), known is None, np.sort(reads, order=["time_us", "epc"]).tobytes()))
        return weaker(layout, known)

    monkeypatch.setattr("edge.readers.replay.look", look)
    file = tmp_path / "reads.csv"
    file.write_text("\n".join([",".join(HEADER), *rows(minutes=12)]) + "\n")
    whole = written(shop, file, tmp_path / "whole.csv", 1 << 20)
    first = list(asked)
    # After two minutes twice, after ten, and anew at the end.
    assert [known for _, known, _ in first] == [True, False, False, True, False]
    assert 0 < first[0][0] == first[1][0] < first[2][0]
    assert np.frombuffer(first[0][2], SHORT)["time_us"].max() < T0 + 20_000_000 + 120_000_000
    assert written(shop, file, tmp_path / "cut.csv", 101) == whole
    assert asked[len(first) :] == first


def test_few_people_are_waited_for(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, hours apart: what decides has been learnt from all of them."""
    asked: list[tuple[bool, int]] = []

    def look(layout: Layout, reads: Reads, known: Field | None) -> Learnt:
        asked.append((known is None, len(np.unique(reads["epc"], axis=0))))
        return weaker(layout, known)

    monkeypatch.setattr("edge.readers.replay.look", look)
    lines = [
        f"{T0 + n * 3_600_000_000 + k * 500_000},r1,{1 + (n + k // 60) % 4},{member_card(n).hex()},{-55 - k % 7}"
        for n in range(5)
        for k in range(180)
    ]
    file = tmp_path / "reads.csv"
    file.write_text("\n".join([",".join(HEADER), *lines]) + "\n")
    visits, report = replay(shop, file)
    assert (report.late, len(np.unique(visits["epc"], axis=0))) == (0, 5)
    assert asked[0] == (True, 1)
    assert asked[-2:] == [(True, 5), (False, 5)]
    engine = ZoneEngine(shop.layout, shop.settings, field=weaker(shop.layout, weaker(shop.layout, None).field).field)
    engine.feed(read_file.load(shop, file)[0])
    alone = engine.finish().closed
    assert visits.tobytes() == alone[np.argsort(alone["enter_us"], kind="stable")].tobytes()
