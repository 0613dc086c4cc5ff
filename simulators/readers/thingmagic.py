"""Simulated ThingMagic/Mercury reader on a pseudo-terminal, with its timing and line faults."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from pathlib import Path

from drivers.serial import thingmagic_codec as codec
from drivers.serial.thingmagic_codec import Command
from simulators.readers.observation import Observation
from simulators.readers.serial_line import BITS_A_BYTE, Faults, SerialReader
from simulators.readers.serial_line import Module as SerialModule

Clock = Callable[[], int]

BAUD = 115200
BYTES_PER_S = BAUD // BITS_A_BYTE
KEEPALIVE_S = 1.0
VERSION = bytes.fromhex("16020500 20000000 20240112 01040300 00000010")
_STATUS_UNKNOWN_COMMAND = 0x0101
_STATUS_BAD_LENGTH = 0x0100
_STATUS_NO_ANTENNA = 0x0503
_FLAGS = 0x01FF
_FREQUENCY, _PHASE, _PROTOCOL, _GPIO = 0x0008, 0x0020, 0x0040, 0x0100
_CARRIER_KHZ = 923200


def reply(op: int, status: int = codec.STATUS_OK, data: bytes = b"") -> bytes:
    """Encode a frame from the reader to the host."""
    body = bytes((len(data), op)) + status.to_bytes(2) + data
    return b"\xff" + body + codec.crc(body).to_bytes(2)


def tag_reply(seen: Observation, time_ms: int, flags: int = codec.METADATA) -> bytes:
    """Encode a streamed read with the metadata in `flags`, up to the GPIO pins (0x0100)."""
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


class Module(SerialModule[Command]):
    """Logic of the reader: commands in, replies out, and tags while it searches. No I/O."""

    def __init__(self, clock: Clock, ports: int = 4) -> None:
        super().__init__(codec.command_at)
        self._clock = clock
        self._ports = ports
        self._cycle_ms = 0
        self._began_us = 0
        self._flags = 0
        self.antennas: tuple[int, ...] = (1,)
        self.region = 0

    def restart(self) -> bytes:
        """Restart after a loss of power: region and baud rate stay, antennas and the search don't. Returns its boot
        message."""
        self.searching = False
        self.antennas = (1,)
        self._waiting.clear()
        return reply(codec.OP_BOOT, data=VERSION)

    def obey(self, command: Command) -> list[bytes]:
        status, content = self._obey(command.op, command.data)
        return [reply(command.op, status, content)]

    def listens(self, port: int) -> bool:
        return self.searching and port in self.antennas

    def tag_frame(self, seen: Observation) -> bytes:
        since_ms = max(0, seen.time_us - self._began_us) // 1000
        return tag_reply(seen, since_ms % self._cycle_ms if self._cycle_ms else since_ms, self._flags)

    def idle(self, quiet_s: float) -> bytes | None:
        if not self.searching or quiet_s < KEEPALIVE_S:
            return None
        return reply(codec.OP_READ_MULTIPLE, codec.STATUS_NO_TAGS)

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


class ThingMagicReader(SerialReader[Module]):
    """Module on a pseudo-terminal, see SerialReader."""

    def __init__(
        self, clock: Clock, path: Path | None = None, ports: int = 4, faults: Faults | None = None, seed: int = 0
    ) -> None:
        super().__init__(Module(clock, ports), path, faults, seed, BAUD)
