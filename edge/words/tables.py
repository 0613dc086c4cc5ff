"""Tables of cells under column ids."""

from __future__ import annotations

from dataclasses import dataclass

Cell = str | int | float | None
BOM = "\ufeff"


@dataclass(frozen=True)
class Table:
    """Rows under column ids; the first `keys` columns say what a row is of, the others are its numbers."""

    columns: tuple[str, ...]
    keys: int
    rows: tuple[tuple[Cell, ...], ...]
