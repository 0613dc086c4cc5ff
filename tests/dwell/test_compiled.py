"""A kernel is taken from the cache only as long as all that it was compiled from is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "figures.py": (
        "from typing import NamedTuple\n\nSTEP = 1\nPAIR = (10, 20)\n\n"
        "class Both(NamedTuple):\n    a: int\n    b: int\n"
    ),
    "callee.py": "from dwell.compiled import inner_kernel\n\n@inner_kernel\ndef more(x):\n    return x + 100\n",
    "caller.py": (
        "from __future__ import annotations\n"
        "from dwell.compiled import inner_kernel, kernel\n"
        "from callee import more\nfrom figures import PAIR, STEP, Both\n\n"
        "@kernel\ndef run(x: Both):\n    return between(x)\n\n"
        "@inner_kernel\ndef between(x: Both):\n    return more(x.a) + STEP + PAIR[1]\n"
    ),
}
CODE = (
    "from caller import run; from figures import Both; print(run(Both(a=0, b=7)), sum(run.stats.cache_hits.values()))"
)
Call = Callable[[], tuple[int, int]]


@pytest.fixture
def called(tmp_path: Path) -> Call:
    """Call the kernel in a new process: its answer, and how often it was found in the cache."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    root = Path(__file__).parents[2]
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    env.pop("NUMBA_DISABLE_JIT", None)

    def call() -> tuple[int, int]:
        told = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True)
        answer, hits = map(int, told.stdout.split())
        return answer, hits

    return call


@pytest.mark.parametrize(
    ("file", "old", "new", "answer"),
    [("callee.py", "x + 100", "x + 200", 221), ("figures.py", "STEP = 1", "STEP = 5", 125),
     ("figures.py", "a: int\n    b: int", "b: int\n    a: int", 121),
     ("figures.py", "(10, 20)", "(10, 30)", 131), ("caller.py", "+ STEP", "- STEP", 119)],
)  # fmt: skip
def test_what_a_kernel_is_made_of(called: Call, tmp_path: Path, file: str, old: str, new: str, answer: int) -> None:
    assert called() == (121, 0)
    assert called() == (121, 1)
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new))
    assert called() == (answer, 0)
    assert called() == (answer, 1)
