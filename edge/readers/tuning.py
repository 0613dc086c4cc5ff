"""`tagtrail readers tune`: measure a reader's antennas by some minutes of reads, and propose its settings.

Reads are looked at by tag, antenna and second. What a reader keeps to itself, such as slots in which tags collided,
shows as seconds in which a tag that stays was not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.readers import Reader
from drivers.read import ANTENNA_UNKNOWN, READ, RSSI_UNKNOWN, Reads
from drivers.session import Tables
from dwell.read import hashed, joined

MOST_READS = 1_000_000
"""Reads kept in memory, 80 MB; a reader that is so fast has said enough."""
WINDOW_S = 5
"""A tag is nearest to the antenna that hears it loudest in this time."""
GAP_S = 4
"""Longest time without a read of a tag that has stayed."""
BUSY_TAGS = 100
"""Tags in a field above which session 1 lets each be read once in a while instead of all the time."""
CROWDED_TAGS = 40
MISSED = 0.3
"""Share of seconds missed that is bad."""
NEIGHBOURS, MANY_NEIGHBOURS, FEW_NEIGHBOURS = 0.3, 0.6, 0.1
"""Shares of reads that belong to another zone's antenna."""
STEP_DB = 3.0
READS_WANTED = 200
"""Antennas with fewer reads say little of themselves."""
FLOOD_PER_S = 200.0
REPORTS_PER_S = 20.0
MAKERS_MODES = 1000
"""Modes from here on are a maker's own choices between its modes."""
STEADY_KBPS, FAST_KBPS = 80.0, 400.0


@dataclass(frozen=True)
class Port:
    """One antenna port in the time of the measurement."""

    port: int
    zone: str
    reads: int
    reads_per_s: float
    tags: int
    field: int
    """Tags heard in a busy second."""
    rate: float
    """Reads a second of a tag that is nearest to this antenna; NaN without one."""
    missed: float
    """Share of the seconds in which such a tag was there and not read; NaN without one."""
    neighbours: float
    """Share of its reads that are of tags nearer to another zone's antenna."""

    @property
    def says_enough(self) -> bool:
        return self.reads >= READS_WANTED


@dataclass
class Proposal:
    """Changes of the store file's keys, with their reasons."""

    keys: dict[str, int | float] = field(default_factory=dict)
    antennas: dict[int, dict[str, int | float]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.keys or self.antennas)


class Collected:
    """Reads as they arrive, until there are MOST_READS."""

    def __init__(self, most: int = MOST_READS) -> None:
        self._most = most
        self._batches: list[Reads] = [np.zeros(0, READ)]
        self._number = 0

    @property
    def full(self) -> bool:
        """True once there are enough: no more are taken."""
        return self._number >= self._most

    def add(self, _reader: str, batch: Reads, _phases: object = None) -> None:
        """Take a batch, or as much of it as there is room for."""
        taken = batch[: self._most - self._number]
        self._number += len(taken)
        self._batches.append(taken)

    def reads(self) -> Reads:
        """Return what has been taken."""
        return joined(self._batches)


class _Heard(NamedTuple):
    """Reads of a tag at an antenna in a second."""

    tag: NDArray[np.int64]
    antenna: NDArray[np.int64]
    second: NDArray[np.int64]
    reads: NDArray[np.int64]
    level: NDArray[np.float64]
    """Mean RSSI in dBm; -inf if unknown."""


def measure(reads: Reads, ports: Mapping[int, int], zones: Mapping[int, str], seconds: float) -> list[Port]:
    """Measure each port of `ports` (port → antenna); `zones` by antenna."""
    heard = _by_second(reads[reads["antenna"] != ANTENNA_UNKNOWN])
    owner = _owners(heard)
    numbers = sorted(set(zones.values()))
    zone_of = np.zeros(max([*zones, *ports.values()], default=0) + 1, np.int64)
    for antenna, zone in zones.items():
        zone_of[antenna] = numbers.index(zone)
    return [_port(port, antenna, zones[antenna], heard, owner, zone_of, seconds) for port, antenna in ports.items()]


def _by_second(reads: Reads) -> _Heard:
    if not len(reads):
        none = np.zeros(0, np.int64)
        return _Heard(none, none, none, none, np.zeros(0))
    tags = _numbered(hashed(reads))
    key, sizes = _joined(tags, reads["antenna"], reads["time_us"] // 1_000_000)
    unique, row = np.unique(key, return_inverse=True)
    known = reads["rssi_cdbm"] != RSSI_UNKNOWN
    counts = np.bincount(row, reads["count"], len(unique)).astype(np.int64)
    told = np.bincount(row[known], minlength=len(unique))
    sums = np.bincount(row[known], reads["rssi_cdbm"][known] / 100, len(unique))
    level = np.where(told > 0, sums / np.maximum(told, 1), -np.inf)
    tag, antenna, second = _apart(unique, sizes)
    return _Heard(tag, antenna, second, counts, level)


def _owners(heard: _Heard) -> NDArray[np.int64]:
    """Return, for each entry, the antenna that hears its tag loudest in that window, or most often without RSSI."""
    if not len(heard.tag):
        return np.zeros(0, np.int64)
    stay = _numbered(_joined(heard.tag, heard.second // WINDOW_S)[0])
    key, sizes = _joined(stay, heard.antenna)
    unique, row = np.unique(key, return_inverse=True)
    stays, antennas = _apart(unique, sizes)
    reads = np.bincount(row, heard.reads, len(unique))
    loud = np.full(len(unique), -np.inf)
    np.maximum.at(loud, row, heard.level)
    order = np.lexsort((reads, loud, stays))
    last = np.append(stays[order][1:] != stays[order][:-1], True)
    nearest: NDArray[np.int64] = antennas[order][last]
    return nearest[stay]


def _numbered(values: NDArray[Any]) -> NDArray[np.int64]:
    """Replace values by their places among the different ones: many times faster than comparing rows."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _joined(*columns: NDArray[Any]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Join columns of integers into one that sorts like them; returns lowest value and size of each, for `_apart`."""
    joined, sizes = np.zeros(len(columns[0]), np.int64), []
    for column in columns:
        low = int(column.min())
        size = int(column.max()) - low + 1
        joined = joined * size + (column.astype(np.int64) - low)
        sizes.append((low, size))
    return joined, sizes


def _apart(joined: NDArray[np.int64], sizes: list[tuple[int, int]]) -> tuple[NDArray[np.int64], ...]:
    columns = []
    for low, size in reversed(sizes):
        joined, column = np.divmod(joined, size)
        columns.append(column + low)
    return tuple(reversed(columns))


def _port(
    port: int,
    antenna: int,
    zone: str,
    heard: _Heard,
    owner: NDArray[np.int64],
    zone_of: NDArray[np.int64],
    seconds: float,
) -> Port:
    mine = heard.antenna == antenna
    reads = int(heard.reads[mine].sum())
    foreign = mine & (zone_of[owner] != zone_of[antenna]) if len(owner) else mine
    _, tags_a_second = np.unique(heard.second[mine], return_counts=True)
    near = mine & (owner == antenna) if len(owner) else mine
    rate, missed = _staying(heard.tag[near], heard.second[near], heard.reads[near])
    return Port(
        port,
        zone,
        reads,
        reads / max(seconds, 1.0),
        len(np.unique(heard.tag[mine])),
        math.ceil(np.percentile(tags_a_second, 95)) if len(tags_a_second) else 0,
        rate,
        missed,
        float(heard.reads[foreign].sum() / reads) if reads else 0.0,
    )


def _staying(tags: NDArray[np.int64], seconds: NDArray[np.int64], reads: NDArray[np.int64]) -> tuple[float, float]:
    """Return reads a second, and the share of seconds missed, of tags while they stay."""
    if len(tags) < 2:
        return math.nan, math.nan
    order = np.lexsort((seconds, tags))
    tags, seconds, reads = tags[order], seconds[order], reads[order]
    steps = np.diff(seconds)
    stays = (np.diff(tags) == 0) & (steps <= GAP_S)
    there = int(steps[stays].sum())
    if not there:
        return math.nan, math.nan
    # The last second of a stay is a part of one: it is left out.
    return float(reads[:-1][stays].sum() / there), float((steps[stays] - 1).sum() / there)


def propose(reader: Reader, ports: list[Port], tables: Tables) -> Proposal:
    """Propose settings, within the reader's own `tables`."""
    done = Proposal()
    enough = [port for port in ports if port.says_enough]
    if not enough:
        return done
    _session(reader, enough, done)
    if reader.driver != "llrp":  # others take no more from the store file, nor do they tell what they can do
        return done
    _report_tags(reader, ports, done)
    for port in enough:
        _power(reader, port, tables, done)
        _mode(reader, port, tables, done)
        _population(reader, port, done)
    return done


def _session(reader: Reader, ports: list[Port], done: Proposal) -> None:
    fullest = max(ports, key=lambda port: port.field)
    crowded = fullest.field >= CROWDED_TAGS and fullest.missed > MISSED
    wanted = 1 if fullest.field >= BUSY_TAGS or crowded else 0
    if reader.session != wanted:
        done.keys["session"] = wanted
        done.reasons.append(
            f"session {wanted}: up to {fullest.field} tags at once before port {fullest.port}"
            + (f", missed in {fullest.missed:.0%} of the seconds" if crowded else "")
        )


def _report_tags(reader: Reader, ports: list[Port], done: Proposal) -> None:
    per_s = sum(port.reads_per_s for port in ports)
    wanted = min(64, math.ceil(per_s / REPORTS_PER_S)) if per_s > FLOOD_PER_S else 1
    if reader.report_tags != wanted:
        done.keys["report_tags"] = wanted
        done.reasons.append(f"report_tags {wanted}: {per_s:.0f} reads a second")


def _power(reader: Reader, port: Port, tables: Tables, done: Proposal) -> None:
    if not tables.powers_cdbm:
        return
    lowest, highest = tables.powers_cdbm[0] / 100, tables.powers_cdbm[-1] / 100
    given = _given(reader, port.port, "power")
    now = highest if given is None else float(given)
    if port.neighbours > NEIGHBOURS:
        step = -STEP_DB * (2 if port.neighbours > MANY_NEIGHBOURS else 1)
        why = f"{port.neighbours:.0%} of its reads are of tags nearer to another zone"
    elif port.neighbours < FEW_NEIGHBOURS and port.field < CROWDED_TAGS and (port.rate < 1 or port.missed > MISSED):
        step = STEP_DB
        why = f"a tag that stays is missed in {port.missed:.0%} of the seconds"
    else:
        return
    wanted = min(max(now + step, lowest), highest)
    if wanted != now:
        assumed = f"the reader's highest, {now:g}" if given is None else f"{now:g}"
        _antenna(done, port, "power", wanted, f"{wanted:g} dBm instead of {assumed}: {why}")


def _mode(reader: Reader, port: Port, tables: Tables, done: Proposal) -> None:
    modes = {number: rate / 1000 for number, rate in tables.modes.items() if number < MAKERS_MODES}
    given = _given(reader, port.port, "mode")
    if len(modes) < 2 or not port.missed > MISSED or (given is not None and given not in modes):
        return
    by_rate = sorted(modes, key=lambda number: modes[number])
    if port.field >= CROWDED_TAGS:
        limit = FAST_KBPS
        faster = [n for n in by_rate if modes[n] <= limit and (given is None or modes[n] > modes[int(given)])]
        wanted = (faster[-1] if given is None else faster[0]) if faster else None
        why = f"up to {port.field} tags at once, missed in {port.missed:.0%} of the seconds: a faster mode"
    else:
        slower = [n for n in by_rate if (modes[n] <= STEADY_KBPS if given is None else modes[n] < modes[int(given)])]
        wanted = slower[-1] if slower else None
        why = f"few tags, missed in {port.missed:.0%} of the seconds: a slower mode hears weaker ones"
    if wanted is not None and wanted != given:
        _antenna(done, port, "mode", wanted, f"{wanted} ({modes[wanted]:g} kb/s): {why}")


def _population(reader: Reader, port: Port, done: Proposal) -> None:
    given = _given(reader, port.port, "population")
    wanted = max(4, 1 << max(port.field - 1, 1).bit_length())
    if ("session" in done.keys or reader.session is not None) and not _near(given or 32, wanted):
        _antenna(done, port, "population", wanted, f"{wanted}: up to {port.field} tags at once")


def _near(now: float, wanted: float) -> bool:
    return wanted / 2 <= now <= 2 * wanted


def _antenna(done: Proposal, port: Port, key: str, value: int | float, why: str) -> None:
    done.antennas.setdefault(port.port, {})[key] = value
    done.reasons.append(f"port {port.port} ({port.zone}): {key} {why}")


def _given(reader: Reader, port: int, key: str) -> int | float | None:
    return next((getattr(each, key) for each in reader.antennas if each.port == port), None)


def rows(ports: list[Port]) -> Iterator[tuple[str, ...]]:
    """Return the measurements as texts, in the order of COLUMNS."""
    for each in ports:
        yield (
            str(each.port),
            each.zone,
            f"{each.reads_per_s:.1f}",
            str(each.tags),
            str(each.field),
            "" if math.isnan(each.rate) else f"{each.rate:.1f}",
            "" if math.isnan(each.missed) else f"{each.missed:.0%}",
            f"{each.neighbours:.0%}",
        )


COLUMNS = ("port", "zone", "reads/s", "tags", "at once", "reads/s a tag", "missed", "of neighbours")
