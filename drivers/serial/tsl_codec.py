"""TSL's ASCII protocol, version 2 (1128, 1153, 1166, 2128 and kin): lines, no I/O.

A line is a name of two letters, a colon and a value, and ends with CR LF. An answer begins with CS, the command as it
was understood, and ends with OK or ER and an empty line. Commands begin with a dot:

    .iv -r on      CS: .iv -r on
                   EP: 300833B2DDD9014000000000     a tag; what belongs to it follows
                   RI: -61                          its RSSI in dBm
                   OK:                              or ER: 005, no tag

There is no checksum. What belongs to a tag may come later, so a tag is whole once the next line's name is there, or
nothing more comes for a while: the end of the round may be far.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from drivers.serial.framing import Extensible
from drivers.serial.tags import Content, MalformedRecordError, TagRead, once, plain_epc, readable

END = b"\r\n"
OK, ERROR, ECHO, TAG, RSSI = "OK", "ER", "CS", "EP", "RI"
NO_TAG = (5, 6)
"""Error codes: no transponder, no bar code."""

_OF_TAG = {RSSI, "CR", "PC", "IX", "DT", "PH", "CH", "TD", "RD"}
"""Lines that belong to the tag before them."""
_LINE_MAX = 1024
_HEAD = re.compile(rb"[A-Z]{2}:")
_LINE = re.compile(rb"([A-Z]{2}):[ ]?([ -~]*)\Z")
_ANOTHER = re.compile(r"[A-Z]{2}:")
_DBM = range(-150, 21)
_ERRORS = {1: "it does not know the command", 8: "no antenna is connected"}


class Frame(NamedTuple):
    """A line with what belongs to it; without a name an empty line."""

    name: str
    value: str = ""
    more: tuple[tuple[str, str], ...] = ()


def encode(command: str) -> bytes:
    """Encode a command."""
    return command.encode("ascii") + END


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | Extensible[Frame] | str | None:
    """See framing.Probe."""
    if buffer[at] in END:
        return Frame(""), 1
    line = _line_at(buffer, at)
    if not isinstance(line, tuple):
        return line
    name, value, end = line
    if name != TAG:
        if name not in (ECHO, "ME") and _ANOTHER.search(value):
            return "another line begins inside it"
        return Frame(name, value), end - at
    more = []
    later = False
    while True:
        head = buffer[end : end + 3]
        if head[:2].decode("latin-1") not in _OF_TAG:
            later = len(head) < 3 and not head.startswith((b"\r", b"\n"))
            break
        following = _line_at(buffer, end)
        if not isinstance(following, tuple):
            later = following is None
            break
        more.append(following[:2])
        end = following[2]
    found = readable(Frame(TAG, value, tuple(more)), end - at, read)
    return Extensible(*found) if later and isinstance(found, tuple) else found


@once
def read(frame: Frame) -> Content:
    """Decode a line; MalformedRecordError for an impossible EPC or RSSI."""
    if frame.name == TAG:
        return Content(tags=(_tag(frame),))
    if frame.name == OK:
        return Content(ends=True, note="end of an answer")
    if frame.name == ERROR:
        code = int(frame.value) if frame.value.isdecimal() else None
        if code in NO_TAG:
            return Content(ends=True, note="no tag answered")
        why = _ERRORS.get(code or 0, "it reports an error")
        return Content(ends=True, failure=f"{why} (error {frame.value or 'without number'})")
    return Content(note=f"line {frame.name}" if frame.name else "empty line")


def _tag(frame: Frame) -> TagRead:
    if not re.fullmatch(r"([0-9A-Fa-f]{4})+", frame.value):
        raise MalformedRecordError(f"{frame.value!r} is no EPC")
    rssi = None
    for name, value in frame.more:
        if name == RSSI:
            if not re.fullmatch(r"-?[0-9]{1,3}", value) or int(value) not in _DBM:
                raise MalformedRecordError(f"{value!r} is no RSSI")
            rssi = 100 * int(value)
    return TagRead(plain_epc(bytes.fromhex(frame.value)), rssi_cdbm=rssi)


def _line_at(buffer: bytes, at: int) -> tuple[str, str, int] | str | None:
    """Return name, value and end of the line that begins there; otherwise as a probe."""
    head = buffer[at : at + 3]
    if len(head) < 3:
        return None if re.fullmatch(rb"[A-Z]{1,2}", head) else ""
    if not _HEAD.match(head):
        return ""
    end = buffer.find(b"\n", at, at + _LINE_MAX)
    if end < 0:
        return "a line can't be that long" if len(buffer) - at >= _LINE_MAX else None
    found = _LINE.match(buffer[at:end].removesuffix(b"\r"))
    if found is None:
        return "its line is not plain text"
    return found[1].decode(), found[2].decode().rstrip(), end + 1
