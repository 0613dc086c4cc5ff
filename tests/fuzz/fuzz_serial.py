"""Coverage-guided fuzzing of all that takes a serial reader's bytes; run by `make fuzz`, findings become tests.

FAMILY=name in the environment gives all the time to one family.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import atheris

with atheris.instrument_imports(include=["drivers"]):
    from drivers.read import EPC_BITS_MAX
    from drivers.serial import chafon_cf_codec as cf
    from drivers.serial import chainway_codec as chainway
    from drivers.serial import hopeland_codec as hopeland
    from drivers.serial import m100_codec as m100
    from drivers.serial import metratec_codec as metratec
    from drivers.serial import nordicid_codec as nur
    from drivers.serial import r2000_codec as r2000
    from drivers.serial import thingmagic_codec as thingmagic
    from drivers.serial import tsl_codec as tsl
    from drivers.serial import uhfreader18_codec as uhf
    from drivers.serial.framing import Framer, scan, walk
    from drivers.serial.tags import MalformedRecordError


def mercury_reply(data: bytes) -> bytes:
    body = bytes((len(data), thingmagic.OP_READ_MULTIPLE, 0, 0)) + data
    return b"\xff" + body + thingmagic.crc(body).to_bytes(2)


def sound(data: bytes) -> dict[str, list[bytes]]:
    """Frames with good checksums around any content."""
    data = data[:200]
    return {
        "thingmagic": [mercury_reply(data), mercury_reply(b"\x10\x00\x1b" + data)],
        "r2000": [r2000.encode(1, command, data) for command in (0x89, 0x8A, 0x8B)],
        "uhfreader18": [uhf.encode(0, command, data) for command in (uhf.INVENTORY, uhf.ACTIVE)],
        "chafon-cf": [cf.encode(0, cf.INVENTORY, data)],
        "m100": [m100.encode(kind, m100.POLL, data) for kind in (1, 2)] + [m100.encode(1, m100.ERROR, data)],
        "chainway": [chainway.encode(command, data) for command in (chainway.TAG, chainway.SINGLE + 1)],
        "hopeland": [hopeland.encode(hopeland.Frame(2, number, data, True)) for number in hopeland.TAGS],
        "nordicid": [nur.encode(nur.Frame(nur.FETCH, b"\0" + data, flags)) for flags in (0, nur.MEMORY)],
        "tsl": [b"EP: " + data.hex().encode() + b"\r\nRI: -" + data[:2] + b"\r\nOK:\r\n"],
        "metratec": [data.hex().upper().encode() + b"\r" + data[:3] + b"\rIVF 01\r"],
        "gx": [hopeland.encode(hopeland.Frame(2, 0, data, True, dialect=hopeland.FIVE_A))],
    }


FAMILIES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "thingmagic": (thingmagic.either_at, thingmagic.read),
    "r2000": (r2000.frame_at, r2000.read),
    "uhfreader18": (uhf.frame_at, uhf.read),
    "chafon-cf": (cf.frame_at, cf.read),
    "m100": (m100.frame_at, m100.read),
    "chainway": (chainway.frame_at, chainway.read),
    "hopeland": (hopeland.aa_at, hopeland.read),
    "gx": (hopeland.five_a_at, hopeland.read),
    "nordicid": (nur.frame_at, nur.read),
    "tsl": (tsl.frame_at, tsl.read),
    "metratec": (metratec.frame_at, metratec.read),
}


REPLIES: dict[str, Callable[..., Any]] = {
    "r2000": lambda frame: r2000.in_bank(r2000.read(frame), 1),
    "hopeland": hopeland.reply,
    "gx": hopeland.reply,
    "nordicid": lambda frame: (nur.reply(frame), nur.stored(frame), nur.reader_info(frame.data)),
}
ONLY = os.environ.get("FAMILY", "")


def stream(name: str, raw: bytes) -> None:
    """Every byte is accounted for, frames are the same however the bytes are cut, and their content is possible."""
    probe, read = FAMILIES[name]
    pieces = list(walk(raw, probe, whole=True))
    assert sum(piece.size for piece in pieces) == len(raw)
    for piece in pieces:
        assert piece.size > 0
        assert (piece.frame is None) == bool(piece.reason)
        if piece.frame is None:
            continue
        try:
            content = read(piece.frame)
        except MalformedRecordError:
            continue
        if name in REPLIES:
            REPLIES[name](piece.frame)
        assert all(0 < 8 * len(tag.epc) <= EPC_BITS_MAX for tag in content.tags)
        assert all(tag.antenna is None or 1 <= tag.antenna <= 255 for tag in content.tags)
        assert all(tag.rssi_cdbm is None or -32768 <= tag.rssi_cdbm <= 32767 for tag in content.tags)
    if name == "thingmagic":
        probe = thingmagic.reply_at  # a host's frame may be the beginning of a reader's: only files hold both
    whole = scan(raw, probe)
    framer = Framer(partial(scan, probe=probe))
    cut = len(raw) // 2
    assert framer.feed(raw[:cut]) + framer.feed(raw[cut:]) == whole.frames
    assert framer.skipped == whole.skipped


def one_input(data: bytes) -> None:
    """The fuzzer's entry: the first byte chooses the family."""
    if not data:
        return
    name = ONLY or list(FAMILIES)[data[0] % len(FAMILIES)]
    body = data[1:]
    stream(name, body)
    for frame in sound(body)[name]:
        stream(name, frame)
        stream(name, body[:20] + frame + frame)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
