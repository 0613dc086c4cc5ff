"""A process whose wall clock the test sets, by Debian's `libfaketime`."""

from __future__ import annotations

from pathlib import Path

import pytest


class FakeTime:
    """Environment of a process, and a file that tells it how far its clock is off; it looks once a second."""

    def __init__(self, library: Path, folder: Path, off_s: int) -> None:
        self._file = folder / "faketime"
        self.set(off_s)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # otherwise compiled kernels look older than their sources, and are compiled again
        }

    def set(self, off_s: int) -> None:
        """The clock is off by so much from now on."""
        part = self._file.with_suffix(".new")
        part.write_text(f"{off_s:+d}\n")
        part.replace(self._file)


def fake_time(folder: Path, off_s: int) -> FakeTime:
    """Skips the test where the library isn't installed: apt install faketime."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed")
    return FakeTime(found[0], folder, off_s)
