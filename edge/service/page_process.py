"""Run the web page's process from the service, and see whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
import time
from pathlib import Path

from config import StoreConfig
from edge.store.clock import Clock
from edge.store.errors import Trouble

RETRY_S = (2.0, 60.0)
"""Delay before a crashed page is restarted: the first and the maximum."""
ASK_S = 15.0
"""Interval at which the page is asked whether it answers …"""
ANSWER_S = 10.0
"""… how long it may take to …"""
STARTS_S = 30.0
"""… and the time after the start in which it need not answer yet."""


async def run(config_file: Path, listening: socket.socket, clock: Clock) -> None:
    """Run the page's process on a listening socket until cancelled; Trouble if it ends unexpectedly."""
    arguments = ["--config", str(config_file), "--fd", str(listening.fileno())]
    arguments += ["--parent", str(os.getpid())]
    if clock.speed != 1:
        arguments += ["--clock-speed", str(clock.speed), "--clock-origin-us", str(clock.origin_us)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "edge.web", *arguments, pass_fds=[listening.fileno()]
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
    raise Trouble(f"the web page's process ended with code {code}")


def address(config: StoreConfig, listening: socket.socket) -> str:
    """Return the page's URL."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if config.web.cert else "http"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


class Probe:
    """Asks the page whether it answers, as a browser would. `look` raises Trouble if it doesn't."""

    def __init__(self, config: StoreConfig, listening: socket.socket) -> None:
        self.url = address(config, listening)
        self.took_s: float | None = None
        """How long the last answer took; None without one."""
        self._to = listening.getsockname()[:2]
        self._tls = None
        if config.web.cert:
            # Who answers on this machine's own socket is known.
            self._tls = ssl.create_default_context()
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._began_s = time.monotonic()

    async def look(self) -> None:
        """Ask once."""
        before_s = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                status = await self._ask()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.took_s = None
            if before_s - self._began_s < STARTS_S:
                return
            raise Trouble(f"the page at {self.url} does not answer: {error or 'too slow'}") from error
        self.took_s = time.monotonic() - before_s
        if status >= 500:
            raise Trouble(f"the page at {self.url} answers with the error {status}")

    async def _ask(self) -> int:
        reader, writer = await asyncio.open_connection(*self._to, ssl=self._tls)
        try:
            writer.write(b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return int((await reader.readuntil(b"\r\n")).split()[1])
        finally:
            writer.close()
