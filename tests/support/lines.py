"""A slow line: a proxy before a broker that lets through so many bits a second, and keeps little of what it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import cast
from urllib.parse import urlsplit

PIECE_BYTES = 512
KEPT_BYTES = 4096


class SlowLine:
    """`bits_per_s` upwards; downwards as fast as it goes. `up_bytes`: what went through."""

    def __init__(self, url: str, bits_per_s: float) -> None:
        parts = urlsplit(url)
        self._far = parts.hostname, parts.port
        self.bits_per_s = bits_per_s
        self.up_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := cast(asyncio.Task[None], asyncio.current_task()))
        far_reader, far_writer = await asyncio.open_connection(*self._far)
        down = asyncio.create_task(self._down(far_reader, writer))
        try:
            loop = asyncio.get_running_loop()
            free_s = loop.time()
            while piece := await reader.read(PIECE_BYTES):
                far_writer.write(piece)
                self.up_bytes += len(piece)
                # By a schedule, so that a busy machine makes it no slower than it is.
                free_s = max(free_s, loop.time() - 0.2) + len(piece) * 8 / self.bits_per_s
                await asyncio.sleep(max(0.0, free_s - loop.time()))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
            for one in (writer, far_writer):
                one.close()
            self._tasks.discard(task)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(4096):
                writer.write(piece)
                await writer.drain()

    def cut(self) -> None:
        """Break the connections that there are."""
        for task in list(self._tasks):
            task.cancel()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SlowLine]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT_BYTES)  # accepted connections inherit it
        listener.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(self._serve, sock=listener, limit=KEPT_BYTES)
        self.url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()
