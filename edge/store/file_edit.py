"""Change keys of the store file, and keep it as it was beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from config.check import ConfigError, load
from config.editing import CannotEdit, with_keys
from edge.store.errors import Trouble


def edit(
    file: Path, reader: str, keys: Mapping[str, int | float], antennas: Mapping[int, Mapping[str, int | float]]
) -> Path:
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
    except CannotEdit as error:
        raise Trouble(f"{error}: enter these keys by hand") from error
    except ConfigError as error:
        raise Trouble(f"the file would not be valid: {error.problems[0]}") from error
    except OSError as error:
        raise Trouble(f"cannot write {file}: {error.strerror}") from error
    return kept
