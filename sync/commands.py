"""Commands of the CRM: checked, executed at most once, and answered. Floods are limited, but never erasures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json

from sync.contract import MAX_EVENT_BYTES
from sync.down import COMMAND, MAX_COMMAND_BYTES, Command, Erase, Result
from sync.mqtt import Incoming
from sync.writer import Writer

log = logging.getLogger("tagtrail.commands")

REMEMBERED = 1000
"""Number of commands whose answers are kept."""
WAITING = 16
"""Commands that may wait in each lane …"""
ERASURES = 10_000
"""… and erasures, of a few hundred bytes each: a chain may send a list of them."""
LANES = ("erase", "capture", "replay", "")
"""Lanes: erasures wait only for each other, and nothing waits for captures or replays, which take minutes. The last
lane is for all others."""
AT_ONCE = {"erase": 500}
"""Number of commands of a lane that are executed together, if more than one: erasures share what they wait for."""
BURST, PER_S = 20.0, 1.0
"""Commands accepted at once, and per second in the long run; more are dropped and counted, not answered. Erasures
aren't limited."""
DIGEST_BYTES = 2
"""Long enough to notice another command under the same id, too short to find out which member an erasure was about."""
LONGEST_US = 7 * 86_400_000_000
"""Latest possible expiry: an answer must be remembered while its command is valid."""

CommandHandler = Callable[[Any], Awaitable[dict[str, Any]]]


class Pending(Exception):
    """Raised by a handler whose work goes on: the text says what it waits for; `Commands.settle` tells the end."""


class Commands:
    """Takes `down/cmd` and answers with `say("up/result", …)`; `run` executes commands one at a time in each of LANES,
    until cancelled.

    `handlers`: function by command name; its result is the answer's output, its exception the reason.
    `going_on`: ids of the commands whose work continues, even after a restart.
    """

    def __init__(
        self,
        handlers: Mapping[str, CommandHandler],
        writer: Writer,
        clock: Callable[[], int],
        say: Callable[[str, bytes], None],
        going_on: Callable[[], Container[str]] = tuple,
    ) -> None:
        self._handlers = handlers
        self._writer = writer
        self._clock = clock
        self._say = say
        self._going_on = going_on
        self._lanes: dict[str, asyncio.Queue[Command]] = {
            lane: asyncio.Queue(ERASURES if lane == "erase" else WAITING) for lane in LANES
        }
        self._begun = asyncio.Event()
        self._credit, self._credited_s = BURST, time.monotonic()
        self.counters: Counter[str] = Counter()
        """Counters: taken, repeated, refused, dropped, failed."""

    async def take(self, incoming: Incoming) -> None:
        """Take a message of `down/cmd`, after `run` has answered commands that a restart interrupted."""
        await self._begun.wait()
        command = self._read(incoming.payload)
        if not isinstance(command, Erase) and not self._may_be_taken():
            self.counters["dropped"] += 1
            return
        if isinstance(command, _Refusal):
            self._refuse(*command)
            return
        try:
            before, other = await self._writer.write(lambda conn: _begin(conn, command, self._clock()))
        except sqlite3.Error as error:
            self._refuse(command.id, f"the database: {error}")
            return
        if other:
            self._refuse(command.id, "another command had this id: give every command an id of its own")
            return
        if before is not None:
            self.counters["repeated"] += 1
            self._say("up/result", before.encode())
            return
        lane = self._lanes.get(command.command, self._lanes[""])
        if lane.full():
            await self._forget(command.id)  # it may come again under its id
            self._refuse(command.id, f"{lane.qsize()} commands are waiting already: send it again later")
            return
        self.counters["taken"] += 1
        self._answer(command.id, "received")
        lane.put_nowait(command)

    async def run(self) -> None:
        """Execute the commands taken; first answer those that a restart or an internal error interrupted."""
        for lane in self._lanes.values():
            while not lane.empty():
                lane.get_nowait()
        await self._tell_interrupted()
        self._begun.set()
        async with asyncio.TaskGroup() as lanes:
            for name, lane in self._lanes.items():
                for _ in range(AT_ONCE.get(name, 1)):
                    lanes.create_task(self._carry_out(lane))

    async def settle(self, id_: str, output: dict[str, Any]) -> None:
        """A command that was answered `pending` is done."""
        await self._keep(id_, self._answer(id_, "applied", output=output))

    async def _carry_out(self, lane: asyncio.Queue[Command]) -> None:
        while True:
            command = await lane.get()
            try:
                output = await self._handlers[command.command](command)
                if len(json.dumps(output).encode()) > MAX_EVENT_BYTES:
                    raise ValueError("the answer is too large for a message")
            except asyncio.CancelledError:
                raise
            except Pending as pending:
                await self._end(command, "pending", reason=str(pending))
            except Exception as error:
                log.warning("command %s (%s) failed: %s", command.command, command.id, error)
                self.counters["failed"] += 1
                await self._end(command, "failed", reason=str(error) or type(error).__name__)
            else:
                await self._end(command, "applied", output)

    def _may_be_taken(self) -> bool:
        now_s = time.monotonic()
        self._credit = min(BURST, self._credit + (now_s - self._credited_s) * PER_S)
        self._credited_s = now_s
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _read(self, payload: bytes) -> Command | _Refusal:
        if len(payload) > MAX_COMMAND_BYTES:
            return _Refusal("", f"{len(payload)} bytes; the limit is {MAX_COMMAND_BYTES}")
        try:
            command: Command = COMMAND.validate_json(payload, strict=True)
        except ValidationError as error:
            return _Refusal(id_of(payload), first_of(error))
        now = self._clock()
        if command.expires_us <= now:
            return _Refusal(command.id, "expired")
        if command.expires_us > now + LONGEST_US:
            return _Refusal(command.id, "expires more than 7 days ahead")
        if command.command not in self._handlers:
            return _Refusal(command.id, f"{command.command} is not done here")
        return command

    def _refuse(self, id_: str, reason: str) -> None:
        self.counters["refused"] += 1
        self._answer(id_, "refused", reason)

    def _answer(self, id_: str, state: str, reason: str = "", output: dict[str, Any] | None = None) -> str:
        made = {"id": id_, "state": state, "at_us": self._clock(), "reason": reason, "output": output or {}}
        message = Result.model_validate(made).model_dump_json()
        self._say("up/result", message.encode())
        return message

    async def _end(
        self, command: Command, state: str, output: dict[str, Any] | None = None, *, reason: str = ""
    ) -> None:
        await self._keep(command.id, self._answer(command.id, state, reason, output))

    async def _keep(self, id_: str, message: str) -> None:
        try:
            await self._writer.write(
                lambda conn: conn.execute("UPDATE command SET result = ? WHERE id = ?", (message, id_)).rowcount
            )
        except sqlite3.Error as error:
            log.warning("the answer to command %s could not be stored: %s", id_, error)

    async def _forget(self, id_: str) -> None:
        with contextlib.suppress(sqlite3.Error):
            await self._writer.write(lambda conn: conn.execute("DELETE FROM command WHERE id = ?", (id_,)).rowcount)

    async def _tell_interrupted(self) -> None:
        going_on = self._going_on()

        def job(conn: sqlite3.Connection) -> list[str]:
            pending = "result IS NULL OR json_extract(result, '$.state') = 'pending'"
            cut = [id_ for (id_,) in conn.execute(f"SELECT id FROM command WHERE {pending}")]
            told = {id_: _GOES_ON if id_ in going_on else _CUT_OFF for id_ in cut}
            made = {
                id_: Result.model_validate(each | {"id": id_, "at_us": self._clock()}) for id_, each in told.items()
            }
            results = {id_: result.model_dump_json() for id_, result in made.items()}
            conn.executemany(
                "UPDATE command SET result = ? WHERE id = ?", [(text, id_) for id_, text in results.items()]
            )
            return list(results.values())

        try:
            for message in await self._writer.write(job):
                self._say("up/result", message.encode())
        except sqlite3.Error as error:
            log.warning("commands interrupted by the restart could not be answered: %s", error)


def first_of(error: ValidationError) -> str:
    """Return the first thing that is wrong with a message, and where, without what it says."""
    first: Mapping[str, Any] = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def id_of(payload: bytes) -> str:
    """Return the id of a message that can't be read otherwise, so that its sender recognises the answer; or nothing."""
    try:
        id_ = json.loads(payload)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    # JSON can name half a character, which no answer can.
    return id_[:64].encode(errors="ignore").decode() if isinstance(id_, str) else ""


_CUT_OFF = {"state": "failed", "reason": "cut off by a restart of the gateway"}
_GOES_ON = {"state": "pending", "reason": "goes on after a restart of the gateway"}


class _Refusal(NamedTuple):
    id: str
    reason: str


def _begin(conn: sqlite3.Connection, command: Command, now_us: int) -> tuple[str | None, bool]:
    """Record a command; if it exists, return its answer, and whether that was for another command with the same id."""
    asked = to_json(command.model_dump(exclude={"v", "id", "expires_us"}))
    digest = hashlib.blake2b(asked, digest_size=DIGEST_BYTES).digest()
    row = conn.execute("SELECT result, digest FROM command WHERE id = ?", (command.id,)).fetchone()
    if row is not None:
        if row[1] not in (None, digest):
            return None, True
        made = {"id": command.id, "state": "received", "at_us": now_us}
        return str(row[0] or Result.model_validate(made).model_dump_json()), False
    conn.execute("INSERT INTO command (id, at_us, digest) VALUES (?, ?, ?)", (command.id, now_us, digest))
    conn.execute(
        "DELETE FROM command WHERE result IS NOT NULL AND id IN"
        " (SELECT id FROM command ORDER BY at_us DESC, id LIMIT -1 OFFSET ?)",
        (REMEMBERED,),
    )
    return None, False
