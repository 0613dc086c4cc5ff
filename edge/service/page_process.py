"""Run the web page's process from the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

from config import StoreConfig
from edge.store.clock import Clock
from edge.store.errors import Trouble

RETRY_S = (2.0, 60.0)
"""Delay before a crashed page is restarted: the first and the maximum."""


async def run(config_file: Path, listening: socket.socket, clock: Clock) -> None:
    """Run the page's process on a listening socket until cancelled; Trouble if it ends unexpectedly."""
    arguments = ["--config", str(config_file), "--fd", str(listening.fileno())]
    arguments += ["--parent", str(os.getpid())]
    if clock.speed != 1:
        arguments += ["--clock-speed", str(clock.speed), "--clock-origin-us", str(clock.origin_us)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge.web", *arguments, pass_fds=[listening.fileno()]
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
