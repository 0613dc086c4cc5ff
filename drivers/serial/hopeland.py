"""Sessions with Hopeland/CLOU readers (head AA) and their relatives with head 5A, mostly at tcp://reader:9090."""

from __future__ import annotations

from typing import ClassVar

from drivers.serial import hopeland_codec as codec
from drivers.serial.hopeland_codec import AA, FIVE_A, Dialect, Frame
from drivers.serial.streaming import StreamingSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line


class HopelandSession(StreamingSession[Frame]):
    """Session with one reader, until `run` is cancelled. The antennas are part of the command to start."""

    NAME = "Hopeland"
    BAUDS: ClassVar[tuple[int, ...]] = (115200, 19200, 9600)
    PORT_MAX = 8
    DIALECT: ClassVar[Dialect] = AA

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.aa_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    def _reply(self, frame: Frame) -> bytes:
        return codec.reply(frame)

    async def _stop(self, line: Line, patience_s: float) -> None:
        await self._question(line, codec.RADIO, codec.STOP, patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        info = await self._question(line, codec.READER, codec.INFO, patience_s)
        ability = await self._question(line, codec.RADIO, codec.ABILITY, patience_s)
        return self._describe(info.data) | _ability(ability.data)

    async def _start(self, line: Line) -> None:
        await line.write(codec.start(self.DIALECT, sorted(self._settings.ports)))

    def _describe(self, info: bytes) -> dict[str, str]:
        """Decode version (u16, u8, u8), name and seconds since power-on."""
        told = {"firmware": f"{int.from_bytes(info[:2])}.{'.'.join(map(str, info[2:4]))}"}
        name = info[6 : 6 + int.from_bytes(info[4:6])].decode("ascii", "replace").strip("\0 ")
        return told | ({"model": name} if name else {})

    async def _question(self, line: Line, kind: int, number: int, patience_s: float) -> Frame:
        asked = codec.encode(Frame(kind, number, b"", dialect=self.DIALECT))
        return await self._ask(
            line, asked, lambda f: (f.kind, f.id, f.unasked) == (kind, number, False) and bool(f.data), patience_s
        )


class GxSession(HopelandSession):
    """Session with a reader of the 5A kind."""

    NAME = "GX (5A)"
    BAUDS = (115200, 9600, 19200, 230400, 460800)
    PORT_MAX = 32
    DIALECT = FIVE_A

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.five_a_at(buffer, at)

    def _describe(self, info: bytes) -> dict[str, str]:
        """Decode serial number, seconds since power-on and the date of its firmware."""
        serial, rest = _text(info)
        date, _ = _text(rest[4:])
        return {name: text for name, text in (("serial", serial), ("firmware_date", date)) if text}


def _text(data: bytes) -> tuple[str, bytes]:
    """Decode a text whose length comes first, and return what follows it."""
    end = 2 + int.from_bytes(data[:2])
    return data[2:end].decode("ascii", "replace").strip("\0 "), data[end:]


def _ability(data: bytes) -> dict[str, str]:
    if len(data) < 3:
        return {}
    return {"ports": str(data[2]), "power": f"{data[0]} to {data[1]} dBm"}
