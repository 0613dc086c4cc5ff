"""Files that only the store's own user may read, whoever runs the program by hand and whatever the umask is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MODE = 0o600
FOLDER_MODE, ABOVE_MODE = 0o750, 0o755


def create_private(path: Path, content: bytes) -> None:
    """Write a file atomically: it is on disk before it gets its name, and under its name before this returns."""
    part = path.with_name(f"{path.name}.new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    hand_over(part)
    os.replace(part, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have new names of files in a folder, and that others are gone, on disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def make_folder(folder: Path) -> None:
    """Create the folder of a store's files if it doesn't exist. Raises OSError.

    Those above it can be passed by everybody, whatever the umask is: made by root before the first start, the service's
    user has to get through them.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        each.chmod(FOLDER_MODE if each == folder else ABOVE_MODE)


def make_private(path: Path) -> None:
    """Create a file if it doesn't exist, and remove others' permissions as far as allowed."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE))
        hand_over(path)
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o077:
            path.chmod(MODE)


def hand_over(path: Path) -> None:
    """Give files created by root to the service's user."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
