"""Format counts, shares, durations and times as text."""

from __future__ import annotations

import datetime as dt

from config import StoreConfig


def local(config: StoreConfig, at_us: int | None) -> dt.datetime | None:
    """Convert a time to the store's local time."""
    return None if at_us is None else dt.datetime.fromtimestamp(at_us / 1e6, config.store.tz)


def iso(config: StoreConfig, at_us: int | None) -> str:
    """Format a time as ISO 8601 in the store's local time; empty for None."""
    at = local(config, at_us)
    return "" if at is None else at.isoformat(timespec="seconds")


def number(value: int | None) -> str:
    """Format a count with grouped digits; a dash if nothing was measured."""
    return "–" if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """Format a share in whole per cent; 100 % only if it is exactly 1, 0 % only if it is exactly 0."""
    if share is None:
        return "–"
    whole = round(share * 100)
    return f"{min(whole, 99) if share < 1 else whole} %" if share == 0 or whole > 0 else "1 %"


def duration(seconds: float | None, lang: str = "en") -> str:
    """Format a duration as `45 s` (`45 秒`), `2:05` or `1:02:05`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} {'秒' if lang == 'zh' else 's'}"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def in_words(seconds: float, lang: str) -> str:
    """Format a duration as `1 h 30 min` or `1 小时 30 分钟`, where digits with colons could be mistaken for a time."""
    whole = round(seconds)
    units = ((3600, ("小时", "h")), (60, ("分钟", "min")), (1, ("秒", "s")))
    parts = []
    for long_s, names in units:
        n, whole = divmod(whole, long_s)
        if n:
            parts.append(f"{n} {names[lang != 'zh']}")
    return " ".join(parts) or f"{seconds:g} {units[-1][1][lang != 'zh']}"
