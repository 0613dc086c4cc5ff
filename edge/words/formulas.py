"""Texts that a spreadsheet must not take for formulas."""

from __future__ import annotations

import unicodedata

from edge.words.tables import Cell

_BEGIN = frozenset("=+-@−")
"""What a formula may begin with, in Excel, LibreOffice and WPS; full-width forms count as what they stand for."""


def formula_safe(value: Cell) -> Cell:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str) or not value:
        return value
    # Blanks and invisible characters before it don't keep every program from running it.
    shown = next((char for char in value if unicodedata.category(char)[0] not in "ZC"), "")
    evil = value[0] in "\t\r\n" or unicodedata.normalize("NFKC", shown)[:1] in _BEGIN
    return f"'{value}" if evil else value
