"""Sessions with readers that stream tags until they are stopped, and say nothing while they find none."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from typing import ClassVar, TypeVar

from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.transport import Line
from drivers.session import Link

F = TypeVar("F")


class StreamingSession(SerialSession[F]):
    """Session with one such reader. Its silence can mean an empty shop, a forgotten inventory or a dead reader: it is
    stopped, set up and started again each time, and only one that doesn't answer is down.
    """

    SETS_PORTS = True
    SILENCE_S: ClassVar[float] = 2.0
    ALIVE: ClassVar[bytes] = b""
    """Sign of life that the reader is sent every ALIVE_S, also while it reads."""
    ALIVE_S: ClassVar[float] = 5.0
    _alive_s = 0.0

    @abstractmethod
    async def _stop(self, line: Line, patience_s: float) -> None:
        """Stop reading; ReaderError if the reader does not answer."""

    async def _frames(self, line: Line, patience_s: float) -> list[F]:
        frames = await super()._frames(line, patience_s)
        now_s = asyncio.get_running_loop().time()
        if self.ALIVE and now_s - self._alive_s >= self.ALIVE_S:
            self._alive_s = now_s
            await line.write(self.ALIVE)
        return frames

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            await self._stop(line, patience_s)

    async def _silence(self, line: Line, again: bool) -> None:
        try:
            await self._stop(line, ANSWER_S)
        except ReaderError:
            reason = f"it has sent nothing for {self.SILENCE_S:g} s and does not answer"
            self._tell(Link.DOWN, reason, self._received_us)
            raise
        await self._set_up(line)
        await self._go_on(line)
        self._tell(Link.UP, self._reading())
