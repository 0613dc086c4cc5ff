"""Serial readers on a pseudo-terminal, for all families: commands, baud rate and line faults."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from drivers.serial.framing import GAP_S, Framer, Probe, scan
from simulators.readers.observation import Observation

F = TypeVar("F")
M = TypeVar("M", bound="Module[Any]")

BITS_A_BYTE = 10
"""Including start and stop bit."""
_TICK_S = 0.02
_OVERDUE_S = 0.25
"""Maximum delay of the event loop that output makes up for."""


@dataclass(frozen=True)
class Faults:
    """Shares (0–1) of frames affected by a bad line; `garbage_bytes` precede a frame."""

    garbage: float = 0.0
    lose_byte: float = 0.0
    flip_bit: float = 0.0
    split: bool = False
    garbage_bytes: int = 24


class Module(ABC, Generic[F]):
    """Logic of a reader: commands in, answers out, and tags while it searches. No I/O."""

    def __init__(self, probe: Probe[F]) -> None:
        self._framer = Framer(partial(scan, probe=probe))
        self._heard_s = 0.0
        self._waiting: dict[tuple[bytes, int], Observation] = {}
        self.searching = False

    @abstractmethod
    def obey(self, command: F) -> list[bytes]:
        """Execute a command; returns answer frames."""

    @abstractmethod
    def tag_frame(self, seen: Observation) -> bytes:
        """Encode a read."""

    @abstractmethod
    def listens(self, port: int) -> bool:
        """True if observations at `port` are taken now."""

    def idle(self, quiet_s: float) -> bytes | None:
        """Return the frame that it sends unasked, `quiet_s` after its last one, while no tag waits."""

    def receive(self, chunk: bytes) -> list[bytes]:
        """Execute the commands that `chunk` completes; returns answer frames. Invalid commands are ignored."""
        now_s = time.monotonic()
        commands: list[F] = []
        if now_s - self._heard_s > GAP_S:
            while self._framer.pending:
                commands += self._framer.gap()
        self._heard_s = now_s
        commands += self._framer.feed(chunk)
        return [answer for command in commands for answer in self.obey(command)]

    def see(self, observations: Iterable[Observation]) -> None:
        """Take observations. A tag that still waits for the line is counted up, as in a tag buffer."""
        for seen in observations:
            if self.listens(seen.port):
                key = (seen.epc, seen.port)
                before = self._waiting.pop(key, None)
                self._waiting[key] = seen._replace(count=seen.count + before.count) if before else seen

    def next_tag(self) -> bytes | None:
        """Return the frame of the tag that waits longest."""
        if not self._waiting or not self.searching:
            return None
        return self.tag_frame(self._waiting.pop(next(iter(self._waiting))))


class RoundModule(Module[F]):
    """Reader that searches in rounds and reports the end of each; between rounds, tags are remembered for a moment."""

    MEMORY_S = 1.0

    def __init__(self, probe: Probe[F], round_s: float) -> None:
        super().__init__(probe)
        self.round_s = round_s
        self._ends_s = 0.0

    @abstractmethod
    def end_frame(self) -> bytes:
        """Return the frame that ends a round."""

    def begin(self) -> None:
        """Start a round; a running one is extended to a full round from now."""
        if time.monotonic() - self._ends_s > self.MEMORY_S:
            self._waiting.clear()
        self.searching = True
        self._ends_s = time.monotonic() + self.round_s

    def listens(self, port: int) -> bool:
        return self.searching or time.monotonic() - self._ends_s < self.MEMORY_S

    def next_tag(self) -> bytes | None:
        return None if self._over() else super().next_tag()

    def idle(self, quiet_s: float) -> bytes | None:
        if not self._over():
            return None
        self.searching = False
        return self.end_frame()

    def _over(self) -> bool:
        return self.searching and time.monotonic() >= self._ends_s


class SerialReader(Generic[M]):
    """Module on a pseudo-terminal; its address stays the same when replugged, as udev does it. Continues streaming
    without a host, at `baud` and never faster, whatever the clock does.
    """

    def __init__(
        self,
        module: M,
        path: Path | None = None,
        faults: Faults | None = None,
        seed: int = 0,
        baud: int = 115200,
    ) -> None:
        self.module = module
        self.faults = faults or Faults()
        self._bytes_per_s = baud / BITS_A_BYTE
        self._folder = tempfile.TemporaryDirectory(prefix="tagtrail-tty-")
        self._path = path or Path(self._folder.name) / "reader"
        self._random = random.Random(seed)
        self._out: list[bytes] = []
        self._more = asyncio.Event()
        self._master = self._slave = -1
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Plug in; returns the address for a driver."""
        self._master, self._slave = os.openpty()  # our own slave end keeps the line alive while no host has it open
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._path.unlink(missing_ok=True)
        self._path.symlink_to(os.ttyname(self._slave))
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        self._writing = asyncio.create_task(self._write())
        return str(self._path)

    async def stop(self) -> None:
        """Unplug."""
        if self._writing is None:
            return
        self._writing.cancel()
        with suppress(asyncio.CancelledError):
            await self._writing
        self._writing = None
        asyncio.get_running_loop().remove_reader(self._master)
        self._path.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)

    def push(self, observations: Iterable[Observation]) -> None:
        """Take observations; lost unless the host has started reading."""
        self.module.see(observations)
        self._more.set()

    def send(self, raw: bytes) -> None:
        """Send bytes unchanged."""
        self._out.append(raw)
        self._more.set()

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            self._out.extend(self.module.receive(os.read(self._master, 4096)))
            self._more.set()

    async def _write(self) -> None:
        """Send pending frames, answers before tags, n bytes in n / bytes_per_s."""
        loop = asyncio.get_running_loop()
        free_s = quiet_since_s = loop.time()
        while True:
            frame = self._out.pop(0) if self._out else self.module.next_tag()
            if frame is None:
                frame = self.module.idle(loop.time() - quiet_since_s)
            if frame is None:
                self._more.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_S):
                        await self._more.wait()
                free_s = loop.time()
                continue
            for piece in self._spoil(frame):
                with suppress(BlockingIOError):  # nobody reads: a wire loses what is sent then
                    os.write(self._master, piece)
                free_s = max(free_s, loop.time() - _OVERDUE_S) + len(piece) / self._bytes_per_s
                await asyncio.sleep(free_s - loop.time())
            quiet_since_s = loop.time()

    def _spoil(self, frame: bytes) -> list[bytes]:
        faults, chance = self.faults, self._random
        if chance.random() < faults.lose_byte:
            lost = chance.randrange(len(frame))
            frame = frame[:lost] + frame[lost + 1 :]
        if chance.random() < faults.flip_bit:
            at = chance.randrange(len(frame))
            frame = frame[:at] + bytes((frame[at] ^ 1 << chance.randrange(8),)) + frame[at + 1 :]
        if chance.random() < faults.garbage:
            frame = chance.randbytes(faults.garbage_bytes) + frame
        if not faults.split:
            return [frame]
        pieces = []
        while frame:
            size = chance.randint(1, 8)
            pieces.append(frame[:size])
            frame = frame[size:]
        return pieces
