"""Live state over a Unix socket, without writing to flash: one JSON object per line, twice a second, to every client.

Urgent news, such as a new cue, is sent at once. A client that sends a line with a reader's id also gets that reader's
antennas, under "antennas", in the following lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.store.private import make_folder

PERIOD_S = 0.5
BREATH_S = 0.05
"""Minimum interval between lines, however much is urgent."""
MAX_BEHIND_BYTES = 1 << 20
LINE_LIMIT_BYTES = 1 << 24
PATH_BYTES = 100
"""Maximum length of a socket's path (unix(7))."""


def socket_path(config: StoreConfig, ending: str = "live") -> Path:
    """Return the path of the store's live socket: beside the database, for every process of the store."""
    beside = Path(f"{config.database.path}.{ending}").absolute()
    if len(os.fsencode(beside)) <= PATH_BYTES:
        return beside
    return Path(tempfile.gettempdir()) / f"tagtrail-{sha256(os.fsencode(beside)).hexdigest()[:16]}.{ending}"


async def open_socket(
    path: Path, client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
) -> asyncio.Server:
    """Open a server on a Unix socket for the store's own user and group."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    make_folder(path.parent)
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(
        0o117
    )  # the whole process's: nothing may be awaited, or two of these take each other's for the old one
    try:
        listening.bind(os.fspath(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return await asyncio.start_unix_server(client, sock=listening, limit=LINE_LIMIT_BYTES)


async def serve(path: Path, client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
    """Serve a Unix socket until cancelled; it is gone afterwards."""
    server = await open_socket(path, client)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


class LiveServer:
    """Serves `snapshot()` to every client; one that doesn't read is dropped.

    `news`: set for urgent news.
    """

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], dict[str, Any]],
        antennas: Callable[[str], list[dict[str, Any]]] = lambda _reader: [],
        news: asyncio.Event | None = None,
    ) -> None:
        self._path = path
        self._snapshot = snapshot
        self._antennas = antennas
        self._clients: dict[asyncio.StreamWriter, str | None] = {}
        self._news = news or asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        server = await open_socket(self._path, self._client)
        try:
            while True:
                self._news.clear()
                if self._clients:
                    self._send(self._snapshot())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD_S):
                        await self._news.wait()
                        await asyncio.sleep(BREATH_S)
        finally:
            server.close()
            for writer in self._clients:
                writer.transport.abort()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    def _send(self, state: dict[str, Any]) -> None:
        lines: dict[str | None, bytes] = {None: _line(state)}
        for writer, reader in list(self._clients.items()):
            if writer.transport.get_write_buffer_size() > MAX_BEHIND_BYTES:
                writer.transport.abort()
                continue
            if reader not in lines:
                lines[reader] = _line(state | {"antennas": self._antennas(reader)} if reader else state)
            writer.write(lines[reader])

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_line(self._snapshot()))
        self._clients[writer] = None
        try:
            while line := await reader.readline():
                self._clients[writer] = line.decode(errors="replace").strip()
        except (ConnectionError, ValueError):  # gone, or a line without end
            pass
        finally:
            self._clients.pop(writer, None)
            writer.close()


async def read_once(path: Path, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """Return the current live state, or None if no service answers."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT_BYTES)
            try:
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return dict(json.loads(line)) if line.endswith(b"\n") else None


async def follow(path: Path, reader: str) -> AsyncGenerator[dict[str, Any], None]:
    """Iterate over the live state twice a second, with the antennas of a reader; ends with the service."""
    try:
        stream, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT_BYTES)
    except OSError:
        return
    try:
        writer.write(f"{reader}\n".encode())
        while (line := await stream.readline()).endswith(b"\n"):  # a killed service leaves part of one
            state = json.loads(line)
            if "antennas" in state:
                yield state
    except OSError:
        return
    finally:
        writer.close()


def _line(state: dict[str, Any]) -> bytes:
    return json.dumps(state, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
