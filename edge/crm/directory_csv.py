"""Import the member directory from a CSV file."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlite_utils import Database as Tables

from config import StoreConfig
from drivers.read import EPC_BITS_MAX
from edge.crm.console import ask_for_tags
from edge.database.tombstones import Tombstones
from edge.database.writer import Database
from edge.store.errors import Trouble
from edge.store.live_socket import socket_path
from edge.store.pseudonyms import member_tag

NAME_MAX = 128
"""Maximum length of names in the contract."""
HEADER = ["epc", "member", "tier", "consent", "hint"]
YES, NO = ("1", "true", "yes"), ("0", "false", "no", "")


@dataclass(frozen=True)
class Imported:
    """Number of imported rows, and of rows skipped because their members have been erased here."""

    rows: int
    left_out: int


class _Row(NamedTuple):
    card: bytes
    member: str
    tier: str
    consent: bool
    hint: str


def import_csv(config: StoreConfig, file: Path, *, with_erased: bool = False) -> Imported:
    """Replace the directory with the rows of a CSV file with the columns of HEADER, all or nothing.

    `with_erased`: include members who were erased here, because they have rejoined. Raises Trouble, with the line, for
    an invalid file. Safe while the service is running.
    """
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb, repair=False)
    try:
        rows = list(_rows(file))
        cards, members = [row.card for row in rows], [row.member for row in rows]
        if database.has_tag_key:
            tags = [member_tag(database.tag_key, card, len(card) * 8) for card in cards]
            erased = _erased(database, members, readmit=with_erased)
        else:
            tags, erased = ask_for_tags(socket_path(config, "orders"), cards, members, readmit=with_erased)
        taken = [
            {"tag": tag, **row._asdict(), "consent": int(row.consent), "hint": row.hint or None}
            for tag, row in zip(tags, rows, strict=True)
            if row.member not in erased
        ]
        for row in taken:
            del row["card"]

        def replace(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM directory")
            conn.execute("UPDATE directory_state SET generation = 0, valid_until_us = NULL, expired = 0, files = NULL")
            Tables(conn, recursive_triggers=False, execute_plugins=False).table("directory").insert_all(
                taken, replace=True
            )

        database.write_now(replace)
    finally:
        database.close()
    return Imported(len(taken), len(rows) - len(taken))


def _erased(database: Database, members: list[str], *, readmit: bool) -> set[str]:
    stones = Tombstones(database.path, database.tag_key)
    if readmit:
        stones.readmit(members)
        stones.save()
    return stones.barred(members)


def _rows(file: Path) -> Iterator[_Row]:
    lines: dict[bytes, int] = {}
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
                        raise ValueError("required: epc in hex, member, tier, consent 0 or 1, hint")
                    if max(len(member), len(tier)) > NAME_MAX:
                        raise ValueError(f"member and tier have at most {NAME_MAX} characters")
                    if card in lines:
                        raise ValueError(f"its card is already in line {lines[card]}")
                except ValueError as error:
                    raise Trouble(f"{file}:{rows.line_num}: not a member: {error}") from error
                lines[card] = rows.line_num
                yield _Row(card, member, tier, consent.lower() in YES, hint)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Trouble(f"can't read {file}: {error}") from error
