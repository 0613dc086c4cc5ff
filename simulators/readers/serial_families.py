"""Simulated serial readers by their drivers' names; here R2000, UHFReader18 and 288M, Chafon CF and M100."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any

from drivers.serial import chafon_cf_codec as cf
from drivers.serial import hopeland_codec as hopeland
from drivers.serial import m100_codec as m100
from drivers.serial import r2000_codec as r2000
from drivers.serial import uhfreader18_codec as uhf
from simulators.readers.observation import RSSI_UNKNOWN, Observation, dbm_of, pc_of
from simulators.readers.polled_families import POLLED
from simulators.readers.serial_line import Faults, Module, RoundModule, SerialReader
from simulators.readers.streaming_families import ChainwayModule, HopelandModule
from simulators.readers.thingmagic import ThingMagicReader

ROUND_S = 0.3
NO_TAG_S = 0.05
"""Interval at which an M100 reports polls without a tag."""
RSSI_RAW_ZERO_DBM = 170
"""Zero of the raw RSSI: its meaning on 288M readers is unknown; the simulated ones count dBm from here."""


def r2000_tag(seen: Observation, command: int, address: int = 1, phase: bytes = b"") -> bytes:
    """Encode a tag's frame; antenna 1 to 8, or within its bank, RSSI between -129 and -2 dBm."""
    first = 0x04 | seen.port - 1 & 3
    high = (seen.port - 1) % r2000.BANK_PORTS > 3
    rssi = dbm_of(seen, -129, -2) + 129 | (0x80 if high else 0)
    return r2000.encode(address, command, bytes((first,)) + pc_of(seen.epc) + seen.epc + bytes((rssi,)) + phase)


def m100_tag(seen: Observation, antenna: bytes = b"") -> bytes:
    """Encode a tag's frame; RSSI between -128 and 127 dBm. `antenna`: a byte from firmware that reports it."""
    block = pc_of(seen.epc) + seen.epc
    crc = binascii.crc_hqx(block, 0xFFFF) ^ 0xFFFF
    rssi = dbm_of(seen, -128, 127).to_bytes(1, signed=True)
    return m100.encode(m100.NOTICE, m100.POLL, rssi + block + crc.to_bytes(2) + antenna)


def cf_tag(seen: Observation, address: int = 0) -> bytes:
    """Encode a tag's frame; RSSI in 0.1 dBm."""
    rssi = 0 if seen.rssi_cdbm == RSSI_UNKNOWN else round(seen.rssi_cdbm / 10)
    data = b"\0" + rssi.to_bytes(2, signed=True) + bytes((seen.port, 0, len(seen.epc))) + seen.epc
    return cf.encode(address, cf.INVENTORY, data)


def uhf_tags(observations: list[Observation], status: int, antenna: bool, address: int = 0) -> bytes:
    """Encode a frame of tags: of a 288M with `antenna` (that of the first), else of a UHFReader18."""
    data = bytes((status,))
    if antenna:
        data += bytes((1 << observations[0].port - 1 if observations else 1,))
    data += bytes((len(observations),))
    for seen in observations:
        data += bytes((len(seen.epc),)) + seen.epc
        if antenna:
            data += bytes((dbm_of(seen, -RSSI_RAW_ZERO_DBM, 0) + RSSI_RAW_ZERO_DBM,))
    return uhf.encode(address, uhf.INVENTORY, data)


class R2000Module(RoundModule[r2000.Frame]):
    """R2000 reader with address 1, above 8 ports in two banks of which the second is called `second`. `unconnected`
    ports are reported in every round of fast switching, and refused alone."""

    def __init__(self, ports: int = 4, round_s: float = ROUND_S, second: int = 0x10) -> None:
        super().__init__(r2000.frame_at, round_s)
        self._ports = ports
        self._second = second
        self.bank = 0
        self._command = r2000.INVENTORY
        self.antennas: tuple[int, ...] = (1,)
        self.unconnected: set[int] = set()

    def obey(self, command: r2000.Frame) -> list[bytes]:
        data, number = command.data, command.command
        if command.address not in (1, r2000.EVERYONE):
            return []
        if number == r2000.GET_VERSION:
            return [r2000.encode(1, number, b"\x08\x02")]
        if number == r2000.SET_ANTENNA:
            if data and self._port(data[0]) <= self._ports:
                self.antennas = (self._port(data[0]),)
                return [r2000.encode(1, number, bytes((r2000.SUCCESS,)))]
            return [r2000.encode(1, number, b"\x47")]
        if number == r2000.SET_BANK:
            if self._ports <= r2000.BANK_PORTS or data not in (b"\0", bytes((self._second,))):
                return [r2000.encode(1, number, b"\x41")]
            if self.bank != int(data != b"\0"):  # what it tells is told by numbers within the bank
                self._waiting.clear()
                self.antennas = ()
            self.bank = int(data != b"\0")
            return [r2000.encode(1, number, bytes((r2000.SUCCESS,)))]
        self._command = number
        if number in (r2000.INVENTORY, r2000.INVENTORY_SESSION):
            if set(self.antennas) & self.unconnected:
                return [r2000.encode(1, number, bytes((r2000.ANTENNA_MISSING,)))]
            self.begin()
        elif number == r2000.INVENTORY_FAST and len(data) in (10, 18):
            self.antennas = tuple(self._port(turn) for turn in data[:-2:2] if self._port(turn) <= self._ports)
            self.begin()
            lacking = sorted(set(self.antennas) & self.unconnected)
            return [
                r2000.encode(1, number, bytes(((port - 1) % r2000.BANK_PORTS, r2000.ANTENNA_MISSING)))
                for port in lacking
            ]
        return []

    def listens(self, port: int) -> bool:
        return super().listens(port) and port in self.antennas and port not in self.unconnected

    def _port(self, turn: int) -> int:
        """Return the port of a number within the bank."""
        return turn + 1 + self.bank * r2000.BANK_PORTS

    def tag_frame(self, seen: Observation) -> bytes:
        return r2000_tag(seen, self._command)

    def end_frame(self) -> bytes:
        return r2000.encode(
            1, self._command, bytes(((max(self.antennas, default=1) - 1) % r2000.BANK_PORTS,)) + bytes(6)
        )


class UhfModule(RoundModule[uhf.Frame]):
    """Reader with address 0: a 288M with `ports`, a UHFReader18 without, whose single antenna hears for all ports."""

    def __init__(self, ports: int = 0, round_s: float = 0.1) -> None:
        super().__init__(uhf.frame_at, round_s)
        self._ports = ports
        self._port = 1
        self.unconnected: set[int] = set()

    def obey(self, command: uhf.Frame) -> list[bytes]:
        if command.address not in (0, uhf.EVERYONE):
            return []
        if command.command == uhf.READER:
            told = bytes.fromhex("00 0016 0C03 4E00 1E0A") + (bytes((1, 0, 0, 0)) if self._ports else b"")
            return [uhf.encode(0, uhf.READER, told)]
        if command.command != uhf.INVENTORY:
            return [uhf.encode(0, command.command, b"\xfe")]
        if len(command.data) == 5:
            self._port = command.data[3] - 0x7F
            if not self._ports:
                return [uhf.encode(0, uhf.INVENTORY, b"\xfd")]
        if self._port in self.unconnected:
            return [uhf.encode(0, uhf.INVENTORY, bytes((uhf.NO_ANTENNA,)))]
        self.begin()
        return []

    def listens(self, port: int) -> bool:
        return super().listens(port) and port not in self.unconnected

    def tag_frame(self, seen: Observation) -> bytes:
        return uhf_tags([seen], uhf.MORE, bool(self._ports))

    def end_frame(self) -> bytes:
        if not self._ports:
            return uhf.encode(0, uhf.INVENTORY, bytes((uhf.NO_TAG,)))
        return uhf.encode(0, uhf.INVENTORY, bytes((uhf.DONE, 1 << self._port - 1, 0)))


class CfModule(RoundModule[cf.Frame]):
    """Chafon CF reader with address 0 and all antennas on."""

    def __init__(self, ports: int = 4, round_s: float = ROUND_S) -> None:
        super().__init__(cf.frame_at, round_s)
        self._ports = ports

    def obey(self, command: cf.Frame) -> list[bytes]:
        if command.address not in (0, cf.EVERYONE):
            return []
        if command.command == cf.DEVICE:
            return [cf.encode(0, cf.DEVICE, b"\0" + b"CF661 V1.0".ljust(32, b"\0"))]
        if command.command == cf.STOP:
            self.searching = False
            self._waiting.clear()
            return [cf.encode(0, cf.STOP, b"\0")]
        if command.command == cf.INVENTORY and len(command.data) == 5:
            self.begin()
            return []
        return [cf.encode(0, command.command, b"\x17")]

    def listens(self, port: int) -> bool:
        return super().listens(port) and port <= self._ports

    def tag_frame(self, seen: Observation) -> bytes:
        return cf_tag(seen)

    def end_frame(self) -> bytes:
        return cf.encode(0, cf.INVENTORY, bytes((cf.INVENTORY_OVER,)))


class M100Module(Module[m100.Frame]):
    """M100 module: polls the given number of times, then falls silent. One antenna hears for all ports, unless it
    `tells` which."""

    def __init__(self, tells: bool = False) -> None:
        super().__init__(m100.frame_at)
        self.polls_left = 0
        self._tells = tells

    def obey(self, command: m100.Frame) -> list[bytes]:
        if command.kind != m100.COMMAND:
            return []
        answer = b"\0"
        if command.command == m100.GET_VERSION:
            answer = b"\0M100 26dBm V1.0"
        elif command.command == m100.POLL_MANY and len(command.data) == 3:
            self.polls_left = int.from_bytes(command.data[1:])
            self.searching = True
            return []
        elif command.command == m100.STOP:
            self.searching = False
            self._waiting.clear()
        else:
            return [m100.encode(m100.ANSWER, m100.ERROR, b"\x17")]
        return [m100.encode(m100.ANSWER, command.command, answer)]

    def listens(self, port: int) -> bool:
        return self.searching

    def tag_frame(self, seen: Observation) -> bytes:
        self._count()
        return m100_tag(seen, seen.port.to_bytes(1) if self._tells else b"")

    def idle(self, quiet_s: float) -> bytes | None:
        if not self.searching or quiet_s < NO_TAG_S:
            return None
        self._count()
        return m100.encode(m100.ANSWER, m100.ERROR, bytes((m100.NO_TAG,)))

    def _count(self) -> None:
        self.polls_left -= 1
        self.searching = self.polls_left > 0


def serial_reader(
    family: str, clock: Callable[[], int], ports: int = 4, faults: Faults | None = None, seed: int = 0
) -> SerialReader[Any]:
    """Create a reader by its driver's name, with that many ports if the family has several; ValueError for unknown
    names."""
    if family == "thingmagic":
        return ThingMagicReader(clock, ports=ports, faults=faults, seed=seed)
    if family == "r2000":
        return SerialReader(R2000Module(ports), faults=faults, seed=seed)
    if family == "uhfreader18":
        return SerialReader(UhfModule(ports if ports > 1 else 0), faults=faults, seed=seed, baud=57600)
    if family == "chafon-cf":
        return SerialReader(CfModule(ports), faults=faults, seed=seed)
    if family == "m100":
        return SerialReader(M100Module(), faults=faults, seed=seed)
    if family == "chainway":
        return SerialReader(ChainwayModule(ports), faults=faults, seed=seed)
    if family in ("hopeland", "gx"):
        return SerialReader(
            HopelandModule(hopeland.AA if family == "hopeland" else hopeland.FIVE_A, ports), faults=faults, seed=seed
        )
    if family in POLLED:
        return SerialReader(POLLED[family](ports), faults=faults, seed=seed)
    raise ValueError(f"no serial reader of family {family!r} can be simulated")
