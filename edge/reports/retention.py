"""Report on retention: the age of all stored data, compared with its maximum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass

from config import StoreConfig
from edge.access.members import oldest_line
from edge.access.users import KEEP_AUDIT_S, users_path
from edge.access.verdicts import KEEP, verdicts
from edge.database.reader import NoDatabase, connect
from edge.database.retention import held
from edge.database.tombstones import Tombstones
from edge.store.business_days import parse_date
from edge.store.files import DAY_S, KINDS, beside, copies

GRACE_DAYS = 1.0
"""Tolerance: old data is deleted within an hour while the service runs, but it may have been off for a night."""


@dataclass(frozen=True)
class Line:
    """One kind of data: its maximum age and that of the oldest item, in days; None if there is no data."""

    what: str
    keep_days: float
    oldest_days: float | None

    @property
    def ok(self) -> bool:
        """True if nothing is too old."""
        return self.oldest_days is None or self.oldest_days <= self.keep_days + GRACE_DAYS


def lines(config: StoreConfig, now_us: int, now_s: float) -> Iterator[Line]:
    """Yield all kinds of data. `now_us`: the store's clock; `now_s`: the machine's clock."""
    database, keep_days = config.database.path, float(config.database.keep_days)

    def since(time_us: int | None) -> float | None:
        return None if time_us is None else max(0.0, (now_us - time_us) / 1e6 / DAY_S)

    with suppress(NoDatabase), closing(connect(database)) as conn:
        for kind in held(conn, config):
            yield Line(kind.what, kind.keep_days, since(kind.oldest_us))
    at_s = oldest_line(users_path(config))
    yield Line("audit log entries", KEEP_AUDIT_S / DAY_S, None if at_s is None else (now_s - at_s) / DAY_S)
    dates = [parse_date(one.date) for one in verdicts(config)]
    today_s = now_us / 1e6
    ages = [(today_s / DAY_S) - (date.toordinal() - EPOCH) for date in dates]
    yield Line("verdicts on suspect tags", KEEP.days, max(ages, default=None))
    yield Line("erased members, as keyed hashes", keep_days, since(Tombstones(database, b"").oldest_us))
    ages_of: dict[str, list[float]] = {kind.what: [] for kind in KINDS if kind.keep_days is not None}
    for file, kind_ in beside(database):
        if kind_ is not None and kind_.keep_days is not None:
            ages_of[kind_.what].append((now_s - file.stat().st_mtime) / DAY_S)
    for kind_ in KINDS:
        if kind_.keep_days is not None:
            yield Line(f"files: {kind_.what}", kind_.keep_days, max(ages_of[kind_.what], default=None))
    for file in copies(database):
        age_days = (now_s - file.stat().st_mtime) / DAY_S
        yield Line(f"{file.name}, not created by Tagtrail: not deleted automatically", keep_days, age_days)


def as_json(found: Sequence[Line]) -> str:
    """Render the lines as a JSON list of objects."""
    return json.dumps([asdict(line) | {"ok": line.ok} for line in found], ensure_ascii=False)


def as_text(found: Sequence[Line]) -> str:
    """Render the lines as a text table."""
    width = max(len(line.what) for line in found)
    rows = [f"{'':{width}}   maximum   oldest"]
    for line in found:
        oldest = "–" if line.oldest_days is None else f"{line.oldest_days:.1f} d"
        rows.append(f"{line.what:{width}}  {line.keep_days:6.0f} d  {oldest:>8}{'' if line.ok else '  too old'}")
    return "\n".join(rows)


EPOCH = 719163
"""Ordinal of 1970-01-01."""
