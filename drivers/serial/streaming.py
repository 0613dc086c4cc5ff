"""Sessions with readers that stream tags until they are stopped, and say nothing while they find none."""

from __future__ import annotations

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

    @abstractmethod
    async def _stop(self, line: Line, patience_s: float) -> None:
        """Stop reading; ReaderError if the reader does not answer."""

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
