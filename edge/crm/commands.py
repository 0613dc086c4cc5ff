"""Execute the CRM's commands on this gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.crm.erasure.worker import Erasures
from edge.database.writer import Database
from edge.readers.sessions import Readers
from sync.commands import CommandHandler
from sync.down import Capture, Erase, Ping, Reload, Replay, RestartReader, Summary
from sync.publisher import Publisher

DIAGNOSED = ("as_of_us", "watermark_us", "version", "readers", "reads", "reads_per_s", "broker", "database", "outbox",
             "failing", "counters", "tags_present", "visits", "journeys", "recognised")  # fmt: skip


class CommandHandlers:
    """Handlers of all commands; `table` is for sync.commands. The text of an exception becomes the answer's reason."""

    def __init__(
        self,
        config: StoreConfig,
        database: Database,
        publisher: Publisher,
        readers: Readers,
        snapshot: Callable[[], dict[str, Any]],
        erasures: Erasures,
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._config = config
        self._database = database
        self._publisher = publisher
        self._readers = readers
        self._snapshot = snapshot
        self._erasures = erasures
        self._reload = reload
        self.table: Mapping[str, CommandHandler] = {
            "ping": self.ping,
            "summary": self.summary,
            "replay": self.replay,
            "erase": self.erase,
            "reload": self.reload,
            "restart-reader": self.restart_reader,
            "capture": self.capture,
            "diagnostics": self.diagnostics,
        }

    async def ping(self, _: Ping) -> dict[str, Any]:
        state = self._snapshot()
        return {"now_us": state["as_of_us"], "version": state["version"], "epoch": self._database.epoch}

    async def diagnostics(self, _: Any) -> dict[str, Any]:
        state = self._snapshot()
        return {name: state[name] for name in DIAGNOSED if name in state} | {"sync": dict(self._publisher.counters)}

    async def summary(self, command: Summary) -> dict[str, Any]:
        from edge.reports.render import render

        text = await asyncio.to_thread(render, self._config, command.date, "json", "en")
        return dict(json.loads(text))

    async def replay(self, command: Replay) -> dict[str, Any]:
        if command.epoch != self._database.epoch:
            raise ValueError(f"the epoch is {self._database.epoch}; nothing is left of {command.epoch}")
        return dict(await self._publisher.replay(command.class_, command.from_, command.to))

    async def erase(self, command: Erase) -> dict[str, Any]:
        return await self._erasures.erase(command.member, command.id)

    async def reload(self, _: Reload) -> dict[str, Any]:
        await self._reload()
        return {}

    async def restart_reader(self, command: RestartReader) -> dict[str, Any]:
        self._readers.restart(command.reader)
        return {"reader": command.reader}

    async def capture(self, command: Capture) -> dict[str, Any]:
        folder = Path(self._config.database.path).parent
        file, reads = await self._readers.capture(folder, command.seconds, command.reader)
        return {"file": file.name, "reads": reads}
