"""What the machine knows of its clock."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.store import clock


class Kernel:
    """adjtimex as a kernel would answer it."""

    def __init__(self, status: int, offset: int, answer: int = 0) -> None:
        def adjtimex(state: Any) -> int:
            assert state._obj.modes == 0  # reads and sets nothing
            state._obj.status, state._obj.offset = status, offset
            return answer

        self.adjtimex: Callable[[Any], int] = adjtimex


@pytest.mark.parametrize(
    ("kernel", "offset_us"),
    [
        (Kernel(0, 250), -250),
        (Kernel(0x2001, -1_500_000), 1500),
        (Kernel(0x2001, 0), 0),
        (Kernel(0x40, 250, answer=5), None),
        (Kernel(0, 0, answer=-1), None),
        (object(), None),
    ],
)
def test_offset_as_the_kernel_tells_it(monkeypatch: pytest.MonkeyPatch, kernel: Any, offset_us: int | None) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: kernel)
    monkeypatch.setattr(clock, "SYNCHRONISED", Path("/nowhere"))
    assert clock.offset_us() == offset_us


@pytest.mark.parametrize(("age_s", "offset_us"), [(0, 0), (3600, 0), (86_400, None)])
def test_where_the_kernel_may_not_be_asked_the_time_services_mark_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, age_s: int, offset_us: int | None
) -> None:
    mark = tmp_path / "synchronized"
    mark.touch()
    os.utime(mark, (time.time() - age_s,) * 2)
    monkeypatch.setattr(clock, "SYNCHRONISED", mark)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Kernel(0, 0, answer=-1))
    assert clock.offset_us() == offset_us
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Kernel(0x40, 0, answer=5))  # what the kernel says is better
    assert clock.offset_us() is None


def test_the_kernel_here_can_be_asked() -> None:
    assert clock.offset_us() is None or abs(clock.offset_us() or 0) < 10**9
