"""One process at a time works on a database; others may read it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from edge.store.errors import Trouble


def hold(database: Path) -> IO[bytes]:
    """Hold the database for this process alone until it closes the file or ends; Trouble if another one does."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        file = Path(f"{database}.lock").open("ab")  # noqa: SIM115 - held until the process ends
    except OSError as error:
        raise Trouble(f"cannot use the folder of the database {database}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Trouble(f"another service runs on the database {database}: stop it first") from error
    return file
