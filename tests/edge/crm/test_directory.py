"""Files of the member directory: every way to write one, and to write one wrongly."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from headquarters import directory_file

from edge.crm import directory
from edge.crm.directory import TABLE, MemberDirectory, _put
from edge.crm.directory_file import COLUMNS, SLICE_ROWS, FetchError, slices, slices_apart
from edge.database.writer import Database
from edge.store.pseudonyms import member_tag
from sync.down import PART_BYTES, Manifest
from sync.mqtt import Incoming

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


def test_rows_on_one_card_are_not_heaped_up(tmp_path: Path) -> None:
    """They all come into one part of the file, whatever the key."""
    file = tmp_path / "members.gz"
    rows = "".join(f"2d16451fd4,M{n},A,1,,\n" for n in range(50_000))
    file.write_bytes(gzip.compress(f"{HEADER}\n{rows}".encode()))
    assert list(slices(file, KEY, True)) == [[tag("2d16451fd4"), "M49999", "A", 1, None, None]]


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.crm.directory_file.MAX_UNPACKED_BYTES", 1_000_000)
    text = HEADER + "\n" + "".join(f"{n:08x},M{n},A,1,{'x' * 280},\n" for n in range(4_000))
    with pytest.raises(FetchError, match="more than 1000000 bytes when decompressed"):
        sorted_out(tmp_path, text)


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
    with pytest.raises(FetchError, match="is not a member"):
        sorted_out(tmp_path, HEADER.encode() + b"\n01,\xff,A,1,,\n")


@pytest.mark.parametrize("packed", [b"no gzip", gzip.compress(b"x" * 100_000)[:-20]], ids=["no gzip", "cut off"])
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

    members = MemberDirectory(database, lambda: 1, lambda *_: None, recheck, lambda _: None)
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


class Far:
    """The CRM's side of a directory: sends manifests, and parts as `deliver` wants them in answer to each want."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "store.db", store="s1", quota_mb=16)
        self.files: dict[str, bytes] = {}
        self.wants: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.here: list[int] = []
        self.deliver: Callable[[list[tuple[int, bytes]]], list[tuple[int, bytes]]] = lambda parts: parts
        self.members = MemberDirectory(self.database, lambda: 1, self._say, self._recheck, self.here.append)
        self._tasks: set[asyncio.Task[None]] = set()

    async def _recheck(self) -> None:
        pass

    def _say(self, rest: str, message: bytes, _: bool) -> None:
        said = json.loads(message)
        if rest == "up/directory":
            self.reports.append(said)
            return
        self.wants.append(said)
        file = self.files[said["sha256"]]
        offsets = [said["offset"] + i * said["size"] for i in range(said["parts"])]
        parts = [(offset, file[offset : offset + said["size"]]) for offset in offsets if offset < len(file)]
        self._tasks.add(asyncio.create_task(self._send(said["sha256"], self.deliver(parts))))

    async def _send(self, digest: str, parts: list[tuple[int, bytes]]) -> None:
        for offset, part in parts:
            topic = f"tagtrail/v1/1/s1/down/directory/part/{digest}/{offset}"
            await self.members.take(Incoming(topic, part, False))

    def file(self, members: list[str], generation: int, base: int | None = None) -> dict[str, Any]:
        """A file with one card for each member, under their own numbers."""
        rows = [f"{int(member):024x},M{member},A,1,{'h' * 280},\n" for member in members]
        entry, packed = directory_file([row.rstrip("\n") for row in rows], generation, base)
        self.files[entry["sha256"]] = packed
        return entry

    async def manifest(self, generation: int, *files: dict[str, Any], valid_until_us: int = 2**52) -> dict[str, Any]:
        """Send a manifest and wait for what becomes of it."""
        self.reports.clear()
        message = {"generation": generation, "valid_until_us": valid_until_us, "files": list(files)}
        await self.members.take(Incoming("tagtrail/v1/1/s1/down/directory", json.dumps(message).encode(), True))
        async with asyncio.timeout(60):
            while not self.reports or self.reports[-1]["state"] == "fetching":
                await asyncio.sleep(0.01)
        return self.reports[-1]

    async def there(self) -> set[str]:
        query = "SELECT member FROM directory"
        return {member for (member,) in await self.database.read(lambda conn: conn.execute(query).fetchall())}


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    far = Far(tmp_path)
    running = asyncio.create_task(far.members.run())
    yield far
    running.cancel()
    await asyncio.gather(running, *far._tasks, return_exceptions=True)
    far.database.close()


def named(numbers: Iterable[int]) -> set[str]:
    return {f"M{number}" for number in numbers}


@pytest.mark.parametrize("order", ["reversed", "shuffled", "twice", "one lost now and then", "all of it, at any want"])
async def test_parts_may_come_in_any_order(far: Far, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """None is asked for twice but what was lost, and then alone."""
    monkeypatch.setattr(directory, "PATIENCE_S", (0.3, 1.0))
    dice = random.Random(1)
    lost: list[int] = []

    def deliver(parts: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        if order == "reversed":
            return parts[::-1]
        if order == "twice":
            return parts * 2
        if order == "one lost now and then" and len(far.wants) % 2:
            lost.append(parts[2 % len(parts)][0])
            return [part for part in parts if part[0] not in lost]
        if order.startswith("all"):
            (file,) = far.files.values()
            return [(at, file[at : at + PART_BYTES]) for at in range(0, len(file), PART_BYTES)]
        return dice.sample(parts, len(parts))

    far.deliver = deliver
    noise = [str(dice.getrandbits(90)) for _ in range(30_000)]
    entry = far.file(noise, 1)
    assert entry["size"] > 8 * PART_BYTES
    assert (await far.manifest(1, entry))["state"] == "applied"
    assert far.reports[-1]["members"] == len(noise)
    asked = [want["offset"] + i * want["size"] for want in far.wants for i in range(want["parts"])]
    again = [offset for offset in asked if asked.count(offset) > 1]
    assert set(again) <= set(lost)


async def test_the_same_generation_with_other_content_is_not_called_applied(far: Far) -> None:
    first, other = far.file(["1", "2"], 5), far.file(["3"], 5)
    assert (await far.manifest(5, first))["state"] == "applied"
    report = await far.manifest(5, other)
    assert (report["state"], report["generation"], report["members"]) == ("failed", 5, 2)
    assert "different content" in report["reason"]
    assert await far.there() == named([1, 2])
    # The one that is here may be renewed, with its file, without any, or with a way to it from another generation.
    for files in ([first], [], [first, far.file(["2"], 5, base=4)]):
        assert (await far.manifest(5, *files))["state"] == "applied"
    assert (await far.manifest(5, far.file(["7"], 5, base=4)))["state"] == "failed"
    assert far.here[-1] == 5
    # Nothing is known of these changes: all members are taken anew, or they are refused.
    assert "no files lead" in (await far.manifest(5, far.file(["7"], 5, base=3)))["reason"]
    second = far.file(["8"], 6, base=5)
    assert (await far.manifest(6, second))["state"] == "applied"
    assert (await far.manifest(6, far.file(["9"], 6)))["state"] == "applied"
    assert await far.there() == named([9])
    assert far.here[-1] == 6


async def test_a_generation_is_not_called_failed_when_the_next_one_is_there(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.crm.directory.PATIENCE_S", (0.05, 0.05))
    far.deliver = lambda parts: []
    first = asyncio.create_task(far.manifest(1, far.file(["1"], 1)))
    async with asyncio.timeout(60):
        while not far.wants:
            await asyncio.sleep(0.01)
    far.deliver = lambda parts: parts
    assert (await far.manifest(2, far.file(["2"], 2)))["state"] == "applied"
    assert {report["state"] for report in far.reports} == {"fetching", "applied"}
    await first


async def test_an_older_generation_is_refused_and_what_an_import_brought_is_replaced(far: Far, tmp_path: Path) -> None:
    entry = far.file(["1"], 3)
    assert (await far.manifest(3, entry))["state"] == "applied"
    assert "is already applied" in (await far.manifest(2, far.file(["2"], 2)))["reason"]
    await far.database.write(
        lambda conn: conn.execute("UPDATE directory_state SET generation = 0, files = NULL").rowcount
    )
    assert (await far.manifest(3, far.file(["4"], 3)))["state"] == "applied"
    assert await far.there() == named([4])


def entries(*steps: tuple[int | None, int, int]) -> Manifest:
    """A manifest of files base → generation of so many bytes."""
    files = [
        {"base": base, "generation": to, "size": size, "sha256": f"{number:064x}"}
        for number, (base, to, size) in enumerate(steps)
    ]
    last = max(to for _, to, _ in steps)
    return Manifest.model_validate({"generation": last, "valid_until_us": 1, "files": files})


@pytest.mark.parametrize(
    ("steps", "here", "way"),
    [
        ([(1, 2, 9), (1, 3, 9), (2, 4, 9)], 1, [2, 4]),  # the longest first step leads nowhere
        ([(1, 3, 9), (1, 2, 9), (3, 5, 9), (2, 4, 9), (4, 6, 9)], 1, [2, 4, 6]),
        ([(1, 2, 5), (2, 3, 5), (1, 3, 20)], 1, [2, 3]),  # the fewest bytes
        ([(1, 2, 5), (2, 3, 5), (1, 3, 9)], 1, [3]),
        ([(None, 2, 50), (2, 3, 5), (None, 3, 60)], 1, [2, 3]),
        ([(None, 3, 50), (2, 3, 5)], 1, [3]),
        ([(None, 3, 1), (1, 3, 50)], 1, [3]),  # changes, if they lead there
        ([(None, 1, 5), (1, 3, 5)], 2, [1, 3]),
        ([(7, 8, 5)], 8, []),
        ([(2, 3, 5)], 1, None),
        ([(1, 2, 5), (3, 4, 5)], 1, None),
    ],
)
def test_a_way_is_found_wherever_there_is_one(
    steps: list[tuple[int | None, int, int]], here: int, way: list[int] | None
) -> None:
    manifest = entries(*steps)
    if way is None:
        with pytest.raises(FetchError, match="no files lead"):
            directory.path(manifest, here)
        return
    found = directory.path(manifest, here)
    assert [file.generation for file in found] == way
    assert all(later.base == earlier.generation for earlier, later in itertools.pairwise(found))
