"""Exclusive lock on a database for one writing process; others may read."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from edge.store.errors import Trouble
from edge.store.private import make_folder


def hold(database: Path) -> IO[bytes]:
    """Lock the database for this process until it closes the file or ends; Trouble if another process holds it."""
    try:
        make_folder(database.parent)
        file = Path(f"{database}.lock").open("ab")  # noqa: SIM115 - held until the process ends
    except OSError as error:
        raise Trouble(f"cannot use the folder of the database {database}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Trouble(f"another service runs on the database {database}: stop it first") from error
    return file
