"""Actions from the page and the console, carried out by the service, because only it writes to the database.

They use a separate Unix socket with one JSON object per line in each direction. The page names the user and checks the
user's permission; file permissions protect the socket from others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from config import StoreConfig
from config.cues import parse
from config.model import Cues
from edge.cues import book
from edge.cues.book import MAX_NOTE, CaseState, Refused
from edge.store.live_socket import LINE_LIMIT_BYTES, serve

log = logging.getLogger("tagtrail.orders")

ANSWER_S = 10.0
"""How long the page waits for an answer."""
Seconds = Annotated[int, Field(ge=30, le=3600)]


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    who: Annotated[str, Field(min_length=1, max_length=40)]


class MoveCue(_Order):
    """Acknowledge (someone will be there within `seconds`), snooze (for `seconds`) or close a cue."""

    do: Literal["acknowledge", "snooze", "done"]
    cue: int
    seconds: Seconds = 300


class OpenCase(_Order):
    do: Literal["open case"]
    zone: str
    note: Annotated[str, Field(min_length=1, max_length=MAX_NOTE)]


class MoveCase(_Order):
    do: Literal["move case"]
    case: int
    to: CaseState
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""


class SetRules(_Order):
    """Save new rules based on version `base`."""

    do: Literal["set rules"]
    base: int
    what: Annotated[str, Field(max_length=MAX_NOTE)]
    rules: dict[str, Any]


class RollBack(_Order):
    """Restore the rules of version `to` as a new version."""

    do: Literal["roll back"]
    base: int
    to: int


Order = Annotated[MoveCue | OpenCase | MoveCase | SetRules | RollBack, Field(discriminator="do")]
_ORDER: TypeAdapter[Order] = TypeAdapter(Order)
Job = Callable[[sqlite3.Connection], Any]
Other = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Handler of an order not related to cues. Its result is added to the answer. Raises ValueError if invalid."""


class OrderServer:
    """Accept actions and answer `{"refused": null}`, or the reason: gone, stale, unknown, invalid, database."""

    def __init__(
        self,
        path: Path,
        config: StoreConfig,
        order: Callable[[Job], Awaitable[Any]],
        clock: Callable[[], int],
        others: Mapping[str, Other] = MappingProxyType({}),
    ) -> None:
        self._path = path
        self._others = others
        self._zones = {zone.id: zone.kind.value for zone in config.zones}
        self._order = order
        self._clock = clock

    async def run(self) -> None:
        """Serve until cancelled."""
        await serve(self._path, self._client)

    async def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out the action in a line."""
        try:
            if (told := await self._other(line)) is not None:
                return {"refused": None} | told
            order = _ORDER.validate_json(line)
            await self._order(self._job(order))
        except Refused as refused:
            return {"refused": refused.why}
        except (ValidationError, ValueError) as error:
            log.warning("invalid action: %s", type(error).__name__)
            return {"refused": "invalid"}
        except sqlite3.Error as error:
            log.error("action failed in the database: %s", error)
            return {"refused": "database"}
        return {"refused": None}

    async def _other(self, line: bytes) -> dict[str, Any] | None:
        order = json.loads(line)
        do = order.get("do") if isinstance(order, dict) else None
        return await self._others[do](order) if isinstance(do, str) and do in self._others else None

    def _job(self, order: Order) -> Job:
        now_us = self._clock()
        match order:
            case MoveCue(do="acknowledge"):
                return lambda conn: book.acknowledge(conn, order.cue, order.who, order.seconds * 1_000_000, now_us)
            case MoveCue(do="snooze"):
                return lambda conn: book.snooze(conn, order.cue, order.who, order.seconds * 1_000_000, now_us)
            case MoveCue():
                return lambda conn: book.done(conn, order.cue, order.who, now_us)
            case OpenCase():
                if order.zone not in self._zones:
                    raise Refused("unknown")
                return lambda conn: book.open_case(conn, "hand", order.zone, None, None, order.who, order.note, now_us)
            case MoveCase():
                return lambda conn: book.move_case(conn, order.case, order.to, order.who, order.note, now_us)
            case SetRules():
                cues = self._checked(order.rules)
                return lambda conn: book.change(conn, cues, order.base, order.who, order.what, now_us)
            case RollBack():
                return lambda conn: self._roll_back(conn, order, now_us)

    def _roll_back(self, conn: sqlite3.Connection, order: RollBack, now_us: int) -> None:
        older = book.version(conn, order.to).cues
        # Zones may have been removed since.
        cues = self._checked(older.model_dump(mode="json", exclude_none=True))
        book.change(conn, cues, order.base, order.who, f"= {order.to}", now_us)

    def _checked(self, rules: dict[str, Any]) -> Cues:
        cues, problems = parse(rules, self._zones)
        if cues is None:
            raise ValueError("; ".join(what for _, what in problems))
        return cues

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # client disconnected, or line too long
        finally:
            writer.close()


async def give(path: Path, order: dict[str, Any]) -> str | None:
    """Send an action to the service; return None when done, otherwise the reason; `offline` if it is not responding."""
    refused: str | None = (await ask(path, order))["refused"]
    return refused


async def ask(path: Path, order: dict[str, Any], within_s: float = ANSWER_S) -> dict[str, Any]:
    """Send an order to the service and return its complete answer."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT_BYTES)
            try:
                writer.write(json.dumps(order).encode() + b"\n")
                answer: dict[str, Any] = json.loads(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return {"refused": "offline"}
    return answer
