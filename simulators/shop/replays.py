"""Replay files of a simulated shop: `time_us,reader,antenna,epc,rssi_dbm` in order of arrival, and the truth."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from config import StoreConfig
from simulators.readers.observation import RSSI_UNKNOWN
from simulators.shop.antennas import Antennas
from simulators.shop.radio import ROW, Rows
from simulators.shop.score import write_stays
from simulators.shop.world import SimulatedShop
from simulators.shop.worlds import World

ORIGIN_US = 1_767_232_800_000_000
"""2026-01-01 10:00 in China: fixed, so that files depend only on the arguments."""


def write_replay(
    config: StoreConfig,
    world: World,
    reads: Path,
    truth: Path | None,
    *,
    seed: int,
    minutes: float,
    shoppers: int,
    antennas: Antennas | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> int:
    """Simulate and write both files (`.gz` by name); returns the number of reads. `progress` hears shares done."""
    shop = SimulatedShop(config, world, seed=seed, shoppers=shoppers, origin_us=ORIGIN_US, antennas=antennas)
    until_us = ORIGIN_US + round(minutes * 60e6)
    written = 0
    waiting = np.empty(0, ROW)
    with _open(reads) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("time_us", "reader", "antenna", "epc", "rssi_dbm"))
        made_us = ORIGIN_US
        while made_us < until_us:
            _, made_us, rows = shop.slice()
            waiting = np.concatenate([waiting, rows])
            waiting = waiting[np.argsort(waiting["arrival_us"], kind="stable")]
            whole = np.searchsorted(waiting["arrival_us"], min(made_us, until_us))
            out.writerows(_lines(config, shop, waiting[:whole]))
            written += int(whole)
            waiting = waiting[whole:]
            progress((made_us - ORIGIN_US) / (until_us - ORIGIN_US))
    if truth is not None:
        write_stays(truth, shop.truth(until_us))
    return written


def _lines(config: StoreConfig, shop: SimulatedShop, rows: Rows) -> list[tuple[int, str, int, str, str]]:
    ids = [config.readers[reader].id for reader in shop.antennas.reader.tolist()]
    ports = shop.antennas.port.tolist()
    return [
        (t, ids[a], ports[a], shop.epcs[e].hex(), "" if r == RSSI_UNKNOWN else f"{r / 100:.1f}")
        for t, a, e, r in zip(
            rows["time_us"].tolist(),
            rows["antenna"].tolist(),
            rows["tag"].tolist(),
            rows["rssi_cdbm"].tolist(),
            strict=True,
        )
    ]


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """Open for writing text; .gz files contain no name and time, so that the same seed gives the same bytes."""
    if path.suffix != ".gz":
        with path.open("w", newline="") as plain:
            yield plain
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed,
        io.TextIOWrapper(packed, newline="") as text,
    ):
        yield text
