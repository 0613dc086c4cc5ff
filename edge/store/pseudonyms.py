"""Keyed pseudonyms of tags, and the member directory. Keys: edge.database.keys."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True)
class Member:
    """Directory entry; `tag` is the keyed hash that replaces the card's EPC at rest."""

    tag: bytes
    member: str
    tier: str
    consent: bool
    hint: str | None = None
    hint_until_us: int | None = None

    def hint_at(self, time_us: int) -> str | None:
        """Return the CRM's hint for the greeting while it is valid."""
        return self.hint if self.hint_until_us is None or time_us < self.hint_until_us else None


class Pseudonyms:
    """Keyed BLAKE2b-128 of EPCs: stable for members; for everybody else valid as long as the key of the day."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def member(self, epc: bytes, bits: int) -> bytes:
        """Compute a member's stable 16-byte hash, the key of the directory."""
        return member_tag(self._key, epc, bits)

    def daily(self, epc: bytes, bits: int, day_key: bytes) -> bytes:
        """Compute the 16-byte pseudonym under the key of a business day."""
        return member_tag(_hash(self._key, day_key), epc, bits)


def look_up(conn: sqlite3.Connection, tag: bytes) -> Member | None:
    """Return the directory entry of a member hash; None also after the directory's expiry."""
    row = conn.execute(
        "SELECT tag, member, tier, consent, hint, hint_until_us FROM directory"
        " WHERE tag = ? AND NOT (SELECT expired FROM directory_state)",
        (tag,),
    ).fetchone()
    return row and Member(row[0], row[1], row[2], bool(row[3]), row[4], row[5])


def known(conn: sqlite3.Connection, tag: bytes) -> bool:
    """True if the tag belongs to a member who has given consent."""
    member = look_up(conn, tag)
    return member is not None and member.consent


def consents(conn: sqlite3.Connection, tag: bytes) -> bool:
    """As `known`, even after the directory's expiry, which doesn't end consent."""
    return conn.execute("SELECT 1 FROM directory WHERE tag = ? AND consent", (tag,)).fetchone() is not None


def member_tag(key: bytes, epc: bytes, bits: int) -> bytes:
    """Compute a card's pseudonym at rest: a stable 16-byte hash under the gateway's key."""
    return blake2b(bits.to_bytes(2, "big") + epc, key=key, digest_size=16).digest()


def _hash(key: bytes, text: bytes) -> bytes:
    return blake2b(text, key=key, digest_size=16).digest()
