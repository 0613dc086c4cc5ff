"""Parse, hash and sort a directory file from the CRM in a separate process.

A million members take seconds. In a separate process with low priority they do not delay greetings, and a malicious
file can only harm that process. Tags are hashed with the gateway's key before anything is written, so that no EPCs are
stored. The first row is returned only after the complete file has been validated.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import io
import itertools
import marshal
import os
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from edge.store.pseudonyms import member_tag

HEADER = ["epc", "member", "tier", "consent", "hint", "hint_until_us"]
COLUMNS = len(HEADER)
SLICE_ROWS = 4_000
"""Number of rows per slice."""
CONSENT = {"1": 1, "0": 0}
BUCKETS = 64
BLOCK_BYTES = 1 << 16
DUMP_ROWS = 256
MAX_LINE_BYTES = 2048
MAX_ROWS = 5_000_000
MAX_UNPACKED_BYTES = 1 << 30
"""Limit for the decompressed size, because a small file can decompress to any size."""
MAX_US = 2**63
NICE = 10
WRONG_FILE = 3
"""Exit code for an invalid file; the reason is on stderr."""

Row = tuple[bytes, str, str, int, str | None, int | None]


class FetchError(Exception):
    """Raised for an invalid file; the text is reported to the CRM."""


async def slices_apart(packed: Path, key: bytes, whole: bool) -> AsyncIterator[list[Any]]:
    """Run `slices` in a separate process; raises FetchError for an invalid file, OSError if the process fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "edge.crm.directory_file", str(packed), "whole" if whole else "changes"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        process.stdin.write(key)
        process.stdin.write_eof()
        with contextlib.suppress(asyncio.IncompleteReadError):
            while size := int.from_bytes(await process.stdout.readexactly(4), "big"):
                yield marshal.loads(await process.stdout.readexactly(size))
        reason = (await process.stderr.read()).decode(errors="replace").strip()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code == WRONG_FILE:
        raise FetchError(reason)
    if code:
        raise OSError(f"sorting the directory ended with code {code}: {reason[-300:]}")


def slices(packed: Path, key: bytes, whole: bool) -> Iterator[list[Any]]:
    """Yield the rows of a file sorted by tag, as flat lists of COLUMNS values per row, at most SLICE_ROWS at a time.

    If a card has several rows, the last one applies. In changes (not `whole`), a row without a member removes its card.
    Raises FetchError, with the line, for an invalid file.
    """
    with contextlib.ExitStack() as stack:
        # Buckets by the first bytes of the tag, each small enough to be sorted in memory. Without the key, nobody can
        # overfill one except with many rows for one card, of which one is kept. The files are unnamed.
        files = [stack.enter_context(tempfile.TemporaryFile(dir=packed.parent)) for _ in range(BUCKETS)]
        # Flat values, because a heap of tuples would keep the garbage collector busy.
        waiting: list[list[Any]] = [[] for _ in range(BUCKETS)]
        for row in parse(packed, key, whole):
            number = row[0][0] * BUCKETS >> 8
            values = waiting[number]
            values += row
            if len(values) == DUMP_ROWS * COLUMNS:
                _dump(values, files[number])
                values.clear()
        for values, file in zip(waiting, files, strict=True):
            _dump(values, file)
            file.seek(0)
            last = {row[0]: row for row in zip(*[itertools.chain.from_iterable(_load(file))] * COLUMNS, strict=True)}
            file.close()
            rows = sorted(last.values(), key=itemgetter(0))
            for start in range(0, len(rows), SLICE_ROWS):
                yield list(itertools.chain.from_iterable(rows[start : start + SLICE_ROWS]))


def _dump(values: list[Any], file: IO[bytes]) -> None:
    # marshal.load from a file reads value by value; loading whole pieces is ten times faster.
    piece = marshal.dumps(values)
    file.write(len(piece).to_bytes(4, "big") + piece)


def _load(file: IO[bytes]) -> Iterator[list[Any]]:
    while size := int.from_bytes(file.read(4), "big"):
        yield marshal.loads(file.read(size))


def parse(packed: Path, key: bytes, whole: bool) -> Iterator[Row]:
    """Yield the hashed rows. With a million rows, the hash is the only Python call per row."""
    with gzip.GzipFile(packed, "rb") as file:
        rows = csv.reader(itertools.chain.from_iterable(_blocks(file)))
        try:
            if next(rows, []) != HEADER:
                raise FetchError(f"the first line of a directory file must be {','.join(HEADER)}")
            for epc, member, tier, consent, hint, until in rows:
                card = bytes.fromhex(epc)
                if not 1 <= len(card) <= 62 or len(member) > 128 or len(tier) > 32 or len(hint) > 300:
                    raise ValueError("too long")
                if member:
                    # Errors are logged and reported, so they must not contain data from the file.
                    if until and not (
                        until.isascii() and until.isdecimal() and len(until) < 20 and int(until) < MAX_US
                    ):
                        raise ValueError("hint_until_us is not a time")
                    if consent not in CONSENT:
                        raise ValueError("consent is neither 1 nor 0")
                    until_us = int(until) if until else None
                    yield member_tag(key, card, len(card) * 8), member, tier, CONSENT[consent], hint or None, until_us
                elif whole:
                    raise ValueError("no member")
                else:
                    yield member_tag(key, card, len(card) * 8), "", "", 0, None, None
                if rows.line_num > MAX_ROWS:
                    raise FetchError(f"more than {MAX_ROWS} members")
        except (ValueError, csv.Error) as error:
            raise FetchError(f"line {rows.line_num} is not a member: {error}") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FetchError(f"not a complete gzip file: {error}") from error


def _blocks(file: gzip.GzipFile) -> Iterator[list[str]]:
    """Yield lines in blocks; FetchError for an overlong line before it is read completely."""
    rest, unpacked = b"", 0
    while block := file.read(BLOCK_BYTES):
        unpacked += len(block)
        if unpacked > MAX_UNPACKED_BYTES:
            raise FetchError(f"more than {MAX_UNPACKED_BYTES} bytes when decompressed")
        *lines, rest = io.BytesIO(rest + block).readlines()
        if len(rest) > MAX_LINE_BYTES or len(max(lines, key=len, default=b"")) > MAX_LINE_BYTES:
            raise FetchError(f"a line of more than {MAX_LINE_BYTES} bytes")
        yield io.StringIO(b"".join(lines).decode(), newline="\n").readlines()
    yield [rest.decode()]


def main() -> None:
    """Entry point of the process: arguments FILE whole|changes, key on stdin, slices on stdout."""
    os.nice(NICE)
    packed, kind = sys.argv[1:]
    try:
        for values in slices(Path(packed), sys.stdin.buffer.read(), kind == "whole"):
            _dump(values, sys.stdout.buffer)
        sys.stdout.buffer.write(bytes(4))
        sys.stdout.flush()
    except FetchError as error:
        sys.stderr.write(str(error))
        sys.exit(WRONG_FILE)
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
