"""Format text for a terminal, 120 columns wide: lines and tables in one language."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from edge.words.languages import catalogue
from edge.words.tables import Column, Words

WIDTH = 120


class Terminal:
    """Collects output lines; `text` returns them."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.gettext: Callable[[str], str] = catalogue(words.lang).gettext
        self._out = io.StringIO()
        self._console = Console(
            file=self._out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False
        )

    def say(self, *parts: str) -> None:
        """Add a line of text."""
        self._console.print(*parts)

    def table(
        self, title: str, columns: Sequence[Column], rows: Iterable[Any], *more: Sequence[str], left: int = 1
    ) -> None:
        """Add a table of columns and rows, then the rows `more`; the first `left` columns are left-aligned."""
        texts = [[column.text(row, self.words) for column in columns] for row in rows]
        self.grid(title, [self.gettext(column.heading) for column in columns], [*texts, *more], left=left)

    def grid(self, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
        """Add a table of strings."""
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="left" if place < left else "right")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def text(self) -> str:
        """Return all lines without trailing blanks."""
        return "\n".join(line.rstrip() for line in self._out.getvalue().splitlines()) + "\n"
