"""`tagtrail calibrate`: learn a store's radio from a recording, say what it is like, and whether it is better so."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from drivers.read import EPC_BITS_MAX, Reads, epc_bytes, epc_words
from dwell import walktest
from dwell.findings import Findings, findings, visits_of
from dwell.markov import learning
from dwell.markov.field import Field
from dwell.visits import Visits
from edge.store.calibration_file import Calibration
from edge.store.compose import Shop
from edge.store.errors import Trouble

READS_WANTED = 50
"""Antennas with fewer reads say little of themselves."""


@dataclass(frozen=True)
class Walk:
    """What a walk test says before and after calibration, which learns nothing from the walk itself."""

    epc: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    """(Z, Z + 1) seconds: zone by zone decided, last none."""
    to_move: list[walktest.Moved]
    alike: list[tuple[int, int, float]]

    def right(self) -> tuple[float, float]:
        """Share of the time in the right zone, before and after."""
        total = self.before.sum()
        return float(np.trace(self.before) / total), float(np.trace(self.after) / total)


@dataclass(frozen=True)
class Result:
    """What was learnt; its densities: nats a second of tags that were not learnt from, before and after."""

    shop: Shop
    learnt: Calibration
    heard: NDArray[np.int64]
    """(A,) reads of each antenna."""
    findings: Findings
    walk: Walk | None

    @property
    def explained(self) -> bool:
        """Does it explain reads that it has not seen better than a usual radio does?"""
        return self.learnt.after >= self.learnt.before

    @property
    def better(self) -> bool:
        """Does it explain them better, and not make the walk worse?"""
        before, after = (0.0, 0.0) if self.walk is None else self.walk.right()
        return self.explained and after >= before


def calibrate(shop: Shop, reads: Reads, walk: Path | None, progress: Callable[[float], None]) -> Result:
    """Learn from the reads, judged by tags that are held out. Trouble if there is too little."""
    if not len(reads):
        raise Trouble("there are no reads to calibrate from")
    layout, settings = shop.layout, shop.settings
    known = None if walk is None else _judged(shop, reads, walk)
    try:
        # Learnt afresh, whatever the store uses now, and compared with what a store begins with.
        found = learning.learn(layout, reads)
    except ValueError as error:
        raise Trouble(str(error)) from error
    progress(0.7)
    made = Calibration(
        found.field, int(reads["time_us"].max()), len(reads), found.tags, found.ticks, found.before, found.after
    )
    visits = visits_of(layout, settings, reads, found.field)
    progress(0.85)
    heard = np.bincount(reads["antenna"], minlength=len(shop.ports))
    told = None if known is None else _judge_walk(shop, reads, known, visits)
    progress(1.0)
    return Result(shop, made, heard, findings(layout, reads, visits), told)


def _judged(shop: Shop, reads: Reads, walk: Path) -> Visits:
    try:
        return _known(shop, reads, walk)
    except ValueError as error:
        raise Trouble(str(error)) from error


def _judge_walk(shop: Shop, reads: Reads, known: Visits, after: Visits) -> Walk:
    """`after`: visits decided with what was learnt."""
    zones = len(shop.zones)
    first = learning.first(shop.layout, reads)
    before = walktest.confusion(known, visits_of(shop.layout, shop.settings, reads, first), zones)
    learnt = walktest.confusion(known, after, zones)
    return Walk(
        epc=epc_bytes(known["epc"][0], int(known["epc_bits"][0])).hex(),
        before=before,
        after=learnt,
        to_move=walktest.to_move(shop.layout, reads, known),
        alike=walktest.alike(learnt),
    )


def _known(shop: Shop, reads: Reads, path: Path) -> Visits:
    """The walk's rows as visits; who walked is found in the reads unless the file has a column epc."""
    number = {zone: index for index, zone in enumerate(shop.zones)}
    zone, from_us, to_us, epcs = [], [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"zone", "from", "to"} <= set(rows.fieldnames or ()):
                raise Trouble(f"{path}: the first line must be zone,from,to or zone,from,to,epc")
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if row["zone"] not in number:
                    raise Trouble(f"{where}: no zone {row['zone']!r} in the store file")
                zone.append(number[row["zone"]])
                from_us.append(_time(shop, row["from"], where))
                to_us.append(_time(shop, row["to"], where))
                if to_us[-1] <= from_us[-1]:
                    raise Trouble(f"{where}: `to` is not after `from`")
                epcs.append(_epc(row.get("epc") or "", where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Trouble(f"cannot read {path}: {error}") from error
    if not zone:
        raise Trouble(f"{path}: no rows")
    at = (np.array(zone), np.array(from_us), np.array(to_us))
    if all(epcs):
        words, bits = np.array([epc_words(epc) for epc in epcs]), np.array([len(epc) * 8 for epc in epcs])
    elif any(epcs):
        raise Trouble(f"{path}: give the epc in every row or in none")
    else:
        tag = reads[walktest.walker(reads, shop.layout, *at)]
        words, bits = np.tile(tag["epc"], (len(zone), 1)), np.full(len(zone), tag["epc_bits"])
    return walktest.stays(*at, words, bits)


def _time(shop: Shop, text: str | None, where: str) -> int:
    """UTC microseconds, or ISO 8601: in the store's time zone where it names none."""
    text = (text or "").strip()
    try:
        if text.isdigit():
            return int(text)
        when = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise Trouble(f"{where}: {text!r} is neither a time like 2026-01-31T10:05:00 nor UTC microseconds") from error
    if when.tzinfo is None:
        when = when.replace(tzinfo=shop.config.store.tz)
    return round(when.timestamp() * 1e6)


def _epc(text: str, where: str) -> bytes:
    try:
        epc = bytes.fromhex(text)
    except ValueError as error:
        raise Trouble(f"{where}: the epc {text!r} is not hexadecimal") from error
    if len(epc) * 8 > EPC_BITS_MAX:
        raise Trouble(f"{where}: an EPC has at most {EPC_BITS_MAX // 4} hex digits")
    return epc


# What people read.


def show(result: Result, console: Console) -> None:
    """Tables of what was learnt, what the store's reads are like, and what the walk says."""
    shop, learnt = result.shop, result.learnt
    table = Table("what", "learnt", "", title="Radio of the store", title_justify="left")
    for name, figure, meaning in radio_words(learnt.field):
        table.add_row(name, figure, meaning)
    console.print(table)
    table = Table("reader", "port", "zone", "reads", "offset dB", "answers", title="Antennas", title_justify="left")
    for (reader, port), zone, n, offset, rate in zip(
        shop.ports,
        shop.layout.antenna_zone.tolist(),
        result.heard.tolist(),
        learnt.field.offset_db.tolist(),
        learnt.field.rate.tolist(),
        strict=True,
    ):
        few = n < READS_WANTED
        figures = ("too few", "–") if few else (f"{offset:+.1f}", f"{rate:.0%}")
        table.add_row(reader, str(port), shop.zones[zone], str(n), *figures, style="dim" if few else None)
    console.print(table)
    console.print(
        "Offset: how much louder than the others an antenna hears tags. Answers: share of the seconds in which"
    )
    console.print("it reads a tag that is loud enough.")
    _show_findings(result.findings, console)
    console.print(
        f"Learnt from {learnt.reads} reads of {learnt.tags} tags in {learnt.seconds} seconds. Other tags' reads: log "
        f"density {learnt.before:.3f} a second before, {learnt.after:.3f} after: "
        + ("explained better." if result.explained else "NOT explained better.")
    )
    if result.walk is not None:
        _show_walk(shop, result.walk, console)


def radio_words(field: Field) -> list[tuple[str, str, str]]:
    """The figures that all antennas share: name, figure, meaning."""
    return [
        ("level", f"{field.level_1m_dbm:.1f} dBm", f"of a usual tag at 1 m; {field.level_3m_dbm:.1f} dBm at 3 m"),
        ("slope", f"{field.slope_db:.1f} dB", "lost from 1 m to 10 m, there and back"),
        ("sensitivity", f"{field.half_rate_dbm:.1f} dBm", "level at which half of the answers are lost"),
        ("spread", f"{field.spread_db:.1f} dB", "of levels heard from the same place"),
        (
            "body",
            f"{field.block_db:.0f} dB",
            f"lost through a person, who gets in between every {1 / field.block_rate:.0f} s",
        ),
        ("slab", f"{field.slab_db:.0f} dB", "lost from one floor to the next"),
    ]


def _show_findings(found: Findings, console: Console) -> None:
    table = Table("heard by", "10 %", "median", "90 %", title="RSSI in dBm", title_justify="left")
    for name, levels in (("own zone", found.own_dbm), ("neighbours", found.near_dbm), ("others", found.far_dbm)):
        table.add_row(name, *(f"{level:.1f}" if np.isfinite(level) else "–" for level in levels))
    console.print(table)
    names = ("50 %", "90 %", "99 %", "99.9 %")
    silences = ", ".join(f"{name} under {s:.1f} s" for name, s in zip(names, found.silence_s, strict=True))
    console.print(f"{found.own_share:.0%} of the reads in visits come from the zone's own antennas.")
    console.print(f"Silences: {silences}; {found.silent_share:.0%} of the time lies in silences over 10 s.")


def _show_walk(shop: Shop, walk: Walk, console: Console) -> None:
    console.print(f"Walk test, tag {walk.epc}: before and after calibration.")
    walked = np.flatnonzero(walk.before.sum(axis=1))
    table = Table("zone", "seconds", "right before", "right after", "otherwise", title="Walk", title_justify="left")
    for z in walked.tolist():
        total = walk.before[z].sum()
        astray = [(s, shop.zones[o] if o < len(shop.zones) else "none") for o, s in enumerate(walk.after[z]) if o != z]
        worst = [f"{name} {s / total:.0%}" for s, name in sorted(astray, reverse=True)[:3] if s >= 0.05 * total]
        shares = (f"{matrix[z, z] / total:.0%}" for matrix in (walk.before, walk.after))
        table.add_row(shop.zones[z], f"{total:.0f}", *shares, ", ".join(worst))
    before, after = walk.right()
    table.add_row("all", f"{walk.before.sum():.0f}", f"{before:.0%}", f"{after:.0%}", "", style="bold")
    console.print(table)
    if after < before:
        console.print("Calibration makes the walk WORSE: keep the store as it is, or record for longer.")
    for moved in walk.to_move:
        reader, port = shop.ports[moved.antenna]
        own = shop.zones[shop.layout.antenna_zone[moved.antenna]]
        console.print(
            f"{reader} port {port} hears {shop.zones[moved.zone]} ({moved.rate:.1f} reads/s) better than its own zone "
            f"{own} ({moved.own_rate:.1f}): move it, turn it, or look whether cables are swapped."
        )
    for a, b, share in walk.alike:
        console.print(f"{shop.zones[a]} and {shop.zones[b]} can't be told apart: {share:.0%} of the time goes astray.")
    if not walk.to_move and not walk.alike:
        console.print("No antenna has to move, and all zones that were walked can be told apart.")
