"""A fleet of fake stores as a process."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path


class Fleet:
    """`tagtrail simulate fleet` as a process."""

    def __init__(self, url: str, log: Path, stores: int, rate: float) -> None:
        self._arguments = ["--broker", url, "--stores", str(stores), "--rate", str(rate)]
        self._log = log

    async def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edge",
                "simulate",
                "fleet",
                *self._arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    def told(self, what: str) -> int:
        """Its last word on `connected`, `sent` or `pending`."""
        told = re.findall(rf"{what} (\d+)", self._log.read_text())
        return int(told[-1]) if told else 0

    async def last(self) -> dict[str, int]:
        """End it; its totals, once what was under way is acknowledged."""
        self._process.terminate()
        out, _ = await self._process.communicate()
        return dict(json.loads(out.splitlines()[-1]))

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
