"""Files of secrets for programs that systemd has not started."""

from __future__ import annotations

import os
from pathlib import Path

from config.files import CREDENTIALS

CREDSTORE = Path("/etc/credstore")
"""Where systemd takes the service's credentials from, under tagtrail.STORE.NAME; for root only."""


def at_its_source(path: Path | None, name: str) -> Path | None:
    """Replace a credential, which only the service has, by the file that systemd takes it from.

    `name`: of the unit's instance, the store file's without `.toml`.
    """
    if path is None or CREDENTIALS not in str(path) or "CREDENTIALS_DIRECTORY" in os.environ:
        return path
    return CREDSTORE / f"tagtrail.{name}.{path.name}"
