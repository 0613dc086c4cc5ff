"""JSON messages to READ arrays, column by column: a format is compiled to types that contain its fields and nothing
else, which the parser fills without building anything for the rest of a message.
"""

from __future__ import annotations

import binascii
import contextlib
import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from drivers.pushed.formats import Format, Pointer, Sign
from drivers.read import ANTENNA_UNKNOWN, EPC_BITS_MAX, READ, RSSI_UNKNOWN, Reads
from drivers.session import PHASE_UNKNOWN

COUNTERS = ("messages", "reads", "others", "unknown_antenna", "no_antenna", "bad_epc", "bad_time", "malformed")
"""Counters: messages (JSON values), reads, messages without one, reads at a port that the store file lacks or without a
port, reads left out for an impossible EPC, reads whose time can't be read, values that are no valid JSON."""
EPOCH_MIN_S = 1_000_000_000
"""2001: a smaller number is no time since 1970."""
TIME_MAX_US = 1 << 60
_SCALES = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
"""Number below which a time has that many microseconds; larger ones are nanoseconds."""
_EPC_BYTES_MAX = EPC_BITS_MAX // 8
_RSSI_MAX, _COUNT_MAX = 32767, 65535
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_HEX = re.compile(r"[0-9A-Fa-f]+")
_NUMBER = re.compile(r"\s*[+-]?\d{1,20}(\.\d{1,20})?\s*", re.ASCII)
_MANY_NUMBERS = re.compile(r"(?:[+-]?\d{1,20}+(?:\.\d{1,20}+)?;)++", re.ASCII)
_MANY_WHOLE = re.compile(r"(?:(?:\d{1,18}+|[1-8]\d{18});)++", re.ASCII)
_ZONE = re.compile(r"Z|[+-]\d\d:?\d\d")
_MAC = re.compile(r"^[0-9A-Fa-f]{2}(?:[:-]?[0-9A-Fa-f]{2}){5,7}$")

Column = list[Any]


class Decoded(NamedTuple):
    """Content of some messages."""

    reads: Reads
    """`time_us` is the reader's own."""
    timed: NDArray[np.bool_]
    """(n,) False where the reader gave no time."""
    phase: NDArray[np.int16]
    """(n,) in 4096 steps a turn, PHASE_UNKNOWN where it gave none."""
    sequence: NDArray[np.float64]
    """(n,) the reader's numbers, NaN where it gave none."""
    newest_us: int
    """Newest time in the messages, -1 without any."""
    identity: str | None
    """The last MAC address in them, in capital hex."""
    signs: list[tuple[Sign, Any]]
    """What is not a read and has a meaning."""


class Decoder:
    """Decodes messages of one reader; `ports` maps its antenna ports to global antenna numbers."""

    def __init__(self, form: Format, ports: Mapping[int, int]) -> None:
        self._ports = dict(ports)
        self._cdbm = 1.0 if form.rssi_unit == "cdbm" else 100.0
        self._alone = next(iter(ports.values())) if len(ports) == 1 else None
        self._types = _Types(form)
        self._one = msgspec.json.Decoder(self._types.message)
        self._many = msgspec.json.Decoder(list[self._types.message])  # type: ignore[name-defined]
        self.counters = dict.fromkeys(COUNTERS, 0)

    def decode(self, values: Sequence[bytes]) -> Decoded:
        """Decode JSON values, each a message or a list of messages."""
        messages = self._messages(values)
        tally, types = self.counters, self._types
        tally["messages"] += len(messages)
        around, inner = types.reads(messages)
        hexed, coded = self._column("epc", around, inner), self._column("epc_base64", around, inner)
        keep, words, bits = _epcs(hexed, coded)
        others: list[Any] = []
        if len(keep) < len(inner):
            empty = sum(here is None and there is None for here, there in zip(hexed, coded, strict=True))
            tally["bad_epc"] += len(inner) - empty - len(keep)
            others = [message for message, here, there in zip(around, hexed, coded, strict=True) if here is there]
            around, inner = [around[i] for i in keep], [inner[i] for i in keep]
        tally["reads"] += len(keep)
        tally["others"] += len(others)
        reads = np.zeros(len(inner), READ)
        reads["epc"], reads["epc_bits"] = words, bits
        reads["antenna"] = self._antennas(self._column("antenna", around, inner))
        rssi = np.rint(_numbers(self._column("rssi", around, inner)) * self._cdbm)
        known = (rssi > RSSI_UNKNOWN) & (rssi <= _RSSI_MAX)
        reads["rssi_cdbm"] = np.where(known, rssi, RSSI_UNKNOWN)
        counts = _numbers(self._column("count", around, inner))
        reads["count"] = np.where(counts > 1, np.minimum(counts, _COUNT_MAX), 1)
        given = self._column("time", around, inner)
        times = _times(given)
        timed = times >= 0
        tally["bad_time"] += len(given) - given.count(None) - int(timed.sum())
        reads["time_us"] = times
        return Decoded(
            reads,
            timed,
            _turns(_numbers(self._column("phase", around, inner))),
            _numbers(self._column("sequence", around, inner)),
            int(times.max(initial=-1)),
            self._identity(messages[-1:]),
            [(sign, value) for sign, get in types.signs for each in others if (value := get(each)) is not None],
        )

    def _messages(self, values: Sequence[bytes]) -> list[Any]:
        """Parse all at once, or one by one if something is wrong with any."""
        if len(values) > 1:
            try:
                return self._many.decode(b"[" + b",".join(values) + b"]")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        parsed: list[Any] = []
        for value in values:
            many = value.startswith(b"[")
            try:
                parsed += self._many.decode(value) if many else [self._one.decode(value)]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                parsed += self._odd(value)
        return parsed

    def _odd(self, value: bytes) -> list[Any]:
        """Return what is usable of a value that is not as the format says."""
        try:
            whole = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.counters["malformed"] += 1
            return []
        usable = []
        for part in whole if isinstance(whole, list) else [whole]:
            try:
                usable.append(msgspec.convert(part, self._types.message))
            except (msgspec.ValidationError, RecursionError):
                self.counters["messages"] += 1
                self.counters["others"] += 1
        return usable

    def _column(self, name: str, around: Sequence[Any], inner: Sequence[Any]) -> Column:
        column: Column = [None] * len(inner)
        for pointers, rows in ((self._types.inner[name], inner), (self._types.outer[name], around)):
            for get in pointers:
                lacking = column.count(None)
                if lacking == len(column):
                    column = list(map(get, rows))
                elif lacking:
                    column = [get(row) if now is None else now for now, row in zip(column, rows, strict=True)]
        return column

    def _antennas(self, ports: Column) -> list[int]:
        tally, known = self.counters, self._ports
        kinds = set(map(type, ports))
        if kinds == {str} and _all_match(_MANY_WHOLE, ports):
            ports = list(map(int, ports))
        elif kinds != {int}:
            ports = [_whole(port) for port in ports]
            tally["no_antenna"] += ports.count(None) if self._alone is None else 0
        numbers = [known.get(port, ANTENNA_UNKNOWN) for port in ports]
        tally["unknown_antenna"] += numbers.count(ANTENNA_UNKNOWN)
        if None in ports:
            alone = ANTENNA_UNKNOWN if self._alone is None else self._alone
            tally["unknown_antenna"] -= ports.count(None)
            numbers = [alone if port is None else number for port, number in zip(ports, numbers, strict=True)]
        return numbers

    def _identity(self, last: list[Any]) -> str | None:
        around, inner = self._types.reads(last)
        for mac in self._column("identity", around, inner)[:1]:
            if isinstance(mac, str) and _MAC.fullmatch(mac):
                return mac.replace(":", "").replace("-", "").upper()
        return None


_FIELDS = ("epc", "epc_base64", "antenna", "rssi", "time", "count", "phase", "sequence", "identity")


class _Types:
    """The types of a format, and how to get at its values."""

    def __init__(self, form: Format) -> None:
        pointers: dict[str, tuple[Pointer, ...]] = {name: getattr(form, name) for name in _FIELDS}
        names = _Names()
        lists = bool(form.reads)
        within = [pointer for given in pointers.values() for pointer in given]
        read = names.type(within, {})
        leaves: dict[Pointer, Any] = {form.reads: list[read] | read | None} if lists else {}  # type: ignore[valid-type]
        around = [*within, *(pointer for pointer, _ in form.signs), *leaves]
        self.message = names.type(around, leaves) if around else read
        self.inner = {name: [names.getter(pointer) for pointer in given] for name, given in pointers.items()}
        self.outer = self.inner if lists else {name: [] for name in pointers}
        self.signs = [(sign, names.getter(pointer)) for pointer, sign in form.signs]
        self._reads = names.getter(form.reads) if lists else None

    def reads(self, messages: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return the message around each read, and the reads; a message without any counts as its own."""
        if self._reads is None:
            return messages, messages
        around: list[Any] = []
        inner: list[Any] = []
        for message in messages:
            found = self._reads(message)
            if found is None or found == []:
                found = [message]
            elif not isinstance(found, list):
                found = [found]
            around += [message] * len(found)
            inner += found
        return around, inner


class _Names:
    """Makes types of pointers; every key gets the same attribute name everywhere."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def type(self, pointers: Iterable[Pointer], leaves: Mapping[Pointer, Any]) -> Any:
        """Return a type that has the values at these pointers, None where a message hasn't."""
        tree: dict[str, Any] = {}
        for pointer in pointers:
            *path, last = steps(pointer)
            at = tree
            for key in path:
                at = at.setdefault(key, {})
                if not isinstance(at, dict):
                    raise ValueError(f"{pointer} leads through another pointer's value")
            if isinstance(at.setdefault(last, leaves.get(pointer, Any)), dict):
                raise ValueError(f"{pointer} leads to an object that other pointers lead through")
        return self._struct(tree)

    def getter(self, pointer: Pointer) -> Callable[[Any], Any]:
        """Return the function that gets the value at a pointer."""
        return attrgetter(".".join(self._name(key) for key in steps(pointer)))

    def _struct(self, tree: Mapping[str, Any]) -> Any:
        fields: list[Any] = []
        for key, below in tree.items():
            if isinstance(below, dict):
                made = self._struct(below)
                fields.append((self._name(key), made, made()))
            else:
                fields.append((self._name(key), below, None))
        return msgspec.defstruct("Part", fields, rename={self._name(key): key for key in tree}, frozen=True, gc=False)

    def _name(self, key: str) -> str:
        return self._known.setdefault(key, f"f{len(self._known)}")


def steps(pointer: Pointer) -> list[str]:
    """Return the keys of a JSON pointer; ValueError for one that is none."""
    if not re.fullmatch(r"(/([^~/]|~[01])*)+", pointer):
        raise ValueError(f"{pointer!r} is no JSON pointer such as /data/idHex")
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer[1:].split("/")]


def _epcs(hexed: Column, coded: Column) -> tuple[list[int], NDArray[np.uint64], NDArray[np.uint16]]:
    """Return the rows with a possible EPC, their words (n, 8) and lengths in bits."""
    data, size = _alike(hexed, coded)
    if size:
        rows, lengths = list(range(len(hexed))), np.full(len(hexed), 8 * size, np.uint16)
        return rows, _words([(data, size)]), lengths
    texts = hexed
    if None in hexed:
        texts = [_from_base64(there) if here is None else here for here, there in zip(hexed, coded, strict=True)]
    by_length: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        if type(text) is str:
            by_length.setdefault(len(text), []).append(i)
    rows = []
    parts: list[tuple[bytes, int]] = []
    bits: list[int] = []
    for digits, group in by_length.items():
        size = digits // 2
        if not _possible(digits):
            continue
        try:
            data = bytes.fromhex("".join([texts[i] for i in group]))
        except ValueError:
            data = b""
        if len(data) != size * len(group):  # also because of spaces, which fromhex takes
            group = [i for i in group if _HEX.fullmatch(texts[i])]
            data = bytes.fromhex("".join([texts[i] for i in group]))
        rows += group
        parts.append((data, size))
        bits += [8 * size] * len(group)
    words, lengths = _words(parts), np.array(bits, np.uint16)
    if len(by_length) > 1:
        order = np.argsort(np.array(rows, np.int64), kind="stable")
        rows, words, lengths = [rows[i] for i in order], words[order], lengths[order]
    return rows, words, lengths


def _possible(digits: int) -> bool:
    """Gen2 counts words of 16 bits."""
    return digits % 4 == 0 and 0 < digits // 2 <= _EPC_BYTES_MAX


def _words(parts: Sequence[tuple[bytes, int]]) -> NDArray[np.uint64]:
    """Return the words of EPCs: bytes one after the other, and how many make one."""
    filled = [np.zeros((0, 64), np.uint8)]
    for data, size in parts:
        part = np.zeros((len(data) // size, 64), np.uint8)
        part[:, :size] = np.frombuffer(data, np.uint8).reshape(-1, size)
        filled.append(part)
    return np.concatenate(filled).view(">u8").astype(np.uint64)


def _alike(hexed: Column, coded: Column) -> tuple[bytes, int]:
    """Return all EPCs one after the other and the bytes that each has, if all are written alike; else size 0."""
    texts = coded if hexed.count(None) == len(hexed) else hexed
    if set(map(type, texts)) != {str} or len(lengths := set(map(len, texts))) > 1:
        return b"", 0
    length = lengths.pop()
    try:
        if texts is hexed:
            size = length // 2
            data = bytes.fromhex("".join(texts)) if _possible(length) else b""
        else:  # padding ends a text, so only texts without any can be decoded as one
            size = length // 4 * 3
            whole = "".join(texts).replace("-", "+").replace("_", "/")
            data = binascii.a2b_base64(whole, strict_mode=True) if length % 4 == 0 and _possible(2 * size) else b""
    except ValueError:
        return b"", 0
    return (data, size) if data and len(data) == size * len(texts) else (b"", 0)


def _from_base64(text: Any) -> str:
    """Return hex of base64 in either alphabet, with or without padding; empty if it is none."""
    if not isinstance(text, str):
        return ""
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True).hex()
    except (ValueError, UnicodeEncodeError):
        return ""


def _times(given: Column) -> NDArray[np.int64]:
    """Return microseconds since 1970; -1 where there is no time, or none that can be."""
    kinds = set(map(type, given))
    if kinds == {str} and _all_match(_MANY_WHOLE, given):
        return _scaled(np.array(list(map(int, given)), np.int64))
    if kinds == {int} and min(given) >= 0 and max(given) < 1 << 63:
        return _scaled(np.array(given, np.int64))
    if kinds == {str} and min(given) >= "0" and max(given) < ":":  # numpy also understands "now"
        for cut in (1, 5, 6):
            zones = {text[-cut:] for text in given}
            if len(zones) > 1 or not _ZONE.fullmatch(zone := zones.pop()):
                continue
            try:
                offset = dt.datetime.fromisoformat("2000-01-01T00:00" + zone).utcoffset() or dt.timedelta()
                times = np.array([text[:-cut] for text in given], "M8[us]").astype(np.int64)
            except ValueError:
                break
            times -= offset // dt.timedelta(microseconds=1)
            return np.where((times >= 0) & (times < TIME_MAX_US), times, -1)
    return np.array([_time_us(value) for value in given], np.int64)


def _scaled(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return microseconds of whole numbers since 1970, of a unit that their size tells."""
    times = numbers // 1000
    for below, us in reversed(_SCALES):
        times = np.where(numbers < below, numbers * us, times)
    return np.where((numbers >= EPOCH_MIN_S) & (times < TIME_MAX_US), times, -1)


def _time_us(value: Any) -> int:
    if isinstance(value, str):
        try:
            at = dt.datetime.fromisoformat(value)
            return max(-1, (at.replace(tzinfo=at.tzinfo or dt.UTC) - _EPOCH) // dt.timedelta(microseconds=1))
        except (ValueError, OverflowError):
            pass
    number = _number(value)
    if not number >= EPOCH_MIN_S:
        return -1
    exact: float = number
    if type(value) is not float:
        with contextlib.suppress(ValueError):  # text such as 1.5
            exact = int(value)
    scale = next((us for below, us in _SCALES if exact < below), None)
    time_us = round(exact * scale) if scale is not None else int(exact) // 1000
    return time_us if time_us < TIME_MAX_US else -1


def _all_match(pattern: re.Pattern[str], texts: Column) -> bool:
    """Whether the pattern of many, each followed by a semicolon, fits all texts."""
    whole = ";".join(texts) + ";"
    return whole.count(";") == len(texts) and pattern.fullmatch(whole) is not None


def _numbers(values: Column) -> NDArray[np.float64]:
    """Return numbers, also those written as text; NaN for anything else."""
    kinds = set(map(type, values))
    if kinds == {type(None)}:
        return np.full(len(values), np.nan)
    if kinds <= {int, float}:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            pass
    if kinds == {str} and _all_match(_MANY_NUMBERS, values):
        return np.array(list(map(float, values)), np.float64)
    return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def _whole(value: Any) -> int | None:
    """Return a whole number, also one written as text or as 1.0; None for anything else."""
    number = _number(value)
    return int(number) if number == number and abs(number) < 2**62 and number == int(number) else None


def _turns(degrees: NDArray[np.float64]) -> NDArray[np.int16]:
    known = np.isfinite(degrees)
    turns = np.rint(np.where(known, degrees, 0.0) % 360 * (4096 / 360)) % 4096
    return np.where(known, turns, PHASE_UNKNOWN).astype(np.int16)
