"""R2000-style serial protocol (Invelion, YR8900, IND903 and kin): frames, no I/O.

    ┌────┬─────┬──────┬─────┬──────────────┬───────┐
    │ A0 │ len │ addr │ cmd │ (len-3) × u8 │ check │      both ways
    └────┴─────┴──────┴─────┴──────────────┴───────┘
     0    1     2      3     4

`len` counts addr to check; all bytes of a frame add up to 0 mod 256. Address FF is everyone's. Big-endian.

Boards with 16 ports have two banks of eight: 6C chooses one (0, or 10 hex; some boards say 1), and all other commands
and answers mean ports of that bank.

Answers to an inventory (89 real time, 8A over several antennas, 8B with session and target):

    tag      len odd    freq << 2 | antenna - 1 │ PC u16 │ EPC │ rssi u8 │ [phase u16]     antenna 5 to 8 if rssi & 80
    end      len 0A     89, 8B: antenna u8 │ reads/s u16 │ reads u32      8A: reads u24 │ ms u32
    lacks    len 5      8A: antenna u8 │ code; the others go on
    failure  len 4      code; 36: no tag answered

RSSI in dBm is (rssi & 7F) - 129. Eight bits of checksum let one false frame in 256 pass, so what is no known command in
one of these shapes is no frame; a session that knows the reader's address asks for that too.
"""

from __future__ import annotations

from typing import NamedTuple

from drivers.serial.tags import Content, MalformedRecordError, TagRead, epc_of, once, readable

HEAD = 0xA0
EVERYONE = 0xFF
BANK_PORTS = 8

RESET = 0x70
GET_VERSION = 0x72
SET_BANK = 0x6C
SET_ANTENNA = 0x74
INVENTORY = 0x89
INVENTORY_FAST = 0x8A
INVENTORY_SESSION = 0x8B

SUCCESS = 0x10
ANTENNA_MISSING = 0x22
NO_TAG = 0x36

_INVENTORIES = (INVENTORY, INVENTORY_FAST, INVENTORY_SESSION)
_COMMANDS = frozenset((*range(0x60, 0xA0), *range(0xB0, 0xB5)))
_END_BYTES = 7
_HOST_BYTES = {INVENTORY: (1,), INVENTORY_FAST: range(10, 40), INVENTORY_SESSION: range(3, 8)}
"""Data lengths of commands, which tell them from answers on a tapped line."""
_RSSI_ZERO_DBM = 129

_CODES = {
    0x11: "the command failed",
    0x20: "its processor was reset",
    0x21: "it can't switch its carrier on",
    0x22: "no antenna is connected to one of the configured ports",
    0x25: "it can't set its power",
    0x31: "its inventory failed",
    0x40: "access was refused",
    0x41: "a parameter is invalid",
    0x46: "its address is another",
    0x47: "it has no such antenna port",
    0x49: "its frequency region is invalid",
    0x52: "its oscillator does not lock",
    0x53: "its radio chip does not answer",
    0x54: "it does not reach its power",
    0x56: "its frequencies break its region's rules",
    0x57: "its power is too low",
}


class Frame(NamedTuple):
    """Frame of either direction."""

    address: int
    command: int
    data: bytes


def encode(address: int, command: int, data: bytes = b"") -> bytes:
    """Encode a frame, to or from the reader."""
    frame = bytes((HEAD, len(data) + 3, address, command)) + data
    return frame + bytes((-sum(frame) & 0xFF,))


def inventory_fast(address: int, ports: list[int], repeat: int, banks: bool = False) -> bytes:
    """Encode the command to cycle through `ports` (from 1) `repeat` times: four slots, or eight if a port needs them
    or the board has `banks`."""
    places = 8 if banks or max(ports) > 4 else 4
    turns = [port - 1 for port in ports] + [0xFF] * (places - len(ports))
    data = bytes(value for turn in turns for value in (turn, 1)) + bytes((0, repeat))
    return encode(address, INVENTORY_FAST, data)


def frame_at(buffer: bytes, at: int, address: int | None = None) -> tuple[Frame, int] | str | None:
    """See framing.Probe; with `address`, frames of other readers are rejected."""
    if buffer[at] != HEAD:
        return ""
    head = buffer[at + 1 : at + 4]
    if head and head[0] < 3:
        return f"a frame can't be {head[0]} bytes long"
    if len(head) > 1 and address is not None and head[1] != address:
        return f"address {head[1]:02X} is not the reader's"
    if len(head) > 2 and head[2] not in _COMMANDS:
        return f"command {head[2]:02X} is unknown"
    size = head[0] + 2 if head else 2
    raw = buffer[at : at + size]
    if len(head) < 3 or len(raw) < size:
        return None
    if (total := sum(raw)) & 0xFF:
        return f"bad checksum {raw[-1]:02X}, should be {raw[-1] - total & 0xFF:02X}"
    frame = Frame(raw[2], raw[3], raw[4:-1])
    return readable(frame, size, read)


@once
def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError if it has no known shape."""
    command, data = frame.command, frame.data
    if command not in _INVENTORIES:
        return Content(note=f"command {command:02X} or the answer to it")
    if len(data) == _END_BYTES:
        antenna = None if command == INVENTORY_FAST else data[0] + 1
        return Content(ends=True, antenna=antenna, note="end of a round")
    if len(data) == 1 and SUCCESS <= data[0] < 0xFF:
        if data[0] == SUCCESS:
            return Content(note="command accepted")
        if data[0] == NO_TAG:
            return Content(ends=True, note="no tag answered")
        return Content(ends=True, failure=why(data[0]))
    if command == INVENTORY_FAST and len(data) == 2:  # port and code
        return Content(unconnected=data[0] + 1, note=f"port {data[0] + 1}: {why(data[1])}")
    try:
        return Content(tags=(_tag(data),))
    except MalformedRecordError:
        if len(data) in _HOST_BYTES[command]:
            return Content(note="the host's inventory command")
        raise


def in_bank(content: Content, bank: int) -> Content:
    """Return the content with the board's port numbers in place of those of a bank (from 0)."""
    more = bank * BANK_PORTS
    if not more:
        return content
    return content._replace(
        tags=tuple(tag if tag.antenna is None else tag._replace(antenna=tag.antenna + more) for tag in content.tags),
        antenna=None if content.antenna is None else content.antenna + more,
        unconnected=None if content.unconnected is None else content.unconnected + more,
    )


def why(code: int) -> str:
    """Return a reader's code as text for store IT."""
    return f"{_CODES[code]} (code {code:02X})" if code in _CODES else f"code {code:02X}"


def _tag(data: bytes) -> TagRead:
    """Decode frequency and antenna, PC, EPC and RSSI; the phase follows if the PC's length leaves room for it."""
    if len(data) < 6:
        raise MalformedRecordError(f"{len(data)} bytes are no tag")
    pc = int.from_bytes(data[1:3])
    end = len(data) - 3 if len(data) == 2 * (pc >> 11) + 6 else len(data) - 1
    rssi = data[end]
    return TagRead(
        epc=epc_of(pc, data[3:end]),
        rssi_cdbm=100 * ((rssi & 0x7F) - _RSSI_ZERO_DBM),
        antenna=(data[0] & 3) + (5 if rssi & 0x80 else 1),
    )
