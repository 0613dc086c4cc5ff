"""Which members are being erased, and which were, in the file `<database>.erased`: it outlives the database.

While an erasure goes on the member stands there in clear; afterwards only a hash under the tag key. By it a directory
that was made before, or a database put back from a backup, can't bring the member back.
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
    """An erasure that goes on. `tags`: hex of all that stood for the member's cards, to be searched for."""

    member: str
    at_us: int
    generation: int | None
    """Of the member directory known then; None: of none yet."""
    commands: list[str] = field(default_factory=list)
    """Ids of the commands that are to be answered."""
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """What is left of one that is done."""

    digest: str
    at_us: int
    generation: int | None


class Tombstones:
    """Kept in memory, written whole by `save`. `key`: the tag key."""

    def __init__(self, database: Path, key: bytes) -> None:
        self._path = database.with_name(f"{database.name}.erased")
        self._key = key
        self.open: dict[str, Open] = {}
        self._done: dict[str, Done] = {}
        self._read: tuple[int, int] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the file if another process has written it."""
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
        """Whether there is one."""
        return bool(self.open or self._done)

    def save(self) -> None:
        """Write the file, on the disk before this returns; raises OSError."""
        if self.any or self._path.exists():
            kept = {
                "open": [asdict(one) for one in self.open.values()],
                "done": [asdict(one) for one in self._done.values()],
            }
            create_private(self._path, json.dumps(kept).encode())
            self._read = self._stamp()

    def begin(self, member: str, at_us: int, generation: int | None, command: str = "") -> None:
        """An erasure begins; one of the same member that goes on begins anew."""
        before = self.open.get(member)
        commands = [*(before.commands if before else ()), *([command] if command else ())]
        self.open[member] = Open(member, at_us, generation, commands, before.tags if before else [])

    def end(self, members: Collection[str]) -> None:
        """Nothing is left of some members: written down before it counts; raises OSError."""
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
        """A directory was offered: erasures that knew of none were made while this one held; whether there were any."""
        unknown = [one for one in self.open.values() if one.generation is None]
        for one in unknown:
            one.generation = generation
        done = [one for one in self._done.values() if one.generation is None]
        self._done |= {one.digest: Done(one.digest, one.at_us, generation) for one in done}
        return bool(unknown or done)

    def readmit(self, members: Iterable[str]) -> None:
        """Members who joined again by hand are barred no more."""
        for member in members:
            self._done.pop(self._digest(member), None)

    def barred(self, members: Collection[str], generation: int | None = None) -> set[str]:
        """Those of some members that a directory of a generation may not bring back; None: any directory."""

        def holds(then: int | None) -> bool:
            return generation is None or then is None or generation <= then

        if not any(holds(one.generation) for one in self._all()):
            return set()
        return {one for one in members if (found := self._of(one)) is not None and holds(found.generation)}

    def erased_us(self, member: str) -> int | None:
        """When a member was erased; None if that never was."""
        found = self._of(member)
        return None if found is None else found.at_us

    def prune(self, before_us: int) -> bool:
        """Forget those that were done before; whether there were any."""
        old = [digest for digest, one in self._done.items() if one.at_us < before_us]
        for digest in old:
            del self._done[digest]
        return bool(old)

    @property
    def oldest_us(self) -> int | None:
        """When the oldest one was."""
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
