"""Actions from the console: erasures, and hashes with the tag key that only the service has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.crm.erasure.worker import Erasures
from edge.cues.orders import Other, ask
from edge.database.lock import hold
from edge.database.reader import connect
from edge.database.writer import Database
from edge.store.errors import Trouble
from edge.store.live_socket import socket_path
from edge.store.pseudonyms import member_tag
from sync.commands import Pending

MAX_MEMBER = 128
ERASE_S = 300.0
"""Time limit for an answer, which takes a second, or as long as rewriting the database."""
CARDS = 5_000
"""Maximum number of cards per request."""


class Console:
    """Handlers by name, for the action server."""

    def __init__(self, erasures: Erasures, database: Database) -> None:
        self._erasures = erasures
        self._database = database
        self.orders: Mapping[str, Other] = {"erase": self.erase, "tags": self.tags}

    async def erase(self, order: dict[str, Any]) -> dict[str, Any]:
        """Erase `member`."""
        member = order.get("member")
        if not isinstance(member, str) or not 0 < len(member) <= MAX_MEMBER:
            raise ValueError("no member")
        try:
            return {"state": "applied", "receipt": await self._erasures.erase(member)}
        except Pending as pending:
            return {"state": "pending", "reason": str(pending)}

    async def tags(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the hashes of `cards`, and which of `members` have been erased, unless they rejoin (`readmit`)."""
        key = self._database.tag_key
        cards = [bytes.fromhex(str(card)) for card in order.get("cards", ())]
        members = [str(member) for member in order.get("members", ())]
        if order.get("readmit"):
            await self._erasures.readmit(members)
        return {
            "tags": [member_tag(key, card, len(card) * 8).hex() for card in cards],
            "erased": sorted(self._erasures.erased(members)),
        }


async def erase(config: StoreConfig, member: str, clock: Callable[[], int]) -> dict[str, Any]:
    """Erase a member through the service, or directly if it is not running: `state`, and `receipt` or `reason`."""
    answer = await ask(socket_path(config, "orders"), {"do": "erase", "member": member}, ERASE_S)
    if answer["refused"] is None:
        return answer
    if answer["refused"] != "offline":
        raise Trouble(f"{member!r} is not a member number; expected: 1 to {MAX_MEMBER} characters")
    with hold(config.database.path):
        return await _erase_alone(config, member, clock)


async def _erase_alone(config: StoreConfig, member: str, clock: Callable[[], int]) -> dict[str, Any]:
    connect(config.database.path).close()  # do not create one for this
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb, repair=False)
    running: asyncio.Task[None] | None = None
    try:
        erasures = Erasures(config, database, clock)
        running = asyncio.create_task(erasures.run())
        return await Console(erasures, database).erase({"member": member})
    except ValueError as error:
        raise Trouble(f"{member!r} is not a member number; expected: 1 to {MAX_MEMBER} characters") from error
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        database.close()


def ask_for_tags(
    orders: Path, cards: list[bytes], members: list[str], *, readmit: bool
) -> tuple[list[bytes], set[str]]:
    """Have the service hash cards and report erased members; Trouble if it is not running."""
    tags: list[bytes] = []
    erased: set[str] = set()
    for start in range(0, len(cards), CARDS):
        some = slice(start, start + CARDS)
        order = {
            "do": "tags",
            "cards": [card.hex() for card in cards[some]],
            "members": members[some],
            "readmit": readmit,
        }
        answer = asyncio.run(ask(orders, order))
        if answer["refused"] is not None:
            raise Trouble("only the service can read the tag key, a systemd credential: start the service first")
        tags += [bytes.fromhex(tag) for tag in answer["tags"]]
        erased.update(answer["erased"])
    return tags, erased
