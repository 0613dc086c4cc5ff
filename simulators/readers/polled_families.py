"""Simulated serial readers that store or tell a round's tags: Nordic ID (NUR), TSL (ASCII 2) and metraTec (ASCII).

By their documents: no real one's answers are public but the lines of tags and what it sends of itself here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from drivers.serial import nordicid_codec as nur
from simulators.readers.observation import RSSI_UNKNOWN, Observation, dbm_of, pc_of
from simulators.readers.serial_line import Module, RoundModule

NUR_INFO = b"\x01IDR" + b"".join(
    bytes((len(text),)) + text for text in (b"K134500382", b"K134700326", b"STIX", b"", b"PWM00226")
)
NUR_FIRMWARE = bytes((5, 10, ord("A")))
"""What a Stix tells of itself, as nurapy (an independent program) shows it."""
ROUND_S = 0.2


def nur_tags(observations: Iterable[Observation]) -> bytes:
    """Encode the answer with stored tags; RSSI in dBm."""
    data = bytes((nur.OK,))
    for seen in observations:
        dbm = dbm_of(seen, -128, 0)
        block = dbm.to_bytes(1, signed=True) + bytes((max(0, 100 + dbm),)) + bytes(2) + (866_300).to_bytes(4, "little")
        block += pc_of(seen.epc)[::-1] + bytes((3, seen.port - 1)) + seen.epc
        data += bytes((len(block),)) + block
    return nur.encode(nur.Frame(nur.FETCH, data))


def tsl_tag(seen: Observation) -> bytes:
    """Encode a tag's lines; RSSI in dBm."""
    told = f"EP: {seen.epc.hex().upper()}\r\n"
    if seen.rssi_cdbm != RSSI_UNKNOWN:
        told += f"RI: {dbm_of(seen, -128, 0)}\r\n"
    return told.encode()


def metratec_round(observations: Iterable[Observation], antenna: int | None = 0) -> bytes:
    """Encode a round at an antenna, from 0; RSSI in dBm."""
    lines = []
    for seen in observations:
        lines += [seen.epc.hex().upper(), str(dbm_of(seen, -128, -1))]
    over = f"IVF {len(lines) // 2:02d}"
    return "".join(
        f"{line}\r" for line in (*lines, *([] if antenna is None else [f"ARP {antenna:02d}"]), over)
    ).encode()


class NurModule(Module[nur.Frame]):
    """Reader with a store of tags. `old`: without wide masks of antennas."""

    def __init__(self, ports: int = 4, old: bool = False, round_s: float = ROUND_S) -> None:
        super().__init__(nur.frame_at)
        self._ports = ports
        self._old = old
        self._round_s = round_s
        self._ends_s = 0.0
        self.antennas: frozenset[int] = frozenset((1,))

    def obey(self, command: nur.Frame) -> list[bytes]:
        number = command.command
        if number == nur.INVENTORY:
            self.searching = True
            self._ends_s = time.monotonic() + self._round_s
            return []
        if number == nur.FETCH:
            if not self._waiting:
                return [self._answer(number, bytes((nur.NO_TAG,)))]
            told = nur_tags(self._waiting.values())
            if command.data == b"\x01":
                self._waiting.clear()
            return [told]
        if number == nur.READER_INFO:
            return [self._answer(number, b"\0" + NUR_INFO + NUR_FIRMWARE + bytes((0, 0, 21, self._ports)))]
        if number == nur.SETUP:
            flags = int.from_bytes(command.data[:4], "little")
            wide = bool(flags & nur.SETUP_MASK_32)
            mask = int.from_bytes(command.data[5:9], "little") if wide else command.data[4]
            ports = frozenset(port for port in range(1, 33) if mask >> port - 1 & 1)
            if (wide and self._old) or not ports or max(ports) > self._ports:
                return [self._answer(number, b"\x05")]
            self.antennas = ports
            return [self._answer(number, b"\0" + command.data)]
        if number == nur.STOP:
            self.searching = False
        return [self._answer(number, b"\0")] if number != nur.ACK else []

    def restart(self) -> bytes:
        """Lose settings and tags; returns what it says then."""
        self.searching = False
        self._waiting.clear()
        self.antennas = frozenset((1,))
        return nur.encode(nur.Frame(nur.BOOT, b"\0APP", nur.UNASKED | nur.WANTS_ACK))

    def listens(self, port: int) -> bool:
        return self.searching and port in self.antennas

    def next_tag(self) -> bytes | None:
        return None

    def tag_frame(self, seen: Observation) -> bytes:
        return nur_tags([seen])

    def idle(self, quiet_s: float) -> bytes | None:
        if not self.searching or time.monotonic() < self._ends_s:
            return None
        self.searching = False
        count = len(self._waiting)
        if not count:
            return self._answer(nur.INVENTORY, bytes((nur.NO_TAG,)))
        return self._answer(nur.INVENTORY, b"\0" + 2 * count.to_bytes(2, "little") + bytes((1, 0, 0, 4)))

    def see(self, observations: Iterable[Observation]) -> None:
        # Between rounds the tags are still there: the next one finds them.
        was, self.searching = self.searching, True
        super().see(observations)
        self.searching = was

    def _answer(self, command: int, data: bytes) -> bytes:
        return nur.encode(nur.Frame(command, data))


def _command_at(buffer: bytes, at: int) -> tuple[str, int] | str | None:
    """Probe for a line of a host."""
    if buffer[at] in b"\r\n":
        return "", 1
    end = buffer.find(b"\r", at)
    return None if end < 0 else (buffer[at:end].decode("latin-1"), end + 1 - at)


class TslModule(RoundModule[str]):
    """Reader with one antenna, which hears for all ports."""

    def __init__(self, ports: int = 1, round_s: float = ROUND_S) -> None:
        super().__init__(_command_at, round_s)

    def obey(self, command: str) -> list[bytes]:
        if not command:
            return []
        echo = f"CS: {command}\r\n".encode()
        if command == ".iv":
            self.begin()
            return [echo]
        if command == ".vr":
            about = "MF: TSL\r\nUS: 1128-EU-000001\r\nPV: 2.4\r\nUF: V1.5.0\r\n"
            return [echo + about.encode() + b"OK:\r\n\r\n"]
        if command == ".ab":
            self.searching = False
            self._waiting.clear()
        known = command.startswith((".ab", ".iv "))
        return [echo + (b"OK:\r\n\r\n" if known else b"ER: 001\r\n\r\n")]

    def tag_frame(self, seen: Observation) -> bytes:
        return tsl_tag(seen)

    def end_frame(self) -> bytes:
        return b"OK:\r\n\r\n"


class MetratecModule(Module[str]):
    """Reader with antennas that it searches in turn; one with a single port knows of none."""

    def __init__(self, ports: int = 4, round_s: float = 0.1) -> None:
        super().__init__(_command_at)
        self._ports = ports
        self._round_s = round_s
        self.turns: tuple[int, ...] = (1,)
        self._turn = 0
        self._next_s = 0.0
        self._tells = False

    def obey(self, command: str) -> list[bytes]:
        words = command.split()
        if not words:
            return []
        if words[0] == "BRK":
            was, self.searching = self.searching, False
            self._waiting.clear()
            return [b"BRA\r" if was else b"NCM\r"]
        if self.searching:
            return []
        if words[0] == "REV":
            return [b"PULSAR_MX      01000315\r"]
        if command == "CNR INV":
            self.searching = True
            return []
        if words[0] == "SAP":
            if self._ports < 2:
                return [b"NOS\r"]
            if words[1] == "ARP":
                self._tells = words[2] == "ON"
            else:
                number = int(words[2])
                if number > self._ports:
                    return [b"NOR\r"]
                self.turns = (number + 1,) if words[1] == "MAN" else tuple(range(1, number + 1))
            return [b"OK!\r"]
        return [b"OK!\r" if words[0] in ("VBL", "SET", "COF") else b"UCO\r"]

    def listens(self, port: int) -> bool:
        return self.searching and (port in self.turns or self._ports < 2)

    def next_tag(self) -> bytes | None:
        return None

    def tag_frame(self, seen: Observation) -> bytes:
        return metratec_round([seen], seen.port - 1)

    def idle(self, quiet_s: float) -> bytes | None:
        now_s = time.monotonic()
        if not self.searching or now_s < self._next_s:
            return None
        self._next_s = now_s + self._round_s / len(self.turns)
        self._turn += 1
        port = self.turns[self._turn % len(self.turns)]
        here = [key for key in self._waiting if key[1] == port or self._ports < 2]
        return metratec_round([self._waiting.pop(key) for key in here], port - 1 if self._tells else None)


POLLED: dict[str, Callable[[int], Module[Any]]] = {
    "nordicid": NurModule,
    "tsl": TslModule,
    "metratec": MetratecModule,
}
"""Modules by driver, each for a number of ports."""
