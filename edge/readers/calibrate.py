"""`tagtrail calibrate`: learn a store's antennas from a recording, say what changed, and whether it is better."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from drivers.read import EPC_BITS_MAX, Reads, epc_bytes, epc_words
from dwell import calibration, walktest
from dwell.calibration import Calibration, Findings
from dwell.layout import Layout
from dwell.visits import Visits
from edge.store.compose import Shop
from edge.store.errors import Trouble

HELD_OUT = 0.3
"""Of the recording's time, at its end: not learnt from when it is asked whether the figures explain reads better."""


@dataclass(frozen=True)
class Walk:
    """What a walk test says before and after calibration; learnt from every other stay, told of the others."""

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
    """What was learnt; `before` and `after`: mean log density of an event of reads that were not learnt from."""

    shop: Shop
    layout: Layout
    learnt: Calibration
    before: float
    after: float
    findings: Findings
    walk: Walk | None

    @property
    def better(self) -> bool:
        """Does it explain reads better that it has not seen, and not make the walk worse?"""
        before, after = (0.0, 0.0) if self.walk is None else self.walk.right()
        return self.after > self.before and after >= before


def calibrate(shop: Shop, reads: Reads, walk: Path | None, progress: Callable[[float], None]) -> Result:
    """Learn from all of the reads, having first held out the last part to judge by. Trouble if there is too little."""
    if not len(reads):
        raise Trouble("there are no reads to calibrate from")
    layout, settings = shop.layout, shop.settings
    neutral = replace(
        layout, antenna_offset_db=np.zeros(0, np.float32), antenna_rate=np.zeros(0, np.float32)
    )  # learnt afresh, whatever the store uses now
    runs = 2 if walk is None else 4
    done = 0

    def learn(part: Reads, known: Visits | None) -> Calibration:
        nonlocal done
        made = calibration.calibrate(
            neutral, settings, part, walk=known, progress=lambda share: progress((done + share) / runs)
        )
        done += 1
        return made

    try:
        first_us, last_us = int(reads["time_us"].min()), int(reads["time_us"].max())
        cut_us = last_us - round((last_us - first_us) * HELD_OUT)
        early, late = reads[reads["time_us"] < cut_us], reads[reads["time_us"] >= cut_us]
        known = None if walk is None else _known(shop, reads, walk)
        early_known = None if known is None else known[known["exit_us"] < cut_us]
        tried = learn(early, early_known).apply(neutral)
        before = calibration.likelihood(neutral, settings, late)
        after = calibration.likelihood(tried, settings, late)
        learnt = learn(reads, known)
        told = None
        if known is not None:
            told = _judge_walk(shop, neutral, reads, known, learn)
    except ValueError as error:
        raise Trouble(str(error)) from error
    found = learnt.apply(neutral)
    visits = calibration.visits_of(found, settings, reads)
    return Result(shop, found, learnt, before, after, calibration.findings(found, reads, visits), told)


def _judge_walk(
    shop: Shop, neutral: Layout, reads: Reads, known: Visits, learn: Callable[[Reads, Visits | None], Calibration]
) -> Walk:
    zones = len(shop.zones)
    before = walktest.confusion(known, calibration.visits_of(neutral, shop.settings, reads), zones)
    after = np.zeros_like(before)
    for fold in (0, 1):
        mine = np.arange(len(known)) % 2 == fold
        layout = learn(reads, known[mine]).apply(neutral)
        after += walktest.confusion(known[~mine], calibration.visits_of(layout, shop.settings, reads), zones)
    return Walk(
        epc=epc_bytes(known["epc"][0], int(known["epc_bits"][0])).hex(),
        before=before,
        after=after,
        to_move=walktest.to_move(shop.layout, reads, known),
        alike=walktest.alike(after),
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
    """Tables of what changed, what the store's reads are like, and what the walk says."""
    shop = result.shop
    table = Table("reader", "port", "zone", "reads", "offset dB", "rate", title="Antennas", title_justify="left")
    for (reader, port), zone, n, offset, rate in zip(
        shop.ports,
        shop.layout.antenna_zone.tolist(),
        result.learnt.reads.tolist(),
        result.learnt.offset_db.tolist(),
        result.learnt.rate.tolist(),
        strict=True,
    ):
        few = n < calibration.READS_WANTED
        figures = ("too few", "–") if few else (f"{offset:+.1f}", f"× {rate:.2f}")
        table.add_row(reader, str(port), shop.zones[zone], str(n), *figures, style="dim" if few else None)
    console.print(table)
    _show_findings(result.findings, console)
    console.print(
        f"Reads that were not learnt from: log density {result.before:.3f} before, {result.after:.3f} after: "
        + ("explained better." if result.after > result.before else "NOT explained better.")
    )
    if result.walk is not None:
        _show_walk(shop, result.walk, console)


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
    console.print(f"Walk test, tag {walk.epc}: each stay judged by what the others taught.")
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
