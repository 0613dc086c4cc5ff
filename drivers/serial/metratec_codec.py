"""metraTec's ASCII protocol (PulsarMX, DeskID UHF, DwarfG2): lines, no I/O.

Lines end with CR, in some modes with CR LF. A round of an inventory is told as a whole, and its antenna at its end:

    E20000194604005221003DFF      a tag
    -58                           its RSSI in dBm, with SET TRS ON
    TOE                           a tag that could not be read: also CER, ACE, FLE, HBE, PDE, RXE, RDL, TCE, TOR
    ARP 00                        antenna, with SAP ARP ON; they count from 0
    IVF 01                        end, and how many were found

With SET EPC ON, each tag is told twice. There is no checksum.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from drivers.serial.tags import Content, TagRead, once, plain_epc, readable

END = b"\r"
OK, STOPPED, IDLE, UNKNOWN, UNSUPPORTED, RESTARTED, CHECKED = "OK!", "BRA", "NCM", "UCO", "NOS", "SRT", "CCE"
LF_CR = b"\r\n"

_LINE_MAX = 160
_ROUND_MAX = 1 << 16
_ERRORS = ("TOE", "CER", "ACE", "FLE", "HBE", "PDE", "RXE", "RDL", "TCE", "TOR")
"""What became of a tag that was not read."""
_TAG = re.compile(r"([0-9A-F]{4})+")
_RSSI = re.compile(r"-[0-9]{1,3}")
_ANTENNA = re.compile(r"ARP ([0-9]{1,2})")
_OVER = re.compile(r"IVF ([0-9]{1,4})")
_OTHER = re.compile(r"(?![0-9A-F]+$)[A-Z]{2}[A-Z!]")
"""Beginning of any other line; not the rest of an EPC."""
_BEGINS = re.compile(rb"[!-~]")
_FAILURES = {
    "ARH": "its antenna reflects too much",
    "BOD": "its supply is too weak",
    "NOR": "it refuses a value",
    "NOS": "it refuses a command",
    "UCO": "it does not know a command",
    "UPA": "it does not know a parameter",
}


class Frame(NamedTuple):
    """The lines of a round, or a line of its own; none: an empty line."""

    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The only line; "" for an empty line and a round."""
        return self.lines[0] if len(self.lines) == 1 and not _OVER.fullmatch(self.lines[0]) else ""


def encode(command: str) -> bytes:
    """Encode a command."""
    return command.encode("ascii") + END


def frame_at(buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
    """See framing.Probe."""
    if buffer[at] in LF_CR:
        return Frame(()), 1
    lines: list[str] = []
    end = at
    while True:
        found = _line_at(buffer, end)
        if not isinstance(found, tuple):
            return found
        line, end = found
        if not lines and not _of_round(line):
            return (Frame((line,)), end - at) if _OTHER.match(line) else "no line begins like that"
        if not _of_round(line):
            return "a round without an end"
        lines.append(line)
        if _OVER.fullmatch(line):
            break
        if end - at > _ROUND_MAX:
            return "a round can't be that long"
    frame = Frame(tuple(lines))
    return readable(frame, end - at, read)


@once
def read(frame: Frame) -> Content:
    """Decode a round or a line; MalformedRecordError for an impossible EPC."""
    if not frame.lines:
        return Content(note="empty line")
    if frame.text:
        code = frame.text[:3]
        if code in _FAILURES:
            return Content(failure=f"{_FAILURES[code]} (answer {frame.text})")
        return Content(note=f"line {code}")
    tags: list[TagRead] = []
    antenna = None
    fresh = False
    for line in frame.lines:
        if _TAG.fullmatch(line):
            epc = plain_epc(bytes.fromhex(line))
            fresh = not (fresh and tags[-1].epc == epc)
            if fresh:
                tags.append(TagRead(epc))
        elif _RSSI.fullmatch(line) and tags:
            tags[-1] = tags[-1]._replace(rssi_cdbm=100 * int(line))
            fresh = False
        elif port := _ANTENNA.fullmatch(line):
            antenna = int(port[1]) + 1
    return Content(
        tags=tuple(tag._replace(antenna=antenna) for tag in tags),
        antenna=antenna,
        note="end of a round",
    )


def _of_round(line: str) -> bool:
    return bool(
        _TAG.fullmatch(line)
        or _RSSI.fullmatch(line)
        or _ANTENNA.fullmatch(line)
        or _OVER.fullmatch(line)
        or line.split(" ")[0] in _ERRORS
    )


def _line_at(buffer: bytes, at: int) -> tuple[str, int] | str | None:
    """Return the line that begins there and its end; otherwise as a probe."""
    while at < len(buffer) and buffer[at : at + 1] == b"\n":
        at += 1
    if at < len(buffer) and not _BEGINS.match(buffer, at):
        return ""
    end = buffer.find(END, at, at + _LINE_MAX)
    raw = buffer[at : end if end >= 0 else at + _LINE_MAX]
    if re.search(rb"[^ -~]", raw):
        return "its line is not plain text"
    if end < 0:
        return "a line can't be that long" if len(raw) >= _LINE_MAX else None
    return raw.decode().rstrip(), end + 1
