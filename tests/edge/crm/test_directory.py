"""Files of the member directory: every way to write one, and to write one wrongly."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge.crm.directory import TABLE, MemberDirectory, _put
from edge.crm.directory_file import COLUMNS, SLICE_ROWS, FetchError, slices, slices_apart
from edge.database.writer import Database
from edge.store.pseudonyms import member_tag
from sync.down import Manifest

HEADER = "epc,member,tier,consent,hint,hint_until_us"


KEY = b"k" * 32


def tag(epc: str) -> bytes:
    return member_tag(KEY, bytes.fromhex(epc), len(epc) * 4)


def sorted_out(folder: Path, text: str | bytes, whole: bool = True) -> dict[bytes, tuple[object, ...]]:
    file = folder / "members.gz"
    file.write_bytes(gzip.compress(text.encode() if isinstance(text, str) else text))
    conn = sqlite3.connect(":memory:")
    conn.execute(TABLE.format(name="directory"))
    last = b""
    for values in slices(file, KEY, whole):
        assert len(values) <= SLICE_ROWS * COLUMNS
        assert values[::COLUMNS] == sorted(values[::COLUMNS])
        assert values[0] >= last
        last = values[-COLUMNS]
        _put("directory", values)(conn)
    rows = conn.execute("SELECT * FROM directory").fetchall()
    conn.close()
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_quotes_and_umlauts(tmp_path: Path, end: str, last: bool) -> None:
    lines = [HEADER, 'FF01,M2,A,0,"tea, at ""5""",', "0002,M1,B,1,新会员\u2028,7", "8003,M3,,1,,"]
    rows = sorted_out(tmp_path, end.join(lines) + end * last)
    assert rows == {
        tag("0002"): ("M1", "B", 1, "新会员\u2028", 7),
        tag("8003"): ("M3", "", 1, None, None),
        tag("FF01"): ("M2", "A", 0, 'tea, at "5"', None),
    }


def test_of_many_rows_the_last_word_on_a_card_counts(tmp_path: Path) -> None:
    text = "".join(f"{n * 2654435761 % 2**32:08x},M{n},A,1,,\n" for n in range(20_000))
    rows = sorted_out(tmp_path, f"{HEADER}\n{text}{0:08x},again,B,0,,\n")
    assert len(rows) == 20_000
    assert rows[tag(f"{0:08x}")] == ("again", "B", 0, None, None)


def test_changes_may_take_a_card_out(tmp_path: Path) -> None:
    rows = sorted_out(tmp_path, f"{HEADER}\n01,M1,A,1,,\n01,,,,,\n02,,,,,\n02,M2,A,1,,\n", whole=False)
    assert [row[0] for row in rows.values()] == ["M2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line"),
        ("epc,member\n", "first line"),
        (f"{HEADER}\n01,M1,A,1,,\nzz,M2,A,1,,\n", "line 3 "),
        (f"{HEADER}\n01,M1,A,1\n", "line 2 "),
        (f"{HEADER}\n01,M1,A,yes,,\n", "line 2 "),
        (f"{HEADER}\n01,M1,A,1,,soon\n", "line 2 "),
        (f"{HEADER}\n01,M1,A,1,,{2**63}\n", "line 2 "),
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
    with pytest.raises(FetchError, match="no member"):
        sorted_out(tmp_path, HEADER.encode() + b"\n01,\xff,A,1,,\n")


@pytest.mark.parametrize("packed", [b"no gzip", gzip.compress(b"x" * 100_000)[:-20]])
async def test_the_process_tells_what_is_wrong(tmp_path: Path, packed: bytes) -> None:
    file = tmp_path / "members.gz"
    file.write_bytes(packed)
    with pytest.raises(FetchError, match=r"gzip|line"):
        await drained(file)


async def test_a_process_that_fails_is_no_wrong_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"code 1: .*No such file"):
        await drained(tmp_path / "members.gz")


async def drained(file: Path) -> int:
    """Rows that the process makes of it."""
    return sum([len(values) // COLUMNS async for values in slices_apart(file, KEY, True)])


async def test_nothing_comes_out_of_a_file_whose_last_line_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "members.gz"
    lines = "".join(f"{n:08x},M{n},A,1,,\n" for n in range(10_000))
    file.write_bytes(gzip.compress(f"{HEADER}\n{lines}".encode()))
    assert await drained(file) == 10_000
    file.write_bytes(gzip.compress(f"{HEADER}\n{lines}zz,M,A,1,,\n".encode()))
    came = slices_apart(file, KEY, True)
    with pytest.raises(FetchError, match="line 10002 "):
        await anext(came)


def test_sorting_loads_nothing_heavy() -> None:
    code = (
        "import sys, edge.crm.directory_file; print(*sorted({'numpy', 'pydantic', 'sqlite_utils'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


async def test_a_thousand_withdrawn_are_taken_out_wherever_their_tags_stand(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db", store="s1", quota_mb=16)
    tags = [bytes([first, *last]) for first in range(256) for last in (bytes(15), b"\xff" * 15)]
    rows = [(tag, f"M{number}", "A", 1, None, None) for number, tag in enumerate(tags)]
    await database.write(
        lambda conn: conn.executemany("INSERT INTO directory VALUES (?, ?, ?, ?, ?, ?)", rows).fetchall()
    )
    rechecked: list[int] = []

    async def recheck() -> None:
        rechecked.append(await database.read(lambda conn: conn.execute("SELECT count(*) FROM directory").fetchone()[0]))

    members = MemberDirectory(database, lambda: 1, lambda *_: None, recheck)
    gone = [f"M{number}" for number in range(1000) if number % 3]
    manifest = {"generation": 1, "valid_until_us": 2**53 - 1, "files": [], "withdrawn": gone}
    with pytest.raises(FetchError):
        await members._follow(Manifest.model_validate(manifest))
    left = await database.read(
        lambda conn: [row[0] for row in conn.execute("SELECT member FROM directory ORDER BY tag")]
    )
    assert left == [f"M{number}" for number in range(0, len(tags), 3)]
    assert rechecked == [len(left)]
    database.close()
