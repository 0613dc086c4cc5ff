"""The radio of a store in words: what the engine takes it to be, for people at a terminal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

SOURCES = {
    "usual": "usual figures, nothing learnt yet",
    "compared": "the usual figures that fit best",
    "learnt": "learnt from the store's own reads",
    "kept": "learnt from the store's own reads before the last start",
    "named": "from the store file's calibration",
}


def tell_radio(radio: dict[str, Any]) -> Iterator[str]:
    """Lines about `radio` of the live state: the figures, what they come from, how sure they are, and a warning."""
    since = dt.datetime.fromtimestamp(radio["since_us"] / 1e6, dt.UTC)
    yield (
        f"radio: {radio['level_1m_dbm']:.1f} dBm at 1 m, {radio['slope_db']:.1f} dB a decade, half heard at "
        f"{radio['half_rate_dbm']:.1f} dBm; {SOURCES[radio['source']]}, in use since {since:%Y-%m-%d %H:%M} UTC"
    )
    if radio["tags"]:
        yield (
            f"radio: learnt from {radio['reads']} reads of {radio['tags']} tags; log density a second "
            f"{radio['after']:.2f}, before {radio['before']:.2f}"
        )
    if radio["worse_nats"]:
        yield (
            f"radio: the store file's calibration explains reads {radio['worse_nats']:.1f} nats a second worse than "
            "one learnt today: calibrate again"
        )
