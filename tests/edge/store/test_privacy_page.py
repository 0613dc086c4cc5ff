"""docs/privacy says what the program does, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gateways import Gateway

from config.check import load
from edge.access.users import KEEP_AUDIT_S
from edge.database.keys import KEPT_DAYS
from edge.database.retention import limits
from edge.store.files import DAY_S

FOLDER = Path(__file__).parents[3] / "docs" / "privacy"
ENGLISH, CHINESE = (FOLDER / f"privacy.{lang}.md" for lang in ("en", "zh-CN"))


@pytest.mark.parametrize(
    ("file", "days", "cells", "key"),
    [
        (ENGLISH, r"{} days", "cells under {} people", "one day more at most"),
        (CHINESE, r"{} 天", "少于 {} 人的格子", "最多再保留一天"),
    ],
)
def test_terms_are_the_programs_defaults(gateway: Gateway, file: Path, days: str, cells: str, key: str) -> None:
    gateway.configure()
    config = load(gateway.file)
    text = file.read_text("utf-8")
    kept = {round(length) for _, _, length in limits(config).values()} | {round(KEEP_AUDIT_S / DAY_S)}
    told = {int(number) for number in re.findall(days.format(r"(\d{2,})"), text)}
    assert told == kept
    assert cells.format(config.thresholds.small_cell) in text
    assert KEPT_DAYS == 1
    assert key in text


@pytest.mark.parametrize("file", [ENGLISH, CHINESE])
def test_the_commands_for_requests_exist(gateway: Gateway, file: Path) -> None:
    named = set(re.findall(r"`tagtrail (\w+) ", file.read_text("utf-8")))
    assert named == {"erase", "subject"}
    for command in named:
        assert gateway.run(command, "--help").returncode == 0


def test_both_languages_have_the_same_parts() -> None:
    def shape(file: Path) -> list[int]:
        """Rows of tables by section."""
        return [len(re.findall(r"^ *\|", part, re.MULTILINE)) for part in file.read_text("utf-8").split("\n## ")]

    assert shape(ENGLISH) == shape(CHINESE)
    assert len(shape(ENGLISH)) == 5
