"""All files beside a store's database: their contents about members, how erasures treat them, and their maximum age.
Files that aren't in this list aren't Tagtrail's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DAY_S = 86_400.0
SQLITE = b"SQLite format 3\0"


class Erasure(StrEnum):
    """Treatment of a file by an erasure."""

    ROWS = "rows deleted and overwritten"
    FOLDED = "folded into the database and cut off"
    DELETED = "deleted"
    NOTHING = "names nobody"


@dataclass(frozen=True)
class Kind:
    """Files of one kind. `keep_days`: maximum age before deletion; None: no limit."""

    what: str
    pattern: str
    """Regular expression of the whole name; {db} is the database's, {web} that of the page's own file."""
    erasure: Erasure
    keep_days: float | None = None

    def fits(self, database: Path, name: str) -> bool:
        """Return whether a file of this name beside a database is of this kind."""
        web = f"{database.stem}.web.db"
        return bool(re.fullmatch(self.pattern.format(db=re.escape(database.name), web=re.escape(web)), name))


CAPTURE_DAYS, ASIDE_DAYS, BEFORE_DAYS, PART_DAYS, LEFTOVER_DAYS = 7, 14, 7, 2, 1
_SIDES = "(-wal|-shm|-journal)?"
KINDS = (
    Kind("database", "{db}", Erasure.ROWS),
    Kind("its log", "{db}-(wal|shm|journal)", Erasure.FOLDED),
    Kind("users, verdicts and audit log", "{web}", Erasure.ROWS),
    Kind("its log", "{web}-(wal|shm|journal)", Erasure.FOLDED),
    Kind("erasures, members as keyed hashes once done", "{db}[.]erased", Erasure.ROWS),
    Kind("damaged file moved aside", "({db}|{web})[.]corrupt-[0-9]+" + _SIDES, Erasure.DELETED, ASIDE_DAYS),
    Kind("damaged list of erasures", "{db}[.]erased[.]corrupt-[0-9]+", Erasure.DELETED, ASIDE_DAYS),
    Kind("directory file being fetched", "{db}[.]directory-[0-9a-f]+[.]part", Erasure.DELETED, PART_DAYS),
    Kind("recorded reads", "capture-[0-9TZ]+[.]csv[.]gz", Erasure.DELETED, CAPTURE_DAYS),
    Kind("copy made at a stop", "{db}[.]saved" + _SIDES, Erasure.DELETED, LEFTOVER_DAYS),
    Kind(
        "copy made before a migration",
        "{db}[.]before-[0-9][0-9a-z_]*([.]part)?" + _SIDES,
        Erasure.DELETED,
        BEFORE_DAYS,
    ),
    Kind("replaced by a restore", "({db}|{web})[.]replaced" + _SIDES, Erasure.DELETED, BEFORE_DAYS),
    Kind(
        "part of a backup or restore", "({db}|{web})[.](backing-up|restoring)([.-].*)?", Erasure.DELETED, LEFTOVER_DAYS
    ),
    Kind("copy of another gateway's database", "{db}[.]standby-copy([.]part|-wal([.]new)?|-shm)?", Erasure.DELETED),
    Kind("how that copy is", "{db}[.]standby-copy[.]json([.]new)?", Erasure.NOTHING),
    Kind("mark of who runs the service", "{db}[.](fenced|took-over)([.]new)?", Erasure.NOTHING),
    Kind("register of a witness", "{db}[.]witness([.]new)?", Erasure.NOTHING),
    Kind("mark of the last backup", "{db}[.]backup([.]new)?", Erasure.NOTHING),
    Kind("radio as it was learnt", "{db}[.]radio[.]json([.](new|part|restoring|replaced))?", Erasure.NOTHING),
    Kind("file not written to its end", "{db}[.](tag-key|erased)[.]new", Erasure.DELETED, LEFTOVER_DAYS),
    Kind("numbers given so far", "{db}[.]life([.]part)?", Erasure.NOTHING),
    Kind("configuration of the CRM", "{db}[.]desired([.]json|-[0-9]+[.]toml)([.]part)?", Erasure.NOTHING),
    Kind("tag key", "{db}[.]tag-key", Erasure.NOTHING),
    Kind("mark that there are users", "{web}[.]guarded", Erasure.NOTHING),
    Kind("mark that the database is damaged", "{db}[.]condemned", Erasure.NOTHING),
    Kind("lock", "{db}[.]lock", Erasure.NOTHING),
    Kind("reads on their way to the store's service, a day at most", "{db}[.]forward", Erasure.NOTHING),
    Kind("socket", "{db}[.](live|orders|monitor|standby)", Erasure.NOTHING),
)


def backup_mark(database: Path) -> Path:
    """Return the path of the file with the time of the last backup."""
    return database.with_name(f"{database.name}.backup")


def replaced(file: Path) -> Path:
    """Return the name under which a file is kept when a restore replaces it."""
    return file.with_name(f"{file.name}.replaced")


def beside(database: Path) -> Iterator[tuple[Path, Kind | None]]:
    """Return the files of a store with their kinds; None for files that are only named alike: somebody's copies."""
    names = (database.name, f"{database.stem}.web.db")
    with contextlib.suppress(FileNotFoundError):
        for file in sorted(database.parent.iterdir()):
            kind = next((kind for kind in KINDS if kind.fits(database, file.name)), None)
            if kind is not None or (file.name.startswith(names) and file.is_file()):
                yield file, kind


def of(database: Path, *erasures: Erasure) -> list[Path]:
    """Return the files that an erasure treats in one of these ways."""
    return [file for file, kind in beside(database) if kind is not None and kind.erasure in erasures]


def copies(database: Path) -> list[Path]:
    """Return files that look like somebody's copies of the store's files: Tagtrail doesn't touch them."""
    return [file for file, kind in beside(database) if kind is None]


def delete_old(database: Path, now_s: float) -> list[Path]:
    """Delete files above the maximum age of their kind; returns them. `now_s`: the machine's time."""
    gone = []
    for file, kind in beside(database):
        if kind is not None and kind.keep_days is not None:
            with contextlib.suppress(OSError):
                if now_s - file.stat().st_mtime > kind.keep_days * DAY_S:
                    file.unlink()
                    gone.append(file)
    return gone
