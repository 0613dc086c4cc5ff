"""What store IT can mend: told in one line, without a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """Something outside the program keeps it from working; the text says what to do."""


class Again(Exception):
    """The service must begin anew, in this process or another; the text says why."""
