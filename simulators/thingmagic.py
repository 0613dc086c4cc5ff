"""A ThingMagic/Mercury reader on a pseudo-terminal: the protocol, its pace and its bad habits."""

from __future__ import annotations

import asyncio
import binascii
import os
import random
import tempfile
import tty
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drivers import thingmagic_codec as codec
from simulators.observation import Observation

Clock = Callable[[], int]

BYTES_PER_S = 11520
"""115200 baud with start and stop bit."""
KEEPALIVE_S = 1.0
VERSION = bytes.fromhex("16020500 20000000 20240112 01040300 00000010")
_STATUS_UNKNOWN_COMMAND = 0x0101
_STATUS_BAD_LENGTH = 0x0100
_STATUS_NO_ANTENNA = 0x0503
_FLAGS = 0x01FF
_FREQUENCY, _PHASE, _PROTOCOL, _GPIO = 0x0008, 0x0020, 0x0040, 0x0100
_CARRIER_KHZ = 923200
_OVERDUE_S = 0.25
"""Output held back by the event loop is made up for, but not by more than this."""


@dataclass(frozen=True)
class Faults:
    """Shares (0–1) of frames that a bad line does something to; `garbage_bytes` go before a frame."""

    garbage: float = 0.0
    lose_byte: float = 0.0
    flip_bit: float = 0.0
    split: bool = False
    garbage_bytes: int = 24


def reply(op: int, status: int = codec.STATUS_OK, data: bytes = b"") -> bytes:
    """A frame from the reader to the host."""
    body = bytes((len(data), op)) + status.to_bytes(2) + data
    return b"\xff" + body + codec.crc(body).to_bytes(2)


def tag_reply(seen: Observation, time_ms: int, flags: int = codec.METADATA) -> bytes:
    """The frame of a streamed read with the metadata that `flags` ask for, up to the GPIO pins (0x0100)."""
    flags &= _FLAGS
    metadata = b""
    if flags & codec.COUNT:
        metadata += min(seen.count, 255).to_bytes(1)
    if flags & codec.RSSI:
        metadata += max(-128, min(127, round(seen.rssi_cdbm / 100))).to_bytes(1, signed=True)
    if flags & codec.ANTENNA:
        metadata += bytes((0x11 * (seen.port % 16),))
    if flags & _FREQUENCY:
        metadata += _CARRIER_KHZ.to_bytes(3)
    if flags & codec.TIMESTAMP:
        metadata += (time_ms & 0xFFFFFFFF).to_bytes(4)
    if flags & _PHASE:
        metadata += bytes(2)
    if flags & _PROTOCOL:
        metadata += b"\x05"
    if flags & codec.DATA:
        metadata += bytes(2)
    if flags & _GPIO:
        metadata += b"\x0f"
    pc = (len(seen.epc) // 2) << 11
    block = pc.to_bytes(2) + seen.epc
    block += (binascii.crc_hqx(block, 0xFFFF) ^ 0xFFFF).to_bytes(2)
    record = b"\x10\x00\x1b" + flags.to_bytes(2) + b"\x01" + metadata + (8 * len(block)).to_bytes(2) + block
    return reply(codec.OP_READ_MULTIPLE, data=record)


class Module:
    """The reader's head: commands in, replies out, and what it sees while it searches. No I/O."""

    def __init__(self, clock: Clock, ports: int = 4) -> None:
        self._clock = clock
        self._commands = b""
        self._ports = ports
        self._waiting: dict[tuple[bytes, int], Observation] = {}
        self._cycle_ms = 0
        self._began_us = 0
        self._flags = 0
        self.antennas: tuple[int, ...] = (1,)
        self.region = 0
        self.searching = False

    def receive(self, chunk: bytes) -> list[bytes]:
        """Replies to the commands that `chunk` completes; what is no command is ignored."""
        self._commands += chunk
        replies: list[bytes] = []
        while True:
            start = self._commands.find(codec.HEADER)
            self._commands = self._commands[start:] if start >= 0 else b""
            size = self._commands[1] + codec.COMMAND_OVERHEAD if len(self._commands) > 1 else 2
            if len(self._commands) < size:
                return replies
            frame = self._commands[:size]
            if codec.crc(frame[1:-2]) != int.from_bytes(frame[-2:]):
                self._commands = self._commands[1:]
                continue
            self._commands = self._commands[size:]
            status, content = self._obey(frame[2], frame[3:-2])
            replies.append(reply(frame[2], status, content))

    def see(self, observations: Iterable[Observation]) -> None:
        """Take what the antennas saw. A tag that still waits for the line is counted up, as in a tag buffer."""
        if not self.searching:
            return
        for seen in observations:
            if seen.port in self.antennas:
                key = (seen.epc, seen.port)
                before = self._waiting.pop(key, None)
                self._waiting[key] = seen._replace(count=seen.count + before.count) if before else seen

    def next_tag(self) -> bytes | None:
        """The frame of the tag that waits longest."""
        if not self._waiting:
            return None
        seen = self._waiting.pop(next(iter(self._waiting)))
        since_ms = max(0, seen.time_us - self._began_us) // 1000
        return tag_reply(seen, since_ms % self._cycle_ms if self._cycle_ms else since_ms, self._flags)

    def _obey(self, op: int, data: bytes) -> tuple[int, bytes]:
        match op, len(data):
            case codec.OP_VERSION, 0:
                return codec.STATUS_OK, VERSION
            case codec.OP_GET_REGION, 0:
                return codec.STATUS_OK, bytes((self.region,))
            case codec.OP_REGION, 1:
                self.region = data[0]
            case codec.OP_ANTENNAS, _ if data[:1] == b"\x02" and len(data) % 2 and len(data) > 1:
                if max(data[1:]) > self._ports or min(data[1:]) < 1:
                    return _STATUS_NO_ANTENNA, b""
                self.antennas = tuple(data[1::2])
            case (codec.OP_PROTOCOL, 2) | (codec.OP_OPTION, 3) | (codec.OP_READ_POWER, 2):
                pass
            case codec.OP_CONTINUOUS, 3 if data[2] == 2:
                self.searching = False
                self._waiting.clear()
                return codec.STATUS_OK, b"\x02"
            case codec.OP_CONTINUOUS, 16 if data[2:4] == b"\x01\x22":
                self._cycle_ms = int.from_bytes(data[12:14])
                self._flags = int.from_bytes(data[14:16])
                self._began_us = self._clock()
                self.searching = True
                return codec.STATUS_OK, b"\x01"
            case ((codec.OP_VERSION | codec.OP_REGION | codec.OP_ANTENNAS | codec.OP_CONTINUOUS), _):
                return _STATUS_BAD_LENGTH, b""
            case _:
                return _STATUS_UNKNOWN_COMMAND, b""
        return codec.STATUS_OK, b""


class ThingMagicReader:
    """The module on a pseudo-terminal; its address stays when it is unplugged and plugged in, as udev makes it.

    Goes on streaming when the host has gone, at 115200 baud and never faster, whatever the clock does.
    """

    def __init__(
        self, clock: Clock, path: Path | None = None, ports: int = 4, faults: Faults | None = None, seed: int = 0
    ) -> None:
        self.module = Module(clock, ports)
        self.faults = faults or Faults()
        self._folder = tempfile.TemporaryDirectory(prefix="tagtrail-tty-")
        self._path = path or Path(self._folder.name) / "reader"
        self._random = random.Random(seed)
        self._out: list[bytes] = []
        self._more = asyncio.Event()
        self._master = self._slave = -1
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Plug in; returns the address that a driver opens."""
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
        """Let the antennas see tags; nothing comes of it unless the host has started reading."""
        self.module.see(observations)
        self._more.set()

    def send(self, raw: bytes) -> None:
        """Put bytes on the line as they are."""
        self._out.append(raw)
        self._more.set()

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            self._out.extend(self.module.receive(os.read(self._master, 4096)))
            self._more.set()

    async def _write(self) -> None:
        """Send what there is, replies before tags, n bytes in n / BYTES_PER_S."""
        loop = asyncio.get_running_loop()
        free_s = loop.time()
        while True:
            frame = self._out.pop(0) if self._out else self.module.next_tag()
            if frame is None:
                self._more.clear()
                try:
                    async with asyncio.timeout(KEEPALIVE_S):
                        await self._more.wait()
                    free_s = loop.time()
                    continue
                except TimeoutError:
                    if not self.module.searching:
                        continue
                    frame = reply(codec.OP_READ_MULTIPLE, codec.STATUS_NO_TAGS)
            for piece in self._spoil(frame):
                with suppress(BlockingIOError):  # nobody reads: a wire loses what is sent then
                    os.write(self._master, piece)
                free_s = max(free_s, loop.time() - _OVERDUE_S) + len(piece) / BYTES_PER_S
                await asyncio.sleep(free_s - loop.time())

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
