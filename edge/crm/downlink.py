"""Dispatch of all messages from the CRM to their handlers, and the jobs that process them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from config import StoreConfig
from drivers.session import Link
from edge.crm.commands import CommandHandlers
from edge.crm.configuration import Desired, Overlay
from edge.crm.directory import MemberDirectory
from edge.crm.erasure.worker import Erasures
from edge.crm.sales import SalesDesk
from edge.database.writer import Database
from edge.intake.pipeline import Pipeline
from edge.readers.sessions import Readers
from edge.store.clock import Clock
from sync.commands import Commands
from sync.publisher import Handler, Publisher


class Downlink:
    """Member directory, commands, sales, and configuration if there is an `overlay`.

    `snapshot` returns the live state; `reload` and `restart` restart the service, the former only if the store file is
    valid.
    """

    def __init__(
        self,
        config: StoreConfig,
        database: Database,
        publisher: Publisher,
        readers: Readers,
        pipeline: Pipeline,
        clock: Clock,
        *,
        overlay: Overlay | None,
        snapshot: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[None]],
        restart: Callable[[str], None],
    ) -> None:
        now_us, say = clock.now_us, publisher.say

        def let_go() -> None:
            readers.drop_captured()
            members.drop_parts()

        self.erasures = Erasures(
            config,
            database,
            now_us,
            recheck=pipeline.recheck,
            let_go=let_go,
            settle=lambda id_, receipt: commands.settle(id_, receipt),
            generation=lambda: members.generation,
            fetching=lambda: members.fetching,
        )
        members = MemberDirectory(
            database,
            now_us,
            lambda rest, message, retain: say(rest, message, retain=retain),
            pipeline.recheck,
            publisher.tell_directory,
            self.erasures.offered,
            self.erasures.barred,
        )
        carried_out = CommandHandlers(config, database, publisher, readers, snapshot, self.erasures, reload)
        commands = Commands(carried_out.table, database, now_us, say, self.erasures.commands)
        sales = SalesDesk(config, database, now_us, lambda rest, message: say(rest, message))
        self.handlers: dict[str, Handler] = {"cmd": commands.take, "directory": members.take, "sales": sales.take}
        """Topic below `down/` → handler."""
        self.jobs: dict[str, Callable[[], Awaitable[None]]] = {
            "commands": commands.run,
            "member directory": members.run,
            "erasures": self.erasures.run,
            "sales": sales.run,
        }
        """Name → job that runs forever."""
        if overlay is not None:
            desired = Desired(
                overlay,
                now_us,
                lambda rest, message: say(rest, message, retain=True),
                well=lambda: publisher.status.connected and pipeline.trouble is None,
                sees=lambda: _any_up(pipeline.readers),
                restart=restart,
            )
            self.handlers["config"] = desired.take
            self.jobs["configuration"] = desired.run


def _any_up(readers: Mapping[str, Any]) -> bool:
    return any(reader.link is Link.UP for reader in readers.values())
