"""A chain's headquarters for the demo: broker, database, log of three nodes, two sinks, a reader, a second store, and
the sales of the first."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import logging
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from simulators.headquarters.broker import Broker
from simulators.headquarters.log import Log
from simulators.headquarters.postgres import Postgres, tool

MOSQUITTO_AT = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
STORE_RATE = "0.5"
READ_S = "5"
RECENT = 500
SALES_S = 2.0
"""Interval at which headquarters looks for new sales."""
AGAIN_S = 10.0
"""Delay after a failure, before it looks again."""
log = logging.getLogger("tagtrail.demo")

Start = Callable[[str, list[str]], AbstractContextManager[subprocess.Popen[bytes]]]
"""Start a part of the demo under a name."""


def missing() -> str | None:
    """Return what a chain needs and isn't here, or None."""
    if shutil.which("mosquitto", path=MOSQUITTO_AT) is None:
        return "Mosquitto (apt install mosquitto)"
    if tool("initdb") is None:
        return "PostgreSQL (apt install postgresql)"
    return next((f"the Python package {name}" for name in ("psycopg", "nats") if find_spec(name) is None), None)


def sold(tills: Path) -> list[dict[str, str]]:
    """Return the rows of the file that the tills write; none before the first hour is over."""
    if not tills.exists():
        return []
    with tills.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


class Cell(Broker):
    """Mosquitto, as docs/chain configures it but for access rules."""

    def command(self) -> list[str]:
        """See Broker."""
        config = self._folder / "mosquitto.conf"
        lines = (f"listener {self.port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0")
        config.write_text(
            "\n".join((*lines, "max_inflight_messages 8192", f"log_dest file {self._folder}/mosquitto.log", ""))
        )
        return [str(shutil.which("mosquitto", path=MOSQUITTO_AT)), "-c", str(config)]


class Chain:
    """Headquarters; `store` is the demo's own store, whose figures `status` tells. `clock`: how many times as fast its
    clock runs, and since when (UTC microseconds). `tills`: file in which its tills write what they sell."""

    def __init__(self, folder: Path, store: str, start: Start, clock: tuple[float, int], tills: Path) -> None:
        self._folder, self._store, self._start = folder, store, start
        self._tills = tills
        self._speed, self._origin_us = clock
        self._stack = AsyncExitStack()
        self._lake = folder / "lake"
        self._conn: Any = None
        self._selling: asyncio.Task[None] | None = None
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        """Programs that must not end."""
        self.url = ""
        """The broker's."""
        self.database = ""
        """The database's address."""

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._selling is not None:
            self._selling.cancel()
            await asyncio.gather(self._selling, return_exceptions=True)
        for part in self.parts.values():
            part.terminate()
        for part in self.parts.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(part.wait, 10)
        await self._stack.aclose()

    async def _set_up(self) -> None:
        import psycopg

        cell = await self._stack.enter_async_context(Cell(self._folder / "cell"))
        log = await self._stack.enter_async_context(Log(self._folder / "log"))
        self.url = cell.url
        # Its user, postgres, can't look into the demo's folder.
        own = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tagtrail-demo-pg-")))
        server = Postgres(own)
        await asyncio.to_thread(server.create)
        await asyncio.to_thread(server.start)
        self._stack.callback(server.end, signal.SIGQUIT)
        self.database = server.url
        self._conn = psycopg.connect(server.url, autocommit=True)
        self._stack.callback(self._conn.close)
        feeding = ["--log", log.servers, "--log-gib", "1"]
        for name in ("sink-a", "sink-b"):
            arguments = ["chain", "sink", "--broker", cell.url, "--database", server.url, *feeding]
            self._run(name, arguments)
        fleet = ["simulate", "fleet", "--stores", "1", "--broker", cell.url, "--rate", STORE_RATE]
        self._run("second-store", fleet)
        if find_spec("pyarrow") is not None:
            self._run(
                "reader", ["chain", "read", "--log", log.servers, "--to", f"parquet:{self._lake}", "--every", READ_S]
            )

        self._selling = asyncio.create_task(self._keep_pushing_sales())

    async def _keep_pushing_sales(self, again_s: float = AGAIN_S) -> None:
        """Push sales until cancelled; a failure is logged, and all sales are pushed again."""
        while True:
            try:
                await self._push_sales()
            except Exception:
                log.exception("sales could not be pushed to the store; trying again in %.0f s", again_s)
            await asyncio.sleep(again_s)

    async def _push_sales(self, every_s: float = SALES_S) -> None:
        """Push what the tills have sold to the store, whenever an hour is over; again what it has not taken."""
        pushed: set[tuple[str, ...]] = set()
        file = self._folder / "sales.csv"
        while True:
            rows = await asyncio.to_thread(sold, self._tills)
            new = [row for row in rows if tuple(row.values()) not in pushed]
            if new:
                with file.open("w", newline="") as text:
                    writer = csv.DictWriter(text, ["store", *new[0]])
                    writer.writeheader()
                    writer.writerows({"store": self._store, **row} for row in new)
                arguments = ["chain", "push", "sales", str(file), "--database", self.database, "--within", "60"]
                with self._start("push-sales", arguments) as push:
                    while push.poll() is None:
                        await asyncio.sleep(0.1)
                if push.returncode == 0:
                    pushed |= {tuple(row.values()) for row in new}
            await asyncio.sleep(every_s)

    def _run(self, name: str, arguments: list[str]) -> None:
        self.parts[name] = self._stack.enter_context(self._start(name, arguments))

    def status(self) -> dict[str, Any]:
        """Return what `tagtrail crm` tells in its status file, of the demo's store, and `chain` with the rest."""
        if self._query("SELECT to_regclass('chain.waiting')") != [("chain.waiting",)]:
            return {}
        of = (self._store,)
        ((received, duplicates, gaps),) = self._query(
            "SELECT coalesce(sum(received + dead), 0)::bigint, coalesce(sum(duplicates), 0)::bigint,"
            " coalesce(sum(highest - upto), 0)::bigint FROM chain.series WHERE store = %s",
            of,
        )
        late = sorted(
            (self._origin_us + (got - self._origin_us) * self._speed - read) / 1000 / self._speed
            for got, read in self._query(
                "SELECT received_us, read_us FROM chain.recognition WHERE store = %s ORDER BY read_us DESC LIMIT %s",
                (*of, RECENT),
            )
        )
        told = "SELECT kind, count(*) FROM chain.cue WHERE store = %s GROUP BY 1 UNION ALL"
        outcomes = " SELECT outcome, count(*) FROM chain.cue_outcome WHERE store = %s GROUP BY 1"
        ((all_received, stores),) = self._query(
            "SELECT coalesce(sum(received), 0)::bigint, count(DISTINCT store) FROM chain.series"
        )
        ((not_in_the_log,),) = self._query("SELECT not_in_the_log FROM chain.waiting")
        ((sales_hours,),) = self._query(
            "SELECT coalesce(sum((output ->> 'changed')::bigint), 0)::bigint FROM chain.command"
            " WHERE store = %s AND name = 'sales'",
            of,
        )
        return {
            "received": received,
            "duplicates": duplicates,
            "gaps": gaps,
            "cues": dict(self._query(told + outcomes, of * 2)),
            "recognition_ms": {"n": len(late), "p50": _quantile(late, 0.5), "p99": _quantile(late, 0.99)},
            "chain": {
                "stores": stores,
                "events": all_received,
                "not_in_the_log": not_in_the_log,
                "sales_hours": sales_hours,
                "sold_hours": len(sold(self._tills)),
                "files": len(list(self._lake.glob("class=*/**/*.parquet"))),
            },
        }

    def _query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        return list(self._conn.execute(sql.encode(), parameters).fetchall())


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
