"""Simulated serial readers that stream until they are stopped: Chainway, Hopeland/CLOU (AA) and its relatives (5A).

What Chainway and Hopeland say of themselves is what real ones said in public captures, the 5A's is by its document.
"""

from __future__ import annotations

from drivers.serial import chainway_codec as chainway
from drivers.serial import hopeland_codec as hopeland
from drivers.serial.hopeland_codec import AA, RADIO, READER, Dialect
from simulators.readers.observation import RSSI_UNKNOWN, Observation, dbm_of, pc_of
from simulators.readers.serial_line import Module

UR4_VERSION = bytes((7, 40, 1))
UR4_MAINBOARD = bytes((7, 0, 9))
CL7206_INFO = bytes.fromhex("00010110") + b"\0\x11CL7206B2_20170606" + bytes.fromhex("0160424A")
CL7206_ABILITY = (bytes.fromhex("0024"), bytes.fromhex("0005000102030400020001"))
"""0 to 36 dBm, and behind the number of ports its frequency bands and protocols."""
GX_INFO = b"\0\x09GX-000001\0\0\x01\x52\0\x0a2025-03-01"
ALIVE_S = 10.0
"""Interval of a Hopeland reader's sign of life."""


def chainway_tag(seen: Observation, command: int = chainway.TAG) -> bytes:
    """Encode a tag's frame; RSSI in 0.1 dBm."""
    rssi = 0 if seen.rssi_cdbm == RSSI_UNKNOWN else round(seen.rssi_cdbm / 10)
    return chainway.encode(command, pc_of(seen.epc) + seen.epc + rssi.to_bytes(2, signed=True) + bytes((seen.port,)))


def hopeland_tag(seen: Observation, dialect: Dialect = AA, sequence: int | None = None) -> bytes:
    """Encode a tag's frame; 5A with RSSI in dBm. `sequence`: number of a tag that is to be confirmed."""
    data = len(seen.epc).to_bytes(2) + seen.epc + pc_of(seen.epc) + bytes((seen.port,))
    data += b"\x01" + bytes((dbm_of(seen, -128, 0) + 128,))
    if dialect.dbm is not None:
        data += bytes((dialect.dbm,)) + dbm_of(seen, -150, 20).to_bytes(2, signed=True)
    if sequence is not None:
        data += bytes((dialect.sequence,)) + sequence.to_bytes(4)
    return hopeland.encode(hopeland.Frame(RADIO, hopeland.TAG, data, unasked=True, dialect=dialect))


class ChainwayModule(Module[chainway.Frame]):
    """UR4: while it reads, it obeys nothing but the command to stop."""

    def __init__(self, ports: int = 4) -> None:
        super().__init__(chainway.frame_at)
        self._ports = ports
        self.antennas: frozenset[int] = frozenset((1,))

    def obey(self, command: chainway.Frame) -> list[bytes]:
        number = command.command
        if number == chainway.STOP:
            self.searching = False
            self._waiting.clear()
            return [chainway.encode(number + 1, chainway.OK)]
        if self.searching:
            return []
        if number == chainway.START:
            self.searching = True
            return []
        told = {chainway.GET_VERSION: UR4_VERSION, chainway.GET_MAINBOARD: UR4_MAINBOARD}
        if number in told:
            return [chainway.encode(number + 1, told[number])]
        if number == chainway.SET_ANTENNAS:
            mask = int.from_bytes(command.data[1:])
            wanted = frozenset(port for port in range(1, 17) if mask >> port - 1 & 1)
            if not wanted <= set(range(1, self._ports + 1)):
                return [chainway.encode(number + 1, b"\0")]
            self.antennas = wanted
        return [chainway.encode(number + 1, chainway.OK)]

    def listens(self, port: int) -> bool:
        return self.searching and port in self.antennas

    def tag_frame(self, seen: Observation) -> bytes:
        return chainway_tag(seen)


class HopelandModule(Module[hopeland.Frame]):
    """CL7206 or a reader of the 5A kind. With `numbers` it numbers its tags, and keeps each until it is confirmed."""

    def __init__(self, dialect: Dialect = AA, ports: int = 4, numbers: bool = False) -> None:
        super().__init__(hopeland.aa_at if dialect is AA else hopeland.five_a_at)
        self._dialect = dialect
        self._ports = ports
        self._numbers = numbers
        self.antennas: frozenset[int] = frozenset()
        self.unconfirmed: set[int] = set()
        self._sequence = 0
        self._alive = 0

    def obey(self, command: hopeland.Frame) -> list[bytes]:
        what = (command.kind, command.id)
        if what == (READER, hopeland.INFO):
            return [self._answer(command, CL7206_INFO if self._dialect is AA else GX_INFO)]
        if what == (READER, hopeland.TAG_CONFIRM):
            self.unconfirmed.discard(int.from_bytes(command.data))
            return []
        if command.kind != RADIO:
            return []
        if command.id == hopeland.ABILITY:
            return [self._answer(command, CL7206_ABILITY[0] + bytes((self._ports,)) + CL7206_ABILITY[1])]
        if command.id == hopeland.STOP:
            self.searching = False
            self._waiting.clear()
            return [self._answer(command, b"\0")]
        if command.id == hopeland.INVENTORY:
            mask = int.from_bytes(command.data[: self._dialect.mask_bytes])
            wanted = frozenset(port for port in range(1, 33) if mask >> port - 1 & 1)
            if not wanted or max(wanted) > self._ports:
                return [self._answer(command, b"\x01")]
            self.antennas, self.searching = wanted, True
            return [self._answer(command, b"\0")]
        return [hopeland.encode(hopeland.Frame(hopeland.ERROR, 0, b"\x02", dialect=self._dialect))]

    def listens(self, port: int) -> bool:
        return self.searching and port in self.antennas

    def tag_frame(self, seen: Observation) -> bytes:
        if not self._numbers:
            return hopeland_tag(seen, self._dialect)
        self._sequence += 1
        self.unconfirmed.add(self._sequence)
        return hopeland_tag(seen, self._dialect, self._sequence)

    def idle(self, quiet_s: float) -> bytes | None:
        if quiet_s < ALIVE_S:
            return None
        self._alive += 1
        alive = hopeland.Frame(READER, hopeland.CONFIRM, self._alive.to_bytes(4), unasked=True, dialect=self._dialect)
        return hopeland.encode(alive)

    def _answer(self, command: hopeland.Frame, data: bytes) -> bytes:
        return hopeland.encode(hopeland.Frame(command.kind, command.id, data, dialect=self._dialect))
