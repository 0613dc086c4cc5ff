"""Counts of things in English sentences. Imports nothing, for the command line's sake."""

from __future__ import annotations


def counted(n: int, what: str) -> str:
    """Format a count of things with an English noun in the singular, whose plural ends in s."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
