"""The table of a tag's life, and its drawing in the documentation."""

from __future__ import annotations

from pathlib import Path

from dwell import lifecycle
from dwell.lifecycle import IMPOSSIBLE, TABLE, Event, State

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"


def test_the_drawing_is_current() -> None:
    """If not: `python -m dwell.lifecycle` prints the one that is."""
    assert f"```mermaid\n{lifecycle.diagram()}```" in PAGE.read_text(encoding="utf-8")


def test_the_kernels_get_the_whole_table() -> None:
    table = lifecycle.transitions()
    for state in State:
        for event in Event:
            assert table[state, event] == TABLE[state].get(event, IMPOSSIBLE)


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TABLE) == set(State)
    assert all(TABLE[state] for state in State)
    assert {after for row in TABLE.values() for after in row.values()} == set(State) - {State.UNSEEN}
