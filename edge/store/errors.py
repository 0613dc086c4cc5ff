"""What store IT can mend: told in one line, without a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """Something outside the program keeps it from working; the text says what to do."""


class RestartNeeded(Exception):
    """The service must start anew, in this process or another; the text says why."""


class NotMade(Exception):
    """One of many things could not be made, because of the error that is the cause; `key` says which."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(f"{key}: {type(error).__name__}: {error}")
        self.key = key
