"""Errors that store IT can fix: shown in one line, without a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """A problem outside the program; the text says what to do."""


class Superseded(Trouble):
    """Another gateway runs the store's service; this one must not, however often it is started."""

    EXIT_CODE = 3


class RestartNeeded(Exception):
    """The service must restart, in this process or another; the text says why."""


class NotMade(Exception):
    """One of several items could not be created; the cause is the error, `key` the item."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(f"{key}: {type(error).__name__}: {error}")
        self.key = key
