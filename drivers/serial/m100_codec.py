"""M100/QM100/YRM100/R200 serial protocol: frames, no I/O.

    ┌────┬──────┬─────┬─────────┬─────────┬─────┬────┐
    │ BB │ type │ cmd │ len u16 │ len × u8│ sum │ 7E │      type 0 host's command, 1 answer, 2 notice
    └────┴──────┴─────┴─────────┴─────────┴─────┴────┘
     0    1      2     3         5

`sum` is that of type to the last parameter, mod 256. 7E occurs inside too: only the length says where a frame ends. As
the sum is weak, a tag that contradicts itself is no frame. Big-endian.

    tag (22, or 27)   rssi i8 dBm │ PC u16 │ EPC │ the tag's CRC u16 │ [antenna u8]      no time
    error (FF)        code │ …; 15: no tag answered, as often as the field is empty

Firmwares differ in whether they tell tags as notices or as answers, and under the command of one poll or of many.
"""

from __future__ import annotations

from typing import NamedTuple

from drivers.serial.tags import Content, MalformedRecordError, TagRead, epc_of, once, readable

HEAD = 0xBB
TAIL = 0x7E
COMMAND, ANSWER, NOTICE = 0, 1, 2

GET_VERSION = 0x03
POLL = 0x22
POLL_MANY = 0x27
STOP = 0x28
ERROR = 0xFF

NO_TAG = 0x15
_OVERHEAD = 7
_TAG_FIXED = 5
_ACCEPTED_BYTES = 1
"""An answer to a poll that is no longer than this only says that the poll was accepted."""
_PARAMETERS_MAX = 512
"""More than any answer has: a wrong length must not hold back frames."""

_ERRORS = {
    0x17: "it does not know the command",
    0x20: "no free frequency in its region",
    0x09: "it can't read the tag",
    0x16: "access was refused",
}


class Frame(NamedTuple):
    """Frame of either direction."""

    kind: int
    command: int
    data: bytes


def encode(kind: int, command: int, data: bytes = b"") -> bytes:
    """Encode a frame, to or from the reader."""
    body = bytes((kind, command)) + len(data).to_bytes(2) + data
    return bytes((HEAD,)) + body + bytes((sum(body) & 0xFF, TAIL))


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe."""
    if buffer[at] != HEAD:
        return ""
    head = buffer[at + 1 : at + 5]
    if head and head[0] > NOTICE:
        return f"type {head[0]:02X} is unknown"
    if len(head) < 4:
        return None
    parameters = int.from_bytes(head[2:])
    if parameters > _PARAMETERS_MAX:
        return f"a frame can't have {parameters} bytes of parameters"
    size = parameters + _OVERHEAD
    raw = buffer[at : at + size]
    if len(raw) < size:
        return None
    if raw[-1] != TAIL:
        return f"7E is not where the length puts it ({raw[-1]:02X})"
    if (total := sum(raw[1:-2]) & 0xFF) != raw[-2]:
        return f"bad checksum {raw[-2]:02X}, should be {total:02X}"
    frame = Frame(raw[1], raw[2], raw[5:-2])
    return readable(frame, size, read)


@once
def read(frame: Frame) -> Content:
    """Decode the content of a frame; MalformedRecordError for an inconsistent tag record."""
    kind, command, data = frame.kind, frame.command, frame.data
    if kind == COMMAND:
        return Content(note=f"the host's command {command:02X}")
    if command in (POLL, POLL_MANY) and (kind == NOTICE or len(data) > _ACCEPTED_BYTES):
        if len(data) < _TAG_FIXED:
            raise MalformedRecordError(f"{len(data)} bytes are no tag")
        pc = int.from_bytes(data[1:3])
        end = _TAG_FIXED + 2 * (pc >> 11)
        antenna = data[end] if len(data) == end + 1 else 0
        epc = epc_of(pc, data[3 : -3 if len(data) == end + 1 else -2])
        rssi_cdbm = 100 * int.from_bytes(data[:1], signed=True)
        return Content(tags=(TagRead(epc, rssi_cdbm=rssi_cdbm, antenna=antenna or None),))
    if command == ERROR:
        code = data[0] if data else 0
        return Content(note="no tag answered") if code == NO_TAG else Content(failure=why(code))
    return Content(note=f"answer to command {command:02X}")


def why(code: int) -> str:
    """Return a reader's error code as text for store IT."""
    return f"{_ERRORS[code]} (error {code:02X})" if code in _ERRORS else f"error {code:02X}"
