"""A sink for sessions with serial readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from drivers.read import READ, Reads, epc_bytes
from drivers.session import Contact, Gap, Link, Notice, ReaderStatus


class Collector:
    """A sink that tests can wait on."""

    def __init__(self) -> None:
        self.batches: list[Reads] = []
        self.states: list[ReaderStatus] = []
        self.notices: list[str] = []
        self._changed = asyncio.Event()

    async def reads(self, reader: str, batch: Reads) -> None:
        assert reader == "gate"
        assert self.states[-1].link is Link.UP
        self.batches.append(batch)
        self._changed.set()

    def status(self, status: ReaderStatus) -> None:
        self.states.append(status)
        self._changed.set()

    def gap(self, gap: Gap) -> None: ...

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice.text)
        self._changed.set()

    def contact(self, contact: Contact) -> None:
        raise AssertionError("serial readers have no contacts")

    @property
    def all(self) -> Reads:
        return np.concatenate(self.batches) if self.batches else np.zeros(0, READ)

    @property
    def epcs(self) -> list[bytes]:
        return [epc_bytes(row["epc"], int(row["epc_bits"])) for row in self.all]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_link(self, link: Link, after: int = 0) -> ReaderStatus:
        """The first state with that link behind the first `after` states."""
        await self.until(lambda: any(state.link is link for state in self.states[after:]))
        return next(state for state in self.states[after:] if state.link is link)
