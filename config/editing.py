"""Change keys of a reader in the text of a store file, leaving everything else as it was written.

Only plain forms are edited, and the result is read again: unless it is exactly what was wanted, nothing is changed.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from config.lines import Place, key_lines

Value = int | float
_VALUE = re.compile(r"(?<==)(\s*)[^#\n]*?(?=\s*(?:#|$))")
_INLINE = re.compile(r"\{[^{}\n]*\}")


class CannotEdit(Exception):
    """The file isn't written in a form that is edited; the text says what to do."""


def with_keys(text: str, reader: str, keys: Mapping[str, Value], antennas: Mapping[int, Mapping[str, Value]]) -> str:
    """Return the text with keys of a reader, and of its antennas by port, set; CannotEdit."""
    wanted = tomllib.loads(text)
    listed = wanted.get("readers", [])
    number = next((n for n, each in enumerate(listed) if each.get("id") == reader), None)
    if number is None:
        raise CannotEdit(f"the file has no reader {reader!r}")
    wanted = copy.deepcopy(wanted)
    entry = wanted["readers"][number]
    places = key_lines(text)
    lines = text.split("\n")
    inserted: list[tuple[int, str]] = []
    for key, value in keys.items():
        entry[key] = value
        _set(lines, places, ("readers", number), key, value, inserted)
    for index, antenna in enumerate(entry.get("antennas", ())):
        for key, value in antennas.get(antenna.get("port"), {}).items():
            at = places.get(("readers", number, "antennas", index), 0) - 1
            if at >= 0 and lines[at].lstrip().startswith("["):
                _set(lines, places, ("readers", number, "antennas", index), key, value, inserted)
            elif at >= 0:
                lines[at] = _in_table(lines[at], antenna["port"], key, value)
            antenna[key] = value
    for at, line in sorted(inserted, reverse=True):
        lines.insert(at, line)
    new = "\n".join(lines)
    try:
        done = tomllib.loads(new) == wanted
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        raise CannotEdit("its readers are written in a form that is not edited")
    return new


def as_toml(keys: Mapping[str, Value]) -> str:
    """Return keys and values as in a table."""
    return ", ".join(f"{key} = {_shown(value)}" for key, value in keys.items())


def _set(
    lines: list[str], places: Mapping[Place, int], table: Place, key: str, value: Any, inserted: list[tuple[int, str]]
) -> None:
    if (line := places.get((*table, key))) is not None:
        head, equals, tail = lines[line - 1].partition("=")
        lines[line - 1] = head + _VALUE.sub(rf"\g<1>{_shown(value)}", equals + tail, count=1)
    elif (line := places.get(table)) is not None:
        inserted.append((line, f"{key} = {_shown(value)}"))


def _in_table(line: str, port: int, key: str, value: Value) -> str:
    """Set a key in the inline table of an antenna."""
    for found in _INLINE.finditer(line):
        table = found[0]
        if not re.search(rf"\bport\s*=\s*{port}\b", table):
            continue
        new, count = re.subn(rf"(\b{key}\s*=\s*)[^,}}\s]+", rf"\g<1>{_shown(value)}", table)
        if not count:
            new = f"{table[:-1].rstrip()}, {key} = {_shown(value)} }}"
        return line[: found.start()] + new + line[found.end() :]
    return line


def _shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
