"""Decode captured bytes of any reader family: the reads, and a list of what was skipped and why."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from drivers.serial.framing import Probe, walk
from drivers.serial.tags import Content, MalformedRecordError
from edge.store.errors import Trouble
from edge.words.counts import counted

HEADER = ("time_us", "antenna", "epc", "rssi_dbm", "count")
PHASE = "phase_deg"
"""Column in degrees, which only some LLRP readers provide."""
AS_TEXT = ("tsl", "metratec")
"""Families whose frames are lines of text."""
SHOWN_BYTES = 24
"""Number of skipped bytes shown."""

_HEX = re.compile(rb"(?:0x)?[0-9A-Fa-f]++(?:[\s,:;]++(?:0x)?[0-9A-Fa-f]++)*+")
"""Matches without backtracking, which needed a hundred times the memory of the file."""
_TEXT = re.compile(rb"[\t\n\v\f\r -~]++")
_PCAP_MAGICS = {"a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "0a0d0d0a"}


class Row(NamedTuple):
    """One read; None where the frame has no value. `time_us` is the reader's own clock, whatever its epoch."""

    time_us: int | None
    antenna: int | None
    epc: str
    rssi_cdbm: int | None
    seen: int | None
    phase: int | None = None
    """RF phase in 4096 steps a turn."""

    def texts(self, phase: bool = False) -> tuple[str, ...]:
        """Return the values as text, in the order of HEADER, and PHASE on demand."""
        rssi = "" if self.rssi_cdbm is None else f"{self.rssi_cdbm / 100:g}"
        time, antenna, count = ("" if n is None else str(n) for n in (self.time_us, self.antenna, self.seen))
        turn = "" if self.phase is None else degrees(self.phase)
        return (time, antenna, self.epc, rssi, count) + ((turn,) if phase else ())


class LeftOut(NamedTuple):
    """Bytes from `at` that should have been a read and aren't, or are no frame."""

    at: int
    raw: bytes
    reason: str

    def __str__(self) -> str:
        shown = self.raw[:SHOWN_BYTES].hex(" ").upper() + (" …" if len(self.raw) > SHOWN_BYTES else "")
        return f"offset {self.at}: {counted(len(self.raw), 'byte')}: {self.reason}: {shown}"


@dataclass
class Decoded:
    """Reads in order, skipped bytes, and the number of valid frames without a read by kind."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def write_csv(self, out: TextIO, phase: bool = False) -> None:
        """Write the reads with HEADER, and PHASE on demand."""
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(_header(phase))
        rows.writerows(row.texts(phase) for row in self.rows)

    def summary(self) -> str:
        """Return a summary in one line."""
        parts = [counted(len(self.rows), "read")]
        if self.others:
            notes = ", ".join(f"{n} × {note}" for note, n in self.others.most_common())
            parts.append(f"{counted(self.others.total(), 'frame')} without a read ({notes})")
        parts.append(f"{counted(sum(len(each.raw) for each in self.left_out), 'byte')} left out")
        return "; ".join(parts)


def degrees(phase: int) -> str:
    """Convert a phase of 4096 steps a turn to degrees as text."""
    return f"{phase * 360 / 4096:.2f}"


def load(path: Path, family: str = "") -> bytes:
    """Load captured bytes from a file or standard input (`-`), binary or as hex text, JSON as it is. Trouble if
    unreadable."""
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Trouble(f"cannot read {path}: {error.strerror}") from error
    if raw[:4].hex() in _PCAP_MAGICS:
        raise Trouble(
            f"{path} is a packet capture; extract what the reader sent with\n"
            "  tshark -r FILE -Y 'tcp.srcport == 5084 && !tcp.analysis.retransmission' -T fields -e tcp.payload "
            "| tagtrail decode llrp -"
        )
    text = raw.strip().removeprefix(b"\xef\xbb\xbf")
    if family == "json":
        return text
    if family in AS_TEXT:  # saved by an editor, its lines may have lost what readers end them with
        return raw if b"\r" in raw else raw.replace(b"\n", b"\r\n")
    if not _HEX.fullmatch(text):
        if _TEXT.fullmatch(text):  # every frame of every family has bytes that no text has
            raise Trouble(
                f"{path} is text, but not hex digits alone: leave out times, labels and remarks, so that only what the "
                "reader sent is left"
            )
        return raw
    digits = text.replace(b"0x", b"").translate(None, b" \t\n\v\f\r,:;")
    if len(digits) % 2:
        raise Trouble(f"{path} looks like hex text but has an odd number of digits ({len(digits)})")
    return bytes.fromhex(digits.decode())


def decode(family: str, raw: bytes, profile: str | None = None) -> Decoded:
    """Decode all of `raw` as a complete stream; `family` is one of FAMILIES. `profile`: for JSON; None: the one that
    finds most reads."""
    return _json(raw, profile) if family == "json" else FAMILIES[family](raw)


def _serial(module: str, probe: str) -> Callable[[bytes], Decoded]:
    """Return the functions of a serial family's codec, which is imported only then."""

    def run(raw: bytes) -> Decoded:
        from importlib import import_module

        codec = import_module(f"drivers.serial.{module}")
        return _walk(raw, getattr(codec, probe), codec.read)

    return run


def _walk(raw: bytes, probe: Probe[Any], read: Callable[[Any], Content]) -> Decoded:
    done = Decoded()
    for at, size, frame, reason in walk(raw, probe, whole=True):
        piece = raw[at : at + size]
        if frame is None:
            done.left_out.append(LeftOut(at, piece, reason))
            continue
        try:
            content = read(frame)
        except MalformedRecordError as error:
            done.left_out.append(LeftOut(at, piece, str(error)))
            continue
        for tag in content.tags:
            time_us = None if tag.time_ms is None else 1000 * tag.time_ms
            done.rows.append(Row(time_us, tag.antenna, tag.epc.hex().upper(), tag.rssi_cdbm, tag.seen))
        if content.failure:
            done.left_out.append(LeftOut(at, piece, f"the reader reports: {content.failure}"))
        elif content.unconnected is not None:
            done.left_out.append(LeftOut(at, piece, f"the reader reports: {content.note}"))
        elif not content.tags:
            done.others[content.note] += 1
    return done


def _json(raw: bytes, profile: str | None = None) -> Decoded:
    from drivers.pushed.formats import FORMATS

    if profile not in (None, *FORMATS):
        raise Trouble(f"no profile {profile!r}; there are {', '.join(FORMATS)}")
    tried = [_json_as(raw, form) for name, form in FORMATS.items() if profile in (None, name)]
    return max(tried, key=lambda done: len(done.rows))


def _json_as(raw: bytes, form: Any) -> Decoded:
    from drivers.pushed.decoder import Decoder
    from drivers.pushed.splitting import split_whole
    from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, epc_bytes
    from drivers.session import PHASE_UNKNOWN

    done = Decoded()
    decoder = Decoder(form, {port: port for port in range(1, ANTENNA_UNKNOWN)})
    at = 0
    for value in split_whole(raw).values:
        begins = raw.index(value, at)
        _between(done, raw, at, begins)
        at = begins + len(value)
        before = dict(decoder.counters)
        found = decoder.decode([value])
        for read, timed, turn in zip(found.reads, found.timed.tolist(), found.phase.tolist(), strict=True):
            antenna, rssi = int(read["antenna"]), int(read["rssi_cdbm"])
            done.rows.append(
                Row(
                    int(read["time_us"]) if timed else None,
                    None if antenna == ANTENNA_UNKNOWN else antenna,
                    epc_bytes(read["epc"], int(read["epc_bits"])).hex().upper(),
                    None if rssi == RSSI_UNKNOWN else rssi,
                    int(read["count"]),
                    None if turn == PHASE_UNKNOWN else turn,
                )
            )
        given_up = {name: n for name in ("bad_epc", "malformed") if (n := decoder.counters[name] - before[name])}
        if given_up:
            text = ", ".join(f"{n} × {name.replace('_', ' ')}" for name, n in given_up.items())
            done.left_out.append(LeftOut(begins, value, f"not usable: {text}"))
        elif not len(found.reads):
            done.others["message without a read"] += 1
    _between(done, raw, at, len(raw))
    return done


def _between(done: Decoded, raw: bytes, begins: int, ends: int) -> None:
    """Note what stands between values and is neither white space nor a comma."""
    if between := raw[begins:ends].strip(b" \t\r\n,"):
        done.left_out.append(LeftOut(raw.index(between, begins), between, "not JSON, or cut off"))


def _llrp(raw: bytes) -> Decoded:
    import numpy as np

    from drivers.llrp.codec import RO_ACCESS_REPORT
    from drivers.llrp.decoder import RECEIVED, ReportDecoder
    from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, epc_bytes
    from drivers.session import PHASE_UNKNOWN

    done = Decoded()
    decoder = ReportDecoder({port: port for port in range(1, ANTENNA_UNKNOWN)})
    names = _llrp_names()
    buffer = np.frombuffer(bytearray(raw), np.uint8)
    for at, size, kind, reason in walk(raw, _llrp_probe(names), whole=True):
        piece = raw[at : at + size]
        if kind is None:
            done.left_out.append(LeftOut(at, piece, reason))
            continue
        if kind != RO_ACCESS_REPORT:
            done.others[names[kind]] += 1
            continue
        before = decoder.counters
        found = decoder.decode(buffer, at, at + size)
        for read, source, turn in zip(found.reads, found.source.tolist(), found.phase.tolist(), strict=True):
            antenna, rssi = int(read["antenna"]), int(read["rssi_cdbm"])
            done.rows.append(
                Row(
                    None if source == RECEIVED else int(read["time_us"]),
                    None if antenna == ANTENNA_UNKNOWN else antenna,
                    epc_bytes(read["epc"], int(read["epc_bits"])).hex().upper(),
                    None if rssi == RSSI_UNKNOWN else rssi,
                    int(read["count"]),
                    None if turn == PHASE_UNKNOWN else turn,
                )
            )
        given_up = {
            name: n - before[name]
            for name, n in decoder.counters.items()
            if n > before[name] and name not in ("messages", "reads", "unknown_antenna")
        }
        if given_up:
            text = ", ".join(f"{n} × {name.replace('_', ' ')}" for name, n in given_up.items())
            done.left_out.append(LeftOut(at, piece, f"reports in this message that can't be read: {text}"))
        elif not len(found.reads):
            done.others["report without tags"] += 1
    return done


def _llrp_names() -> dict[int, str]:
    from sllurp.llrp_proto import Message_struct

    return {spec["type"]: name for name, spec in reversed(Message_struct.items()) if spec.get("type")}


def _llrp_probe(names: dict[int, str]) -> Probe[int]:
    """Find messages by their type. Nothing marks the start of one, so it must have a known type and a valid header."""
    from drivers.llrp.codec import NotLlrp, header_at

    def probe(buffer: bytes, at: int) -> tuple[int, int] | str | None:
        if buffer[at] >> 5:
            return ""
        try:
            header = header_at(buffer, at, len(buffer))
        except NotLlrp:
            return ""
        if header is None:
            return None
        if header.type not in names:
            return ""
        if header.length > len(buffer) - at:
            return None
        return header.type, header.length

    return probe


FAMILIES: dict[str, Callable[[bytes], Decoded]] = {
    "llrp": _llrp,
    "json": _json,
    "thingmagic": _serial("thingmagic_codec", "either_at"),
    "r2000": _serial("r2000_codec", "frame_at"),
    "uhfreader18": _serial("uhfreader18_codec", "frame_at"),
    "chafon-cf": _serial("chafon_cf_codec", "frame_at"),
    "m100": _serial("m100_codec", "frame_at"),
    "chainway": _serial("chainway_codec", "frame_at"),
    "hopeland": _serial("hopeland_codec", "aa_at"),
    "gx": _serial("hopeland_codec", "five_a_at"),
    "nordicid": _serial("nordicid_codec", "frame_at"),
    "tsl": _serial("tsl_codec", "frame_at"),
    "metratec": _serial("metratec_codec", "frame_at"),
}


def rows_table(rows: list[Row], phase: bool = False) -> Iterator[str]:
    """Format the reads as a table, one line each."""
    lines = [_header(phase), *(row.texts(phase) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for texts in lines:
        cells = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
        cells[2] = texts[2].ljust(widths[2])
        yield "  ".join(cells).rstrip()


def _header(phase: bool) -> tuple[str, ...]:
    return HEADER + ((PHASE,) if phase else ())
