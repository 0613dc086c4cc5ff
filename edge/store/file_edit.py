"""Change the text of a store file, all else as it was: keys of a reader here, the layout in edge/setup/."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError

from config.check import ConfigError, load_text
from edge.store.errors import Trouble

Value = int | float


def edit(file: Path, reader: str, keys: Mapping[str, Value], antennas: Mapping[int, Mapping[str, Value]]) -> Path:
    """Set keys of a reader and of its antennas by port; returns where the old file is kept. Trouble if that can't be
    done, and then nothing has changed."""
    text = with_keys(read(file), reader, keys, antennas)
    try:
        load_text(text, file.name, file.absolute().parent)
    except ConfigError as error:
        raise Trouble(f"the file would not be valid: {error.problems[0]}") from error
    # Not *.toml: in /etc/tagtrail each of those is a store, which must be valid for an upgrade.
    kept = file.with_name(f"{file.name}~")
    try:
        shutil.copy2(file, kept)
    except OSError as error:
        raise Trouble(f"can't write {kept}: {error.strerror}") from error
    replace(file, text)
    return kept


def with_keys(text: str, reader: str, keys: Mapping[str, Value], antennas: Mapping[int, Mapping[str, Value]]) -> str:
    """Return the text of a store file with keys of a reader, and of its antennas by port, set. Trouble."""
    document = parsed(text)
    content: Mapping[str, Any] = document
    entry = next((each for each in content.get("readers", ()) if each.get("id") == reader), None)
    if entry is None:
        raise Trouble(f"the store file has no reader {reader!r}")
    entry.update(keys)
    for antenna in entry.get("antennas", ()):
        antenna.update(antennas.get(antenna.get("port"), {}))
    return tomlkit.dumps(document)


def as_toml(keys: Mapping[str, Value]) -> str:
    """Return keys and values as in a table."""
    return ", ".join(f"{key} = {tomlkit.item(value).as_string()}" for key, value in keys.items())


def read(file: Path) -> str:
    """Return the text of a store file, as the service reads it; Trouble if it can't be read."""
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"can't read {file}: {error}") from error


def parsed(text: str) -> TOMLDocument:
    """Return a document that keeps comments and spaces; Trouble if it isn't TOML."""
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise Trouble(f"the store file can't be changed: {error}") from error


def replace(file: Path, text: str) -> None:
    """Replace the file at once, with the same owner and permissions; a link stays one. Trouble if that fails."""
    target = Path(os.path.realpath(file))
    part = target.with_name(f"{target.name}.new")
    try:
        was = target.stat()
        with part.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.chmod(was.st_mode & 0o7777)
        with contextlib.suppress(PermissionError):
            os.chown(part, was.st_uid, was.st_gid)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Trouble(f"can't write {file}: {error.strerror}") from error
