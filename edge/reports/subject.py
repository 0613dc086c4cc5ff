"""Export of all data stored about one member, for access requests (GDPR Art. 15, PIPL Art. 45)."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from config import StoreConfig
from edge.access.members import known
from edge.access.users import users_path
from edge.database.reader import connect
from edge.database.retention import limits
from sync import outbox
from sync.contract import CLASSES

NOT_IN_IT = (
    "notes in service cases",
    "captures (capture-*.csv.gz): their tags can't be linked to a member",
    "counts, which don't identify individuals",
)


def subject(config: StoreConfig, member: str, now_us: int) -> dict[str, Any]:
    """Collect the data about a member, with readable names and times; empty lists where there is none."""
    with closing(connect(config.database.path)) as conn:
        conn.execute("BEGIN")
        tags, found = _in_database(conn, config, member)
    page = known(users_path(config), member, tags)
    at = _clock(config)
    return {
        "member": member,
        "store": config.store.id,
        "made_at": at(now_us),
        **found,
        "looks": [{"at": at(round(line.pop("at_s") * 1e6)), **line} for line in page["audit"]],
        "verdicts": page["verdicts"],
        "kept_days": {what: days for what, _, days in limits(config).values()},
        "not_in_it": list(NOT_IN_IT),
    }


def _in_database(conn: sqlite3.Connection, config: StoreConfig, member: str) -> tuple[set[bytes], dict[str, Any]]:
    at = _clock(config)

    def rows(query: str, **times: str) -> list[dict[str, Any]]:
        cursor = conn.execute(query, (member,))
        names = [column[0] for column in cursor.description]
        return [
            {
                times.get(name, name): at(value) if name in times else value
                for name, value in zip(names, row, strict=True)
            }
            for row in cursor
        ]

    tags = {
        tag
        for table in ("directory", "visit", "journey", "recognised", "cue")
        for (tag,) in conn.execute(f"SELECT DISTINCT tag FROM {table} WHERE member = ?", (member,))
    }
    found = {
        "cards": [tag.hex() for tag in sorted(tags)],
        "directory": rows(
            "SELECT tier, consent, hint, hint_until_us FROM directory WHERE member = ?", hint_until_us="hint_until"
        ),
        "in_the_store_since": rows("SELECT at_us FROM recognised WHERE member = ?", at_us="at"),
        "visits": rows(
            "SELECT zone, enter_us, exit_us, reads, censored, confidence FROM visit WHERE member = ? ORDER BY enter_us",
            enter_us="enter",
            exit_us="exit",
        ),
        "journeys": [
            journey | {"path": [[zone, at(enter_us), at(exit_us)] for zone, enter_us, exit_us in json.loads(path)]}
            for journey in rows(
                "SELECT start_us, end_us, censored, path FROM journey WHERE member = ? ORDER BY start_us",
                start_us="start",
                end_us="end",
            )
            for path in (journey["path"],)
        ],
        "cues": rows(
            "SELECT kind, tier, zone, made_us, state, changed_us, who FROM cue WHERE member = ? ORDER BY made_us",
            made_us="made",
            changed_us="changed",
        ),
        "told_to_the_crm": list(_events(conn, member)),
    }
    return tags, found


def _events(conn: sqlite3.Connection, member: str) -> Iterator[dict[str, Any]]:
    """Yield the member's events that are still stored."""
    acked = outbox.acknowledged(conn)
    for class_ in CLASSES[:2]:
        query = (
            f"SELECT seq, payload FROM {outbox.table(class_)} WHERE json_extract(payload, '$.member') = ? ORDER BY seq"
        )
        for seq, payload in conn.execute(query, (member,)):
            yield {"acknowledged": seq <= acked[class_], "event": json.loads(payload)}


def _clock(config: StoreConfig) -> Callable[[int | None], str | None]:
    def at(time_us: int | None) -> str | None:
        if time_us is None:
            return None
        try:
            return dt.datetime.fromtimestamp(time_us / 1e6, config.store.tz).isoformat(timespec="seconds")
        except (ValueError, OverflowError, OSError):  # a hint may be valid for ever
            return f"{time_us} µs after 1970"

    return at
