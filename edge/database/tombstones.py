"""Members being erased and already erased, in the file `<database>.erased`, which outlives the database.

During an erasure, the file has the member in clear; afterwards only a hash under the tag key. With it, an older
directory or a database restored from a backup can't bring the member back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

from edge.store.private import create_private
from edge.store.quarantine import set_aside

log = logging.getLogger("tagtrail.erasure")


@dataclass
class Open:
    """Erasure in progress. `tags`: hex of all pseudonyms of the member's cards, to be searched for."""

    member: str
    at_us: int
    generation: int | None
    """Generation of the member directory known then; None if none."""
    commands: list[str] = field(default_factory=list)
    """Ids of the commands to answer."""
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """Record of a completed erasure."""

    digest: str
    at_us: int
    generation: int | None


class Tombstones:
    """Tombstones in memory, written as a whole by `save`. `key`: the tag key."""

    def __init__(self, database: Path, key: bytes) -> None:
        self._path = database.with_name(f"{database.name}.erased")
        self._key = key
        self.open: dict[str, Open] = {}
        self._done: dict[str, Done] = {}
        self._read: tuple[int, int] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reread the file if another process has written it."""
        stamp = self._stamp()
        if stamp is None or stamp == self._read:
            return
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self.open = {one["member"]: Open(**one) for one in kept["open"]}
            self._done = {one["digest"]: Done(**one) for one in kept["done"]}
            self._read = stamp
        except (ValueError, KeyError, TypeError) as error:
            log.error(
                "the list of erasures %s can't be read (%s): moved to %s", self._path, error, set_aside(self._path)
            )

    @property
    def any(self) -> bool:
        """True if there are any tombstones."""
        return bool(self.open or self._done)

    def save(self) -> None:
        """Write the file durably; raises OSError."""
        if self.any or self._path.exists():
            kept = {
                "open": [asdict(one) for one in self.open.values()],
                "done": [asdict(one) for one in self._done.values()],
            }
            create_private(self._path, json.dumps(kept).encode())
            self._read = self._stamp()

    def begin(self, member: str, at_us: int, generation: int | None, command: str = "") -> None:
        """Start an erasure; one of the same member in progress starts again."""
        before = self.open.get(member)
        commands = [*(before.commands if before else ()), *([command] if command else ())]
        self.open[member] = Open(member, at_us, generation, commands, before.tags if before else [])

    def end(self, members: Collection[str]) -> None:
        """Complete the erasure of some members, recorded before it counts; raises OSError."""
        open_, done = dict(self.open), dict(self._done)
        for member in members:
            one = self.open.pop(member)
            digest = self._digest(member)
            self._done[digest] = Done(digest, one.at_us, one.generation)
        try:
            self.save()
        except OSError:
            self.open, self._done = open_, done
            raise

    def arrived(self, generation: int) -> bool:
        """Note an offered directory: erasures without a known generation happened under this one; returns whether there
        were any."""
        unknown = [one for one in self.open.values() if one.generation is None]
        for one in unknown:
            one.generation = generation
        done = [one for one in self._done.values() if one.generation is None]
        self._done |= {one.digest: Done(one.digest, one.at_us, generation) for one in done}
        return bool(unknown or done)

    def readmit(self, members: Iterable[str]) -> None:
        """Remove tombstones of members who were added again by hand."""
        for member in members:
            self._done.pop(self._digest(member), None)

    def barred(self, members: Collection[str], generation: int | None = None) -> set[str]:
        """Return which members a directory of a generation may not bring back; None: any directory."""

        def holds(then: int | None) -> bool:
            return generation is None or then is None or generation <= then

        if not any(holds(one.generation) for one in self._all()):
            return set()
        return {one for one in members if (found := self._of(one)) is not None and holds(found.generation)}

    def erased_us(self, member: str) -> int | None:
        """Return when a member was erased; None if never."""
        found = self._of(member)
        return None if found is None else found.at_us

    def prune(self, before_us: int) -> bool:
        """Remove tombstones completed before a time; returns whether there were any."""
        old = [digest for digest, one in self._done.items() if one.at_us < before_us]
        for digest in old:
            del self._done[digest]
        return bool(old)

    @property
    def oldest_us(self) -> int | None:
        """Return the time of the oldest tombstone."""
        return min((one.at_us for one in self._all()), default=None)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def _all(self) -> Iterator[Open | Done]:
        yield from self.open.values()
        yield from self._done.values()

    def _of(self, member: str) -> Open | Done | None:
        one: Open | Done | None = self.open.get(member)
        return one or self._done.get(self._digest(member))

    def _digest(self, member: str) -> str:
        return blake2b(member.encode(), key=self._key, digest_size=16, person=b"erased").hexdigest()
