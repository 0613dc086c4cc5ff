"""Every file that lies beside a store's database: what of members it may hold, what an erasure does to it, how old it
may get. What is not in this list is not Tagtrail's.
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
    """What an erasure does to a file."""

    ROWS = "rows deleted and overwritten"
    FOLDED = "folded into the database and cut off"
    DELETED = "deleted"
    NOTHING = "names nobody"


@dataclass(frozen=True)
class Kind:
    """Files of one kind. `keep_days`: how old one may get before it is deleted; None: as long as the store runs."""

    what: str
    pattern: str
    """Regular expression of the whole name; {db} is the database's, {web} that of the page's own file."""
    erasure: Erasure
    keep_days: float | None = None

    def fits(self, database: Path, name: str) -> bool:
        """Whether a file of this name beside a database is of this kind."""
        web = f"{database.stem}.web.db"
        return bool(re.fullmatch(self.pattern.format(db=re.escape(database.name), web=re.escape(web)), name))


CAPTURE_DAYS, ASIDE_DAYS, PART_DAYS, LEFTOVER_DAYS = 7, 14, 2, 1
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
    Kind("file not written to its end", "{db}[.](tag-key|erased)[.]new", Erasure.DELETED, LEFTOVER_DAYS),
    Kind("numbers given so far", "{db}[.]life([.]part)?", Erasure.NOTHING),
    Kind("configuration of the CRM", "{db}[.]desired([.]json|-[0-9]+[.]toml)([.]part)?", Erasure.NOTHING),
    Kind("tag key", "{db}[.]tag-key", Erasure.NOTHING),
    Kind("mark that there are users", "{web}[.]guarded", Erasure.NOTHING),
    Kind("mark that the database is damaged", "{db}[.]condemned", Erasure.NOTHING),
    Kind("lock", "{db}[.]lock", Erasure.NOTHING),
    Kind("socket", "{db}[.](live|orders)", Erasure.NOTHING),
)


def beside(database: Path) -> Iterator[tuple[Path, Kind | None]]:
    """The files of a store, each with its kind; None for one that is named like ours and is not: somebody's copy."""
    names = (database.name, f"{database.stem}.web.db")
    with contextlib.suppress(FileNotFoundError):
        for file in sorted(database.parent.iterdir()):
            kind = next((kind for kind in KINDS if kind.fits(database, file.name)), None)
            if kind is not None or (file.name.startswith(names) and file.is_file()):
                yield file, kind


def of(database: Path, *erasures: Erasure) -> list[Path]:
    """The files that an erasure treats in one of these ways."""
    return [file for file, kind in beside(database) if kind is not None and kind.erasure in erasures]


def copies(database: Path) -> list[Path]:
    """Files that look like copies of the store's, made by somebody: Tagtrail doesn't touch them."""
    return [file for file, kind in beside(database) if kind is None]


def delete_old(database: Path, now_s: float) -> list[Path]:
    """Delete the files that are older than their kind may get; which. `now_s`: the machine's time."""
    gone = []
    for file, kind in beside(database):
        if kind is not None and kind.keep_days is not None:
            with contextlib.suppress(OSError):
                if now_s - file.stat().st_mtime > kind.keep_days * DAY_S:
                    file.unlink()
                    gone.append(file)
    return gone
