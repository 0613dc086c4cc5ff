"""The chain's central CRM, as far as the contract defines it: takes every store's events, commits, then
acknowledges."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config import topics
from simulators.headquarters.tills import Tills
from sync.consumer import POSTGRES, Delivery, Gap, Ledger, Taken
from sync.contract import CLASSES, Ack, Cue, CueOutcome, EventClass, Recognised, State
from sync.down import Replay, Result
from sync.mqtt import BrokerError, Incoming, MqttConnection, MqttSettings, connect
from sync.publisher import backoff_s

CLIENT_ID = "tagtrail-crm"
BULK = ""
GROUPS: dict[str, tuple[EventClass, ...]] = {"-member": CLASSES[:1], BULK: CLASSES[1:]}
"""One session for recognitions and one for all that can wait, by the suffix of their client ids, so that neither waits
behind the other in the broker's queue. Recognitions have transactions of their own, and go first."""
STATUS_S = 0.5
COMMIT_TOGETHER = 256
COMMIT_BYTES = 128 * 1024
"""Limits of one transaction: while one is committed, the next messages gather; a recognition waits for one commit."""
LATENCIES_KEPT = 10_000
RECENT = 10
STEADY_S = 10.0
DATABASE_RETRY_S = 1.0
COUNTING_SHARE = 0.1
"""Maximum share of time for counting totals."""
SALES_S = 5.0
GAP_S = 10.0
"""A gap unchanged for this long is requested."""
GAP_US = 3600 * 1_000_000
CONNECTED = "connected"


class Crm:
    """CRM on a database; `run` continues until cancelled. `speed` and `origin_us` are those of the stores' clock."""

    def __init__(
        self,
        settings: MqttSettings,
        database: Path | str,
        speed: float = 1.0,
        origin_us: int = 0,
        tills: Tills | None = None,
    ) -> None:
        self._tills = tills
        self._settings = settings
        self._ledger = Ledger(database)
        self._thread = ThreadPoolExecutor(1, "ledger")  # a commit waits for the disk; receiving must not
        self._counting = Ledger(database)
        self._counting_thread = ThreadPoolExecutor(1, "counting")
        self._totals: dict[str, Any] = {}
        self._count_again_s = 0.0
        self._trouble: str | None = None
        self._speed, self._origin_us = speed, origin_us
        self._waiting: dict[str, deque[Delivery]] = {group: deque() for group in GROUPS}
        self._arrived = asyncio.Event()
        self._acks: dict[str, dict[tuple[str, EventClass], Ack]] = {group: {} for group in GROUPS}
        self._committed = {group: asyncio.Event() for group in GROUPS}
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._cues: Counter[str] = Counter()
        self._stores: dict[str, dict[str, Any]] = {}
        self._connections = dict.fromkeys(GROUPS, "not yet connected")
        self._asked: dict[Gap, str] = {}
        self._answered: set[str] = set()

    async def run(self) -> None:
        """Connect, consume, reconnect."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work())
            for group in GROUPS:
                tasks.create_task(self._stay(group))

    async def status(self, recount: bool = False) -> dict[str, Any]:
        """Return totals from the database, and the recognitions and cues of this run."""
        began = time.monotonic()
        if recount or began >= self._count_again_s:
            try:
                totals = self._counting.totals
                self._totals = await asyncio.get_running_loop().run_in_executor(self._counting_thread, totals, recount)
            except self._counting.error as error:
                self._trouble = str(error)
            now = time.monotonic()
            self._count_again_s = now + (now - began) / COUNTING_SHARE
        ordered = sorted(self._latencies_ms)
        return {
            "broker": next(
                (connection for connection in self._connections.values() if connection != CONNECTED), CONNECTED
            ),
            "database": self._trouble,
            **self._totals,
            "stores": self._stores,
            "recognitions": list(self._recent),
            "cues": dict(self._cues),
            "recognition_ms": {
                "n": len(ordered),
                "p50": _quantile(ordered, 0.5),
                "p99": _quantile(ordered, 0.99),
            },
        }

    async def close(self) -> dict[str, Any]:
        """Commit what has arrived and close the database; returns the last status. Unpublished acks don't matter."""
        for group, waiting in self._waiting.items():
            while waiting:
                await self._commit(group)
        self._thread.shutdown()  # a commit may be under way still
        status = await self.status(recount=True)
        self._counting_thread.shutdown()
        for ledger in (self._ledger, self._counting):
            ledger.close()
        return status

    async def _stay(self, group: str) -> None:
        """Stay connected for some classes, with reconnects."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                # In a task of its own: Python 3.11's task groups spoil `cancelling` of the task they run in.
                await asyncio.create_task(self._session(group))
            except* BrokerError as error:
                self._connections[group] = str(error.exceptions[0])
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            await asyncio.sleep(backoff_s(failures))

    async def _session(self, group: str) -> None:
        settings = replace(self._settings, client_id=self._settings.client_id + group)
        async with connect(settings, durable=True) as connection:
            mine = [topics.topic("+", f"up/{class_}") for class_ in GROUPS[group]]  # below up/ are answers too
            if group == BULK:
                # Older versions took these in this session.
                others = [class_ for class_ in CLASSES if class_ not in GROUPS[group]]
                await connection.unsubscribe([topics.topic("+", f"up/{class_}") for class_ in others])
                mine += [topics.topic("+", "up/result"), topics.topic("+", "state")]
            await connection.subscribe(mine)
            self._connections[group] = CONNECTED
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(connection, group))
                tasks.create_task(self._acknowledge(connection, group))
                if group == BULK:
                    tasks.create_task(self._ask(connection))
                    tasks.create_task(self._tell_sales(connection))

    async def _receive(self, connection: MqttConnection, group: str) -> None:
        while True:
            for incoming in await connection.receive():
                if incoming.topic.endswith("/state"):
                    self._take_state(incoming)
                elif incoming.topic.endswith("/up/result"):
                    self._take_result(incoming)
                else:
                    self._waiting[group].append(Delivery(incoming.topic, incoming.payload, self._now_us()))
            self._arrived.set()

    async def _work(self) -> None:
        """Commit received messages, of the first group that has any."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while (group := next((name for name, waiting in self._waiting.items() if waiting), None)) is not None:
                for store, class_, ack in (await self._commit(group)).acks:
                    self._acks[group][store, class_] = ack
                self._committed[group].set()

    async def _acknowledge(self, connection: MqttConnection, group: str) -> None:
        """Publish the latest ack of each class, while the next deliveries are being committed."""
        while True:
            await self._committed[group].wait()
            self._committed[group].clear()
            acks, self._acks[group] = self._acks[group], {}
            try:
                await asyncio.gather(
                    *(_publish(connection, store, class_, ack) for (store, class_), ack in acks.items())
                )
            except BaseException:
                self._acks[group] = acks | self._acks[group]  # for the next connection
                self._committed[group].set()
                raise

    async def _ask(self, connection: MqttConnection) -> None:
        """Request a replay for a gap that doesn't close by itself, because this CRM was restored from a backup. Repeats
        the same command until it is answered; if the gap is still there then, sends another one.
        """
        before: set[Gap] = set()
        while True:
            await asyncio.sleep(GAP_S)
            try:
                find = self._counting.gaps
                gaps = set(await asyncio.get_running_loop().run_in_executor(self._counting_thread, find))
            except self._counting.error:
                continue  # the next commit tells
            asked, self._asked = self._asked, {}
            for gap in gaps & before:
                now_us = self._now_us()
                id_ = asked.get(gap)
                if id_ is None or id_ in self._answered:
                    id_ = f"replay-{now_us}-{gap.class_}"
                self._asked[gap] = id_
                order = Replay.model_validate(
                    {
                        "id": id_,
                        "expires_us": now_us + GAP_US,
                        "command": "replay",
                        "class": gap.class_,
                        "epoch": gap.epoch,
                        "from": gap.first,
                        "to": gap.last,
                    }
                )
                await connection.publish(
                    topics.topic(gap.store, "down/cmd"), order.model_dump_json(by_alias=True).encode()
                )
            self._answered &= set(self._asked.values())
            before = gaps

    async def _tell_sales(self, connection: MqttConnection) -> None:
        """Send what the tills sold, again until the store has taken it."""
        while self._tills is not None:
            for message in await asyncio.to_thread(self._tills.due):
                await connection.publish(topics.topic(self._tills.store, "down/sales"), message)
            await asyncio.sleep(SALES_S)

    async def _commit(self, group: str) -> Taken:
        waiting = self._waiting[group]
        deliveries: list[Delivery] = []
        size = 0
        while waiting and len(deliveries) < COMMIT_TOGETHER and size < COMMIT_BYTES:
            deliveries.append(waiting.popleft())
            size += len(deliveries[-1].payload)
        try:
            taken = await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.take, deliveries)
        except self._ledger.error as error:  # not acknowledged, so nothing is lost: the stores send it again
            self._trouble = str(error)
            waiting.clear()
            await asyncio.sleep(DATABASE_RETRY_S)
            return Taken([], [])
        self._trouble = None
        for store, event, received_us in taken.fresh:
            if isinstance(event, Cue):
                self._cues[event.kind] += 1
            elif isinstance(event, CueOutcome):
                self._cues[event.outcome] += 1
            elif isinstance(event, Recognised):
                ms = (received_us - event.read_us) / 1000 / self._speed
                self._latencies_ms.append(ms)
                self._recent.appendleft(
                    {"store": store, "read_us": event.read_us, "ms": round(ms, 1)}
                    | event.model_dump(include={"member", "tier", "zone", "floor"})
                )
        return taken

    def _take_result(self, incoming: Incoming) -> None:
        try:
            result = Result.model_validate_json(incoming.payload)
        except ValidationError:
            return
        if result.state != "received":
            self._answered.add(result.id)
        if result.state == "applied" and self._tills is not None:
            self._tills.taken(result.id)

    def _take_state(self, incoming: Incoming) -> None:
        try:
            store, _ = topics.parse(incoming.topic)
            state = State.model_validate_json(incoming.payload)
        except (ValueError, ValidationError):
            return
        self._stores[store] = state.model_dump(include={"online", "version", "epoch"})

    def _now_us(self) -> int:
        wall = time.time_ns() // 1000
        return self._origin_us + round((wall - self._origin_us) * self._speed) if self._speed != 1 else wall


async def _publish(connection: MqttConnection, store: str, class_: EventClass, ack: Ack) -> None:
    now = ack.model_copy(update={"at_us": time.time_ns() // 1000})
    await connection.publish(topics.topic(store, f"down/ack/{class_}"), now.model_dump_json().encode(), retain=True)


def command(
    url: str,
    database: str,
    status: Path | None = None,
    clock_speed: float = 1.0,
    clock_origin_us: int = 0,
    username: str | None = None,
    password_file: Path | None = None,
    ca: Path | None = None,
    tills: Path | None = None,
    store: str | None = None,
) -> None:
    """Run the CRM until SIGTERM or SIGINT; prints the last status as one line of JSON.

    `clock_speed` and `clock_origin_us`: those of a demo's faster store clock, to give latencies in real milliseconds.
    """
    try:
        settings = MqttSettings.from_url(url, CLIENT_ID, username=username, password_file=password_file, ca=ca)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    sold = None if tills is None or store is None else Tills(tills, store)
    last = asyncio.run(_main(settings, database, status, clock_speed, clock_origin_us, sold))
    sys.stdout.write(json.dumps(last, ensure_ascii=False) + "\n")


async def _main(
    settings: MqttSettings, database: str, path: Path | None, speed: float, origin_us: int, tills: Tills | None
) -> dict[str, Any]:
    try:
        crm = Crm(settings, database, speed, origin_us, tills)
    except sqlite3.Error as error:
        raise SystemExit(f"cannot open the database {database}: {error}; is its folder there and writable?") from None
    except ImportError:
        raise SystemExit("PostgreSQL needs psycopg: pip install 'tagtrail[postgresql]'") from None
    except Exception as error:
        if not database.startswith(POSTGRES):
            raise
        raise SystemExit(f"cannot use the PostgreSQL database: {str(error).strip()}") from None
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    running = asyncio.create_task(crm.run())
    stopping = asyncio.create_task(stop.wait())
    while not stopping.done() and not running.done():
        if path is not None:
            _write(path, await crm.status())
        await asyncio.wait((stopping, running), timeout=STATUS_S, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    stopping.cancel()
    ended = await asyncio.gather(running, return_exceptions=True)
    last = await crm.close()
    if path is not None:
        _write(path, last)
    if isinstance(ended[0], Exception):
        raise ended[0]
    return last


def _write(path: Path, status: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(status, ensure_ascii=False))
    os.replace(part, path)


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


def main() -> None:
    """Command line of `python -m simulators.headquarters.crm`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--status", type=Path)
    parser.add_argument("--clock-speed", type=float, default=1.0)
    parser.add_argument("--clock-origin-us", type=int, default=0)
    parser.add_argument("--username")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--ca", type=Path)
    command(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
