"""Files of the member directory: every way to write one, and to write one wrongly."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from edge.members import COLUMNS, FetchError, _put, _rows, _sort_out

HEADER = "epc,member,tier,consent,hint,hint_until_us"


def sorted_out(folder: Path, text: str, whole: bool = True) -> list[tuple[object, ...]]:
    file = folder / "members.gz"
    file.write_bytes(gzip.compress(text.encode()))
    (folder / "buckets").mkdir(exist_ok=True)
    buckets = _sort_out(file, folder / "buckets", lambda card, bits: card.ljust(16, b"\0"), whole)
    rows = [row for bucket in buckets for row in _rows(bucket)]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert all(len(row) == COLUMNS for row in rows)
    return rows


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_quotes_and_umlauts(tmp_path: Path, end: str, last: bool) -> None:
    lines = [HEADER, 'FF01,M2,A,0,"tea, at ""5""",', "0002,M1,B,1,新会员\u2028,7", "8003,M3,,1,,"]
    rows = sorted_out(tmp_path, end.join(lines) + end * last)
    assert rows == [
        (b"\x00\x02".ljust(16, b"\0"), "M1", "B", 1, "新会员\u2028", 7),
        (b"\x80\x03".ljust(16, b"\0"), "M3", "", 1, None, None),
        (b"\xff\x01".ljust(16, b"\0"), "M2", "A", 0, 'tea, at "5"', None),
    ]


def test_many_rows_come_sorted_and_the_last_word_on_a_card_counts(tmp_path: Path) -> None:
    text = "".join(f"{n * 2654435761 % 2**32:08x},M{n},A,1,,\n" for n in range(20_000))
    rows = sorted_out(tmp_path, f"{HEADER}\n{text}{0:08x},again,B,0,,\n")
    conn = sqlite3.connect(":memory:")
    conn.execute(
        "CREATE TABLE directory (tag BLOB PRIMARY KEY, member, tier, consent, hint, hint_until_us) WITHOUT ROWID"
    )
    _put("directory", rows)(conn)
    assert conn.execute("SELECT count(*) FROM directory").fetchone() == (20_000,)
    assert conn.execute("SELECT member FROM directory ORDER BY tag LIMIT 1").fetchone() == ("again",)
    out = [(row[0], "", "", 0, None, None) for row in rows[:700]]
    _put("directory", out)(conn)
    assert conn.execute("SELECT count(*) FROM directory").fetchone()[0] in (19_300, 19_301)
    conn.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line"),
        ("epc,member\n", "first line"),
        (f"{HEADER}\n01,M1,A,1,,\nzz,M2,A,1,,\n", "line 3 "),
        (f"{HEADER}\n01,M1,A,1\n", "line 2 "),
        (f"{HEADER}\n01,M1,A,yes,,\n", "line 2 "),
        (f"{HEADER}\n01,M1,A,1,,soon\n", "line 2 "),
        (f"{HEADER}\n01,,,,,\n", "line 2 "),
        (f"{HEADER}\n{'01' * 63},M1,A,1,,\n", "line 2 "),
        (f"{HEADER}\n01,{'M' * 129},A,1,,\n", "line 2 "),
        (f"{HEADER}\n01,M1,A,1,{'x' * 3000},\n", "2048 bytes"),
        (f"{HEADER}\n" + "x" * 10_000_000, "2048 bytes"),
    ],
)
def test_a_file_that_is_no_directory_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FetchError, match=said):
        sorted_out(tmp_path, text)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    file = tmp_path / "members.gz"
    file.write_bytes(gzip.compress(HEADER.encode() + b"\n01,\xff,A,1,,\n"))
    (tmp_path / "buckets").mkdir()
    with pytest.raises(FetchError, match="no member"):
        _sort_out(file, tmp_path / "buckets", lambda card, bits: card, True)
