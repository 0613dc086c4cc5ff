"""docs/security.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.findall(r"\[(test_\w+)\]", (ROOT / "docs" / "security.md").read_text("utf-8"))


def test_every_measure_is_held_by_a_test_that_exists() -> None:
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text("utf-8"), re.MULTILINE)
    }
    assert len(NAMED) > 30
    assert [name for name in NAMED if name not in there] == []
