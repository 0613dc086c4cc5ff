"""Counts, shares, durations and moments as text."""

from __future__ import annotations

import datetime as dt

from config import StoreConfig


def local(config: StoreConfig, at_us: int | None) -> dt.datetime | None:
    """A moment in the store's time."""
    return None if at_us is None else dt.datetime.fromtimestamp(at_us / 1e6, config.store.tz)


def iso(config: StoreConfig, at_us: int | None) -> str:
    """A moment as ISO 8601 in the store's time; empty for none."""
    at = local(config, at_us)
    return "" if at is None else at.isoformat(timespec="seconds")


def number(value: int | None) -> str:
    """A count with thin groups; a dash where nothing was measured."""
    return "–" if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """A share as whole per cent; 100 % only when nothing is missing, 0 % only when everything is."""
    if share is None:
        return "–"
    whole = round(share * 100)
    return f"{min(whole, 99) if share < 1 else whole} %" if share == 0 or whole > 0 else "1 %"


def duration(seconds: float | None) -> str:
    """`45 s`, `2:05`, `1:02:05`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def in_words(seconds: float, lang: str) -> str:
    """`30 s`, `2 min`, `1 h 30 min`; `30 秒`, `2 分钟`, `1 小时 30 分钟`: where a clock could be misread."""
    whole = round(seconds)
    units = ((3600, ("小时", "h")), (60, ("分钟", "min")), (1, ("秒", "s")))
    parts = []
    for long_s, names in units:
        n, whole = divmod(whole, long_s)
        if n:
            parts.append(f"{n} {names[lang != 'zh']}")
    return " ".join(parts) or f"{seconds:g} {units[-1][1][lang != 'zh']}"
