"""Session with a Chafon reader of the newer kind (head CF): repeated inventories of a second."""

from __future__ import annotations

import re
from contextlib import suppress

from drivers.serial import chafon_cf_codec as codec
from drivers.serial.chafon_cf_codec import Frame
from drivers.serial.session import ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line
from drivers.session import Clock, ReaderSettings, Sink

ROUND_S = 1
"""Length of a round: its end is a sign of life, which an endless inventory wouldn't give."""
STOP = codec.encode(codec.EVERYONE, codec.STOP)
DEVICE = codec.encode(codec.EVERYONE, codec.DEVICE)


class ChafonCfSession(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. Its antennas are configured in the reader."""

    NAME = "Chafon (CF)"
    BAUDS = (115200, 57600, 38400, 19200, 9600)
    PORT_MAX = 16

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        super().__init__(settings, sink, clock)
        self._address = codec.EVERYONE

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            await self._ask(line, STOP, lambda f: f.command == codec.STOP and bool(f.data), patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        answer = await self._ask(line, DEVICE, lambda f: f.command == codec.DEVICE and bool(f.data), patience_s)
        self._address = answer.address
        texts = [text.decode() for text in re.findall(rb"[ -~]{3,}", answer.data[1:])]
        return {"address": f"{answer.address:02X}"} | ({"model": " ".join(texts)} if texts else {})

    async def _start(self, line: Line) -> None:
        await line.write(codec.inventory(self._address, ROUND_S))
