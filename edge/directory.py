"""The member directory from a file of the CRM's."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlite_utils import Database as Tables

from config import StoreConfig
from edge.database import Database
from edge.errors import Trouble
from edge.people import BusinessDay, Pseudonyms

HEADER = ["epc", "member", "tier", "consent", "hint"]
YES, NO = ("1", "true", "yes"), ("0", "false", "no", "")


def import_csv(config: StoreConfig, file: Path) -> int:
    """Replace the directory by the rows of a CSV with the columns of HEADER, all or nothing; how many there are.

    Raises Trouble, with the line, for a file that can't be taken. Safe while the service runs.
    """
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb)
    try:
        days = BusinessDay(config.store.tz, config.thresholds.business_day_start)
        rows = list(_rows(file, Pseudonyms(database.tag_key, days)))

        def replace(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM directory")
            conn.execute("UPDATE directory_state SET generation = 0, valid_until_us = NULL, expired = 0")
            Tables(conn, recursive_triggers=False, execute_plugins=False).table("directory").insert_all(
                rows, replace=True
            )

        database.write_now(replace)
    finally:
        database.close()
    return len(rows)


def _rows(file: Path, pseudonyms: Pseudonyms) -> Iterator[dict[str, object]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.reader(text)
            header = next(rows, [])
            if header != HEADER:
                raise Trouble(f"{file}: the first line must be {','.join(HEADER)}")
            for row in rows:
                try:
                    epc, member, tier, consent, hint = row
                    card = bytes.fromhex(epc)
                    if not card or not member or consent.lower() not in YES + NO:
                        raise ValueError("epc in hex, member, tier, consent 0 or 1, hint")
                except ValueError as error:
                    raise Trouble(f"{file}:{rows.line_num}: not a member: {error}") from error
                yield {
                    "tag": pseudonyms.member(card, len(card) * 8),
                    "member": member,
                    "tier": tier,
                    "consent": int(consent.lower() in YES),
                    "hint": hint or None,
                }
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"cannot read {file}: {error}") from error
