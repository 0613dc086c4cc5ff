"""One finding of an examination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a finding is."""

    OK = "ok"
    WARNING = "warning"  # works, but not for long, or not well
    ERROR = "error"  # doesn't work
    UNKNOWN = "unknown"  # could not be examined here


ORDER = (State.ERROR, State.WARNING, State.UNKNOWN, State.OK)


@dataclass(frozen=True)
class Finding:
    """`what`: stable name of what was examined; `said`: how it is; `todo`: what to do about it, in a sentence."""

    what: str
    state: State
    said: str
    todo: str = ""

    @property
    def bad(self) -> bool:
        """True if somebody should act."""
        return self.state in (State.ERROR, State.WARNING)


def ok(what: str, said: str) -> Finding:
    return Finding(what, State.OK, said)


def warning(what: str, said: str, todo: str) -> Finding:
    return Finding(what, State.WARNING, said, todo)


def error(what: str, said: str, todo: str) -> Finding:
    return Finding(what, State.ERROR, said, todo)


def unknown(what: str, said: str, todo: str = "") -> Finding:
    return Finding(what, State.UNKNOWN, said, todo)
