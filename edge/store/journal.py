"""Logging as systemd's journal wants it: each line begins with its priority, `<3>` for an error (sd-daemon(3))."""

from __future__ import annotations

import logging
import os
import sys

FORMAT = "%(levelname)s %(name)s: %(message)s"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def set_up() -> None:
    """Log to standard error: for the journal if it is there, else as plain lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Priorities(FORMAT) if to_journal() else logging.Formatter(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def to_journal() -> bool:
    """Whether standard error is the journal's; a terminal within a unit, such as a desktop's, is not."""
    return "JOURNAL_STREAM" in os.environ and not sys.stderr.isatty()


def prioritised(text: str, level: int) -> str:
    """A text, each line of which the journal takes for an entry of its own, with priorities."""
    priority = next((number for least, number in _PRIORITIES if level >= least), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class _Priorities(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return prioritised(super().format(record), record.levelno)
