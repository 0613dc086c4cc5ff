"""Recorded reads as CSV, `time_us,reader,antenna,epc,rssi_dbm` in order of arrival; by columns, in flat memory."""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, TextIO

import numpy as np
from numpy.typing import NDArray

from drivers.read import ANTENNA_UNKNOWN, EPC_BITS_MAX, READ, RSSI_UNKNOWN, Reads, epc_words
from edge.readers.decode import PHASE
from edge.store.compose import Shop
from edge.store.errors import Trouble

HEADER = ["time_us", "reader", "antenna", "epc", "rssi_dbm"]
CHUNK_ROWS = 65_536
REPORTED_ROWS = 20
"""Malformed rows told one by one; more are only counted."""
BLOCK = 1 << 20
"""Characters that are read at a time."""
KNOWN_MOST = 200_000
"""EPCs and levels of which it is remembered what they mean."""
Malformed = Callable[[int, Exception], None]
"""Told the line of a row that is none, and why."""


@dataclass
class Report:
    """What a file held: counts of rows, and the first malformed ones with their line."""

    rows: int = 0
    malformed: int = 0
    late: int = 0
    unknown_antenna: int = 0
    visits: int = 0
    problems: list[str] = field(default_factory=list)


def chunks(
    shop: Shop,
    path: Path,
    report: Report,
    *,
    strict: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Reads]:
    """Reads of a file with the columns of HEADER, at most `chunk_rows` at a time; ANTENNA_UNKNOWN for antennas that the
    store doesn't have.

    `path` may be `-` (standard input) or end in `.gz`; `progress` is told how many bytes of the file were read.
    Raises Trouble for a file that can't be read and, with `strict`, for the first malformed row.
    """
    with _open(path) as (text, position):
        parse = _Columns(shop, _columns(text))
        for made in _parsed(text, parse, lambda line, why: _malformed(report, line, why, strict)):
            report.rows += len(made)
            for first in range(0, len(made), chunk_rows):
                yield made[first : first + chunk_rows]
            progress(position())


def load(shop: Shop, path: Path, progress: Callable[[int], None] = lambda _: None) -> tuple[Reads, Report]:
    """All reads of a file of known antennas, in order of arrival; as `chunks` otherwise."""
    report = Report()
    parts = [np.empty(0, READ)]
    for chunk in chunks(shop, path, report, progress=progress):
        known = chunk["antenna"] != ANTENNA_UNKNOWN
        report.unknown_antenna += int((~known).sum())
        parts.append(chunk[known])
    return np.concatenate(parts), report


def _columns(text: TextIO) -> int:
    """How many columns a file has, by its first line."""
    try:
        header = next(csv.reader([text.readline(BLOCK)]), None)
    except (EOFError, OSError, zlib.error, csv.Error) as error:
        raise Trouble(f"cannot read the file: {error}") from error
    # A capture may have the phase too, which is not used here.
    columns = len(HEADER) + (header == [*HEADER, PHASE])
    if header is None or header[: len(HEADER)] != HEADER or len(header) != columns:
        raise Trouble(f"the first line must be {','.join(HEADER)}, not {','.join(header or [])!r}")
    return columns


def _parsed(text: TextIO, parse: _Columns, malformed: Malformed) -> Iterator[Reads]:
    """Block by block; from the first quotation mark on, or other ends of lines than usual, as CSV in all its ways."""
    line = 1
    while True:
        try:
            block = text.read(BLOCK)
            if not block.endswith("\n"):
                block += text.readline(BLOCK)
        except (EOFError, OSError, zlib.error) as error:
            raise Trouble(f"cannot read on after line {line}: {error}") from error
        if not block:
            return
        plain = block.replace("\r\n", "\n") if "\r" in block else block
        if '"' in plain or "\r" in plain:
            yield from _as_csv(chain(io.StringIO(block, newline=""), text), line, parse, malformed)
            return
        made = parse.text(plain)
        if made is None:
            made = parse.one_by_one([row.split(",") if row else [] for row in plain.split("\n")], line, malformed)
        line += plain.count("\n")
        yield made


def _as_csv(lines: Iterator[str], line: int, parse: _Columns, malformed: Malformed) -> Iterator[Reads]:
    rows = csv.reader(lines)
    while True:
        before = line + rows.line_num
        batch: list[list[str]] = []
        problem: csv.Error | None = None
        try:
            for row in islice(rows, CHUNK_ROWS):
                batch.append(row)  # noqa: PERF402 - those before an error are kept
        except csv.Error as error:
            problem = error
        except (EOFError, OSError, zlib.error) as error:
            raise Trouble(f"cannot read on after line {line + rows.line_num}: {error}") from error
        if not batch and problem is None:
            return
        yield parse.one_by_one(batch, before, malformed)
        if problem is not None:
            malformed(line + rows.line_num, problem)


def _malformed(report: Report, line: int, why: Exception, strict: bool) -> None:
    report.malformed += 1
    problem = f"line {line}: {why}"
    if strict:
        raise Trouble(problem) from why
    if len(report.problems) < REPORTED_ROWS:
        report.problems.append(problem)


class _Columns:
    """From rows of text to reads."""

    def __init__(self, shop: Shop, columns: int) -> None:
        self._columns = columns
        self._antennas = {(r.id, str(port)): number for r in shop.readers for port, number in r.ports.items()}
        self._forget()

    def text(self, block: str) -> Reads | None:
        """Rows in which nothing is quoted, all at once; None if one of them is malformed or empty."""
        block = block if block.endswith("\n") else block + "\n"
        # With the end of a row as a field of its own, one split finds the fields and shows whether all are there.
        fields = block.replace("\n", ",\n,").split(",")
        fields.pop()
        wide = self._columns + 1
        ends = fields[self._columns :: wide]
        if len(fields) != wide * len(ends) or ends.count("\n") != len(ends):
            return None
        return self._reads(*(fields[column::wide] for column in range(len(HEADER))))

    def _reads(
        self, time: list[str], reader: list[str], port: list[str], epc: list[str], level: list[str]
    ) -> Reads | None:
        """Reads of columns; None if a field is malformed."""
        if len(self._epcs) > KNOWN_MOST or len(self._levels) > KNOWN_MOST:
            self._forget()
        made = np.zeros(len(time), READ)
        try:
            made["time_us"] = times = np.array(list(map(int, time)), np.int64)
            number = np.array([self._epcs[text] for text in epc], np.int64)
            made["rssi_cdbm"] = [self._levels[text] for text in level]
        except (ValueError, OverflowError):
            return None
        if len(times) and (times.min() < 0 or times.max() >= 1 << 62):
            return None
        antenna = self._antennas.get
        made["antenna"] = [antenna(key, ANTENNA_UNKNOWN) for key in zip(reader, port, strict=True)]
        words, bits = self._epcs.table()
        made["epc"], made["epc_bits"] = words[number], bits[number]
        made["count"] = 1
        return made

    def one_by_one(self, batch: list[list[str]], line: int, malformed: Malformed) -> Reads:
        """Those that are well-formed; the others are told with their line, `line` being the last before the batch."""
        good = []
        for row in batch:
            line += 1 + sum(len(_BREAKS.findall(text)) for text in row)
            if not row:
                continue
            try:
                if len(row) != self._columns:
                    names = [*HEADER, PHASE][: self._columns]
                    raise ValueError(f"expected {self._columns} columns: {','.join(names)}")
                _time(row[0])
                self._epcs[row[3]]
                self._levels[row[4]]
            except ValueError as error:
                malformed(line, error)
            else:
                good.append(row)
        columns = list(map(list, zip(*good, strict=True))) or [[]] * self._columns
        made = self._reads(*columns[: len(HEADER)])
        assert made is not None
        return made

    def _forget(self) -> None:
        self._epcs, self._levels = _Epcs(), _Levels()


class _Epcs(dict[str, int]):
    """Numbers of EPCs, in the order in which they were met. ValueError for a text that is none."""

    def __init__(self) -> None:
        super().__init__()
        self._words: list[NDArray[np.uint64]] = []
        self._bits: list[int] = []
        self._table = np.zeros((0, 8), np.uint64), np.zeros(0, np.int64)

    def __missing__(self, text: str) -> int:
        if not text or len(text) * 4 > EPC_BITS_MAX:
            raise ValueError(f"an EPC has 2 to {EPC_BITS_MAX // 4} hex digits, not {len(text)}")
        words = epc_words(bytes.fromhex(text))
        self._words.append(words)
        self._bits.append(len(text) * 4)
        self[text] = number = len(self)
        return number

    def table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(n, 8) words and (n,) bits, by number."""
        words, bits = self._table
        if len(bits) < len(self._bits):
            new = slice(len(bits), None)
            self._table = np.concatenate([words, self._words[new]]), np.concatenate([bits, self._bits[new]])
        return self._table


class _Levels(dict[str, int]):
    """Levels in hundredths of dBm, by their texts. ValueError for a text that is none."""

    def __missing__(self, text: str) -> int:
        if text:
            dbm = float(text)
            if not -200 <= dbm <= 50:
                raise ValueError(f"rssi_dbm {text} is out of range; leave it empty where it is unknown")
        self[text] = level = round(dbm * 100) if text else RSSI_UNKNOWN
        return level


def _time(text: str) -> int:
    time_us = int(text)
    if not 0 <= time_us < 1 << 62:
        raise ValueError(f"time_us {time_us} is not a time in microseconds since 1970")
    return time_us


class _open:
    """The text of a file and how far it has been read, in bytes of the file itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> tuple[TextIO, Callable[[], int]]:
        if str(self._path) == "-":
            return sys.stdin, lambda: 0
        try:
            raw: IO[bytes] = self._path.open("rb")
        except OSError as error:
            raise Trouble(f"cannot read {self._path}: {error.strerror}") from error
        self._files.append(raw)
        file = gzip.GzipFile(fileobj=raw) if self._path.suffix == ".gz" else raw
        return io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline=""), raw.tell

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


_BREAKS = re.compile("\r\n|\r|\n")
