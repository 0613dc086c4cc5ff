"""Reads from a file through the same engine: the same rows give the same visits, whenever and wherever it is run."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

import numpy as np

from drivers.read import ANTENNA_UNKNOWN, EPC_BITS_MAX, READ, RSSI_UNKNOWN, Reads, epc_words
from dwell.engine import ZoneEngine
from dwell.visits import VISIT, Visits
from edge.readers.decode import PHASE
from edge.store.compose import Shop
from edge.store.errors import Trouble

HEADER = ["time_us", "reader", "antenna", "epc", "rssi_dbm"]
CHUNK_ROWS = 65_536
REPORTED_ROWS = 20
"""Malformed rows told one by one; more are only counted."""


@dataclass
class Report:
    """What a replay met: counts of rows, and the first malformed ones with their line."""

    rows: int = 0
    malformed: int = 0
    late: int = 0
    unknown_antenna: int = 0
    visits: int = 0
    problems: list[str] = field(default_factory=list)


def replay(
    shop: Shop,
    path: Path,
    *,
    strict: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Visits, Report]:
    """Visits (VISIT array, by enter time and EPC) of a file with the columns of HEADER in order of arrival.

    `path` may be `-` (standard input) or end in `.gz`; `progress` is told how many bytes of the file were read.
    A row may come `lateness_s` later than a newer one; later rows are counted and left out. Raises Trouble for a
    file that can't be read and, with `strict`, for the first malformed row.
    """
    report = Report()
    engine = ZoneEngine(shop.layout, shop.settings)
    closed: list[Visits] = []
    newest = np.iinfo(np.int64).min // 2
    with _open(path) as (text, position):
        for chunk in _chunks(_rows(text, shop, report, strict), chunk_rows):
            # Lateness is judged in order of arrival, row by row, so that where a file is cut makes no difference.
            newest_by_row = np.maximum.accumulate(np.maximum(chunk["time_us"], newest))
            newest = int(newest_by_row[-1])
            in_time = chunk["time_us"] >= newest_by_row - shop.settings.lateness_us
            report.late += int((~in_time).sum())
            report.unknown_antenna += int((chunk["antenna"] == ANTENNA_UNKNOWN).sum())
            engine.feed(chunk[in_time])
            closed.append(engine.advance(newest).closed)
            progress(position())
    closed.append(engine.finish().closed)
    visits = np.concatenate(closed) if closed else np.empty(0, VISIT)
    report.visits = len(visits)
    order = sorted(range(len(visits)), key=lambda i: (int(visits["enter_us"][i]), visits["epc"][i].tolist()))
    return visits[order], report


def load(shop: Shop, path: Path, progress: Callable[[int], None] = lambda _: None) -> tuple[Reads, Report]:
    """All reads of a file of known antennas, in order of arrival; as `replay` otherwise."""
    report = Report()
    parts = [np.empty(0, READ)]
    with _open(path) as (text, position):
        for chunk in _chunks(_rows(text, shop, report, strict=False), CHUNK_ROWS):
            known = chunk["antenna"] != ANTENNA_UNKNOWN
            report.unknown_antenna += int((~known).sum())
            parts.append(chunk[known])
            progress(position())
    return np.concatenate(parts), report


def _chunks(rows: Iterator[tuple[int, tuple[int, ...], int, int, int, int]], size: int) -> Iterator[Reads]:
    chunk = np.zeros(size, READ)
    filled = 0
    for row in rows:
        chunk[filled] = row
        filled += 1
        if filled == size:
            yield chunk.copy()
            filled = 0
    if filled:
        yield chunk[:filled].copy()


def _rows(
    text: TextIO, shop: Shop, report: Report, strict: bool
) -> Iterator[tuple[int, tuple[int, ...], int, int, int, int]]:
    rows = csv.reader(text)
    try:
        header = next(rows, None)
    except (EOFError, OSError, zlib.error) as error:
        raise Trouble(f"cannot read the file: {error}") from error
    # A capture may have the phase too, which is not used here.
    columns = len(HEADER) + (header == [*HEADER, PHASE])
    if header is None or header[: len(HEADER)] != HEADER or len(header) != columns:
        raise Trouble(f"the first line must be {','.join(HEADER)}, not {','.join(header or [])!r}")
    antennas = {(r.id, str(port)): number for r in shop.readers for port, number in r.ports.items()}
    epcs: dict[str, tuple[tuple[int, ...], int]] = {}
    while True:
        try:
            row = next(rows)
            if not row:
                continue
            if len(row) != columns:
                raise ValueError(f"expected {columns} columns: {','.join(header)}")
            time_us, reader, port, epc, rssi = row[: len(HEADER)]
            known = epcs.get(epc)
            if known is None:
                if len(epcs) > 200_000:
                    epcs.clear()
                known = epcs[epc] = _epc(epc)
            parsed = (
                _time(time_us),
                known[0],
                antennas.get((reader, port), ANTENNA_UNKNOWN),
                _rssi(rssi),
                1,
                known[1],
            )
        except StopIteration:
            return
        except (EOFError, OSError, zlib.error) as error:
            raise Trouble(f"cannot read on after line {rows.line_num}: {error}") from error
        except (ValueError, csv.Error) as error:
            report.malformed += 1
            problem = f"line {rows.line_num}: {error}"
            if strict:
                raise Trouble(problem) from error
            if len(report.problems) < REPORTED_ROWS:
                report.problems.append(problem)
            continue
        report.rows += 1
        yield parsed


def _time(text: str) -> int:
    time_us = int(text)
    if not 0 <= time_us < 1 << 62:
        raise ValueError(f"time_us {time_us} is not a time in microseconds since 1970")
    return time_us


def _epc(text: str) -> tuple[tuple[int, ...], int]:
    if not text or len(text) * 4 > EPC_BITS_MAX:
        raise ValueError(f"an EPC has 2 to {EPC_BITS_MAX // 4} hex digits, not {len(text)}")
    return tuple(epc_words(bytes.fromhex(text)).tolist()), len(text) * 4


def _rssi(text: str) -> int:
    if not text:
        return RSSI_UNKNOWN
    dbm = float(text)
    if not -200 <= dbm <= 50:
        raise ValueError(f"rssi_dbm {text} is out of range; leave it empty where it is unknown")
    return round(dbm * 100)


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
