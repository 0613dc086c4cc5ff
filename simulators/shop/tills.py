"""What the tills of a simulated shop sell, by zone and hour: from where people truly were, and from others without a
tag. As the chain's headquarters would know it: without anybody's name, and without knowing the engine."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import StoreConfig
from simulators.shop.score import Stay

HOUR_US = 3_600_000_000
CURRENCY = "CNY"
HEADER = ("hour", "zone", "tickets", "units", "amount", "currency")
SHOPPERS = "2d"
"""EPCs of members begin with it (GSRN-96). Who wears another tag works, or rolls."""
PATIENCE_S = 240.0
"""Who stays for so long buys in about two of three cases, if the counter is good at it."""
GOODNESS = (0.15, 0.75)
"""Between these, a counter's share of buyers among those who stay for ever is drawn."""
WITHOUT_TAG = 0.4
"""Buyers without a tag, per buyer with one."""
PRICES = (80.0, 900.0)
SELLING = ("counter",)


class Sale(NamedTuple):
    """Sales of one zone in one hour."""

    hour_us: int
    zone: str
    tickets: int
    units: int
    amount: float


def sales(config: StoreConfig, stays: Iterable[Stay], start_us: int, end_us: int, seed: int) -> list[Sale]:
    """Return the sales of every counter in every hour between two times, also those without any.

    A stay sells once or not at all, in the hour in which it ends; the same stays and seed always sell the same.
    """
    at: dict[tuple[int, str], list[float]] = defaultdict(list)
    hours = hours_over(config, start_us, end_us)
    for stay in stays:
        if stay.epc.startswith(SHOPPERS) and hours and stay.exit_us < hours[-1] + HOUR_US:
            hour_us = hours[(stay.exit_us - hours[0]) // HOUR_US]
            at[hour_us, stay.zone].append((stay.exit_us - stay.enter_us) / 1e6)
    found = []
    for number, zone in enumerate(zone for zone in config.zones if zone.kind.value in SELLING):
        own = np.random.default_rng([seed, 70, number])
        good, price = own.uniform(*GOODNESS), own.uniform(*PRICES)
        for hour_us in hours:
            rng = np.random.default_rng([seed, 71, number, hour_us // 1_000_000])
            seconds = np.array(at[hour_us, zone.id])
            tagged = int((rng.random(len(seconds)) < good * (1 - np.exp(-seconds / PATIENCE_S))).sum())
            tickets = tagged + int(rng.poisson(WITHOUT_TAG * tagged))
            units = tickets + int(rng.poisson(0.3 * tickets))
            amount = round(float(price * rng.gamma(4, 0.25, units).sum()), 2)
            found.append(Sale(hour_us, zone.id, tickets, units, amount))
    return found


def write(path: Path, config: StoreConfig, found: Iterable[Sale]) -> None:
    """Write a file for `tagtrail sales import`; a reader never sees half of it."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        for sale in found:
            at = datetime.fromtimestamp(sale.hour_us / 1e6, config.store.tz)
            rows.writerow((at.isoformat(), *sale[1:], CURRENCY))
    os.replace(beside, path)


def hours_over(config: StoreConfig, start_us: int, end_us: int) -> list[int]:
    """Return the beginnings of the clock's hours that are over at `end_us`, from the one that holds `start_us`."""
    at = datetime.fromtimestamp(start_us / 1e6, config.store.tz).replace(minute=0, second=0, microsecond=0)
    first_us = round(at.timestamp()) * 1_000_000
    return list(range(first_us, end_us - HOUR_US + 1, HOUR_US))
