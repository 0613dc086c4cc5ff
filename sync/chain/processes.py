"""The sink as processes: one for recognitions, one for all that can wait, so that neither slows the other down."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence

from sync.chain.leases import LANES
from sync.chain.sink import Sink, SinkSettings

RESTART_S = 2.0
STOP_S = 15.0


def run_lane(settings: SinkSettings) -> None:
    """Run the sink of one lane until SIGTERM or SIGINT."""
    asyncio.run(_until_told(Sink(settings)))


def supervise(command: Sequence[str]) -> None:
    """Run a process for each lane, by a command to which `--lane` is added, until SIGTERM or SIGINT, and start one that
    has died again."""
    asyncio.run(_supervise(command))


async def _until_told(sink: Sink) -> None:
    running = asyncio.create_task(sink.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _supervise(command: Sequence[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        for lane in LANES:
            tasks.create_task(_keep(lane, command, stop))


async def _keep(lane: str, command: Sequence[str], stop: asyncio.Event) -> None:
    stopped = asyncio.create_task(stop.wait())
    while not stop.is_set():
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, "--lane", lane, stdin=asyncio.subprocess.DEVNULL)
        ended = asyncio.create_task(process.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
            await asyncio.wait((ended,), timeout=STOP_S)
            if not ended.done():
                process.kill()
            await ended
        elif process.returncode == 1 and time.monotonic() - began < RESTART_S:
            stop.set()  # it has said why it can't start
            raise SystemExit(1)
        else:
            await asyncio.wait((stopped,), timeout=RESTART_S)
