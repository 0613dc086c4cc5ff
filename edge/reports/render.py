"""Output of `tagtrail summary`."""

from __future__ import annotations

import asyncio
import time

from config import StoreConfig
from edge.days.history import history
from edge.store.business_days import business_days, parse_date
from edge.store.errors import Trouble


def render(config: StoreConfig, date: str | None, form: str, lang: str) -> str:
    """Render a business day (YYYY-MM-DD; None: the current one) as `text`, `json` or `csv`, in `zh` or `en`.

    Includes the state of the service if it is running. Raises Trouble for errors that the caller can correct.
    """
    from edge.reports.insights import as_text as insights_as_text
    from edge.reports.insights import as_values, insights
    from edge.reports.summary import as_csv, as_json, as_text
    from edge.store.live_socket import read_once, socket_path
    from edge.store.live_state import Now
    from edge.words.languages import LANGUAGES

    if lang not in LANGUAGES:
        raise Trouble(f"no language {lang!r}; there are {', '.join(LANGUAGES)}")
    chosen = None if date is None else parse_date(date)
    line = asyncio.run(read_once(socket_path(config)))
    now = None if line is None else Now.model_validate(line)
    present_us = time.time_ns() // 1000 if now is None else now.as_of_us
    with history(config) as past:
        day = chosen or business_days(config).date(present_us)
        summary = past.summary(day)
        if form == "csv":
            return as_csv(summary, config, lang)
        found = insights(past, day)
    if form == "json":
        return as_json(summary, now, as_values(found))
    return as_text(summary, config, lang, now) + insights_as_text(found, config, lang)
