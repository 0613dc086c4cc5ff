"""The member directory from a file of the CRM's."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlite_utils import Database as Tables

from config import StoreConfig
from drivers.read import EPC_BITS_MAX
from edge.database.writer import Database
from edge.store.business_days import business_days
from edge.store.errors import Trouble
from edge.store.pseudonyms import Pseudonyms

NAME_MAX = 128
"""Characters that the contract allows for names."""
HEADER = ["epc", "member", "tier", "consent", "hint"]
YES, NO = ("1", "true", "yes"), ("0", "false", "no", "")


def import_csv(config: StoreConfig, file: Path) -> int:
    """Replace the directory by the rows of a CSV with the columns of HEADER, all or nothing; how many there are.

    Raises Trouble, with the line, for a file that can't be taken. Safe while the service runs.
    """
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb, repair=False)
    try:
        days = business_days(config)
        rows = list(_rows(file, Pseudonyms(database.tag_key, days)))

        def replace(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM directory")
            conn.execute("UPDATE directory_state SET generation = 0, valid_until_us = NULL, expired = 0, files = NULL")
            Tables(conn, recursive_triggers=False, execute_plugins=False).table("directory").insert_all(
                rows, replace=True
            )

        database.write_now(replace)
    finally:
        database.close()
    return len(rows)


def _rows(file: Path, pseudonyms: Pseudonyms) -> Iterator[dict[str, object]]:
    cards: dict[bytes, int] = {}
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
                    if not 0 < len(card) * 8 <= EPC_BITS_MAX or not member or consent.lower() not in YES + NO:
                        raise ValueError("needed are epc in hex, member, tier, consent 0 or 1, hint")
                    if max(len(member), len(tier)) > NAME_MAX:
                        raise ValueError(f"member and tier have at most {NAME_MAX} characters")
                    if card in cards:
                        raise ValueError(f"its card stands in line {cards[card]} already")
                except ValueError as error:
                    raise Trouble(f"{file}:{rows.line_num}: not a member: {error}") from error
                cards[card] = rows.line_num
                yield {
                    "tag": pseudonyms.member(card, len(card) * 8),
                    "member": member,
                    "tier": tier,
                    "consent": int(consent.lower() in YES),
                    "hint": hint or None,
                }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Trouble(f"cannot read {file}: {error}") from error
