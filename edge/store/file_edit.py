"""Change keys of a reader in the store file, all else as it was, and keep the old file beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from config.check import ConfigError, load
from edge.store.errors import Trouble

Value = int | float


def edit(file: Path, reader: str, keys: Mapping[str, Value], antennas: Mapping[int, Mapping[str, Value]]) -> Path:
    """Set keys of a reader and of its antennas by port; returns where the old file is kept. Trouble if that can't be
    done, and then nothing has changed."""
    part, kept = file.with_name(f"{file.name}.new"), file.with_stem(f"{file.stem}-before")
    try:
        text = with_keys(file.read_text(encoding="utf-8"), reader, keys, antennas)
        part.write_text(text, encoding="utf-8")
        try:
            shutil.copystat(file, part)
            if os.geteuid() == 0:
                os.chown(part, file.stat().st_uid, file.stat().st_gid)
            load(part, files=False)
            shutil.copy2(file, kept)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    except ConfigError as error:
        raise Trouble(f"the file would not be valid: {error.problems[0]}") from error
    except OSError as error:
        raise Trouble(f"cannot write {file}: {error.strerror}") from error
    return kept


def with_keys(text: str, reader: str, keys: Mapping[str, Value], antennas: Mapping[int, Mapping[str, Value]]) -> str:
    """Return the text of a store file with keys of a reader, and of its antennas by port, set. Trouble."""
    try:
        document: Mapping[str, Any] = tomlkit.parse(text)
    except TOMLKitError as error:
        raise Trouble(f"the store file can't be changed: {error}") from error
    entry = next((each for each in document.get("readers", ()) if each.get("id") == reader), None)
    if entry is None:
        raise Trouble(f"the store file has no reader {reader!r}")
    entry.update(keys)
    for antenna in entry.get("antennas", ()):
        antenna.update(antennas.get(antenna.get("port"), {}))
    return tomlkit.dumps(document)


def as_toml(keys: Mapping[str, Value]) -> str:
    """Return keys and values as in a table."""
    return ", ".join(f"{key} = {tomlkit.item(value).as_string()}" for key, value in keys.items())
