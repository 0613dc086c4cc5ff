"""Find the line of each key in a TOML text, because `tomllib` returns values without line numbers."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping

Place = tuple[str | int, ...]
"""Keys and array indices from the document's root."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Three quotes before one. A multi-line string may end with up to two quotes before its closing three.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_VALUE = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> Mapping[Place, int]:
    """Return place → line (from 1) of every table, key and array element in a text accepted by `tomllib`."""
    return _Scanner(text).document()


def line_of(lines: Mapping[Place, int], path: Place) -> int:
    """Return the line of a path, or of its nearest enclosing element in the text."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Place, int] = {}
        self.tables: dict[Place, int] = {}  # arrays of tables → number of elements so far
        self.starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def document(self) -> dict[Place, int]:
        table: Place = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return self.lines
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Place:
        line = self.line()
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        parts = self.key()
        self.at += 2 if many else 1
        path: Place = ()
        for part in parts[:-1]:
            path = self.enter((*path, part), line)
        path = (*path, parts[-1])
        if many:
            self.tables[path] = self.tables.get(path, 0) + 1
        return self.enter(path, line)

    def enter(self, path: Place, line: int) -> Place:
        """Enter a table; for an array of tables, the header refers to its last element."""
        self.lines.setdefault(path, line)
        if path in self.tables:
            path = (*path, self.tables[path] - 1)
            self.lines.setdefault(path, line)
        return path

    def pair(self, table: Place) -> None:
        line = self.line()
        path = table
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.at += 1  # =
        self.skip(_SPACE)
        self.value(path)

    def key(self) -> list[str]:
        parts = []
        while True:
            self.skip(_SPACE)
            quoted = self.text[self.at] in "\"'"
            raw = self.take(_STRING if quoted else _BARE_KEY)
            parts.append(tomllib.loads(f"key = {raw}")["key"] if quoted else raw)
            self.skip(_SPACE)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def value(self, path: Place) -> None:
        match self.text[self.at]:
            case '"' | "'":
                self.skip(_STRING)
            case "[":
                self.at += 1
                index = 0
                while self.more("]"):
                    self.lines[(*path, index)] = self.line()
                    self.value((*path, index))
                    index += 1
            case "{":
                self.at += 1
                while self.more("}"):
                    self.pair(path)
            case _:
                self.skip(_BARE_VALUE)

    def more(self, end: str) -> bool:
        """Move to the next element of an array or inline table, or past its end."""
        self.skip(_BLANK)
        if self.text[self.at] == ",":
            self.at += 1
            self.skip(_BLANK)
        if self.text[self.at] != end:
            return True
        self.at += 1
        return False

    def line(self) -> int:
        return bisect_right(self.starts, self.at)

    def skip(self, pattern: re.Pattern[str]) -> None:
        self.take(pattern)

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"line {self.line()}: inconsistent with the parsed TOML")
        self.at = found.end()
        return found.group()
