"""Clients of the live socket when the service ends in the middle of a line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.store.live_socket import follow, read_once

LINES = (b"", b'{"antennas": [{"port": 1, "re', b'{"antennas": []}\n{"ante')


@asynccontextmanager
async def dying(path: Path, line: bytes, *, asked: bool) -> AsyncIterator[None]:
    """A service that is killed after these bytes; `asked`: once the client has said what it wants."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked:
            await reader.readline()
        writer.write(line)
        writer.close()

    async with await asyncio.start_unix_server(tell, path):
        yield


@pytest.mark.parametrize("line", LINES)
async def test_who_follows_a_service_that_is_killed_sees_its_end(tmp_path: Path, line: bytes) -> None:
    async with dying(tmp_path / "live", line, asked=True):
        states = [state async for state in follow(tmp_path / "live", "r1")]
    assert states == [{"antennas": []}] * line.count(b"\n")


@pytest.mark.parametrize("line", LINES)
async def test_half_a_line_is_no_answer(tmp_path: Path, line: bytes) -> None:
    async with dying(tmp_path / "live", line, asked=False):
        told = await read_once(tmp_path / "live")
    assert told == ({"antennas": []} if b"\n" in line else None)
