from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.check import ConfigError, Problem, load

DEMO = Path(__file__).parents[2] / "config" / "demo.toml"


@pytest.fixture(scope="session")
def demo_path() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def demo_text() -> str:
    return DEMO.read_text(encoding="utf-8")


@pytest.fixture
def problems_of(tmp_path: Path) -> Callable[[str], tuple[Problem, ...]]:
    """What `load` says of a text; no problem at all fails the test."""

    def of(text: str) -> tuple[Problem, ...]:
        file = tmp_path / "store.toml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load(file)
        return caught.value.problems

    return of
