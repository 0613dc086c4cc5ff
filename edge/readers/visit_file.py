"""Visits as CSV: `epc,zone,enter_us,exit_us,reads,censored`, for replays and opt-in traces."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from drivers.read import epc_bytes
from dwell.visits import Visits
from edge.store.errors import Trouble


class VisitFile:
    """Writes visits in the order of their exits as the engine decided them; `-` is standard output."""

    HEADER = ("epc", "zone", "enter_us", "exit_us", "reads", "censored")

    def __init__(self, path: Path, zones: tuple[str, ...]) -> None:
        self._zones = zones
        try:
            self._file = sys.stdout if str(path) == "-" else path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise Trouble(f"cannot write {path}: {error.strerror}") from error
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(self.HEADER)
        self._file.flush()

    def write(self, visits: Visits) -> None:
        """Append visits."""
        for visit in visits:
            epc = epc_bytes(visit["epc"], int(visit["epc_bits"])).hex().upper()
            numbers = [int(visit[name]) for name in ("enter_us", "exit_us", "reads", "censored")]
            self._rows.writerow([epc, self._zones[visit["zone"]], *numbers])
        self._file.flush()

    def close(self) -> None:
        """Close the file, unless it is standard output."""
        if self._file is not sys.stdout:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
