"""A member directory as a CSV file, read as a store will: it takes all of a file or nothing."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

HEADER = ["epc", "member", "tier", "consent", "hint", "hint_until_us"]
CONSENT = dict.fromkeys(("1", "true", "yes"), "1") | dict.fromkeys(("0", "false", "no", ""), "0")
LIMITS = {"member": 128, "tier": 32, "hint": 300}
CARD_BYTES = 62
MAX_US = 2**63


def packed(file: Path) -> bytes:
    """Return a file, gzipped or not, as stores take it: gzipped, with all columns. `hint_until_us` may be left out, as
    for `tagtrail directory import`. Raises OSError, and ValueError with the wrong line."""
    content = file.read_bytes()
    try:
        text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode("utf-8-sig")
    except (EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None
    rows = csv.reader(io.StringIO(text, newline=""))
    made = io.StringIO()
    try:
        if next(rows, []) not in (HEADER, HEADER[:-1]):
            raise ValueError(f"its columns must be {','.join(HEADER)}; the last one may be missing")
        csv.writer(made, lineterminator="\n").writerows(_checked(rows))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {max(1, rows.line_num)}: {error}") from None
    return gzip.compress(made.getvalue().encode(), mtime=0)


def _checked(rows: Iterator[list[str]]) -> Iterator[Sequence[str]]:
    yield HEADER
    for row in rows:
        if not len(HEADER) - 1 <= len(row) <= len(HEADER):
            raise ValueError(f"{len(row)} columns; expected {len(HEADER)}")
        epc, member, tier, consent, hint, until = (*row, "")[: len(HEADER)]
        if not 0 < len(bytes.fromhex(epc)) <= CARD_BYTES:
            raise ValueError(f"epc: expected 1 to {CARD_BYTES} bytes in hex")
        if not member:
            raise ValueError("member: empty")
        for name, value in (("member", member), ("tier", tier), ("hint", hint)):
            if len(value) > LIMITS[name]:
                raise ValueError(f"{name}: at most {LIMITS[name]} characters")
        if consent.lower() not in CONSENT:
            raise ValueError(f"consent: {consent!r}; expected 1 or 0")
        if until and not (until.isascii() and until.isdecimal() and int(until) < MAX_US):
            raise ValueError(f"hint_until_us: {until!r} is not a time")
        yield epc, member, tier, CONSENT[consent.lower()], hint, until
