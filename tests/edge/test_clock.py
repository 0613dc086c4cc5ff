"""What the machine knows of its clock."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from edge import clock


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
    assert clock.offset_us() == offset_us


def test_the_kernel_here_can_be_asked() -> None:
    assert clock.offset_us() is None or abs(clock.offset_us() or 0) < 10**9
