"""One connection to the page: hung up on if no whole request comes in time, or if its address has too many already.

uvicorn would wait for ever, and a thousand half-sent requests, which anybody on the shop's Wi-Fi can open, would take
all the files that a process may have.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 15.0
"""From connecting, or from the last answer, to the end of a request's headers: within once to twice as long."""
CONNECTIONS = 64
"""Of one address at a time. A browser opens six, and a stream for each live page."""

_open: Counter[str] = Counter()


class Patience(H11Protocol):
    """Given to uvicorn as its protocol."""

    proxies: frozenset[str] = frozenset()
    """Addresses through which many people come."""
    _hurry: asyncio.TimerHandle | None = None
    _counted = ""
    _seen: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if address and address not in self.proxies and not neighbour(address):
            self._counted = address
            _open[address] += 1
            if _open[address] > CONNECTIONS:
                transport.abort()
                return
        self._hurry = self.loop.call_later(REQUEST_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
        if self._counted:
            _open[self._counted] -= 1
            if not _open[self._counted]:
                del _open[self._counted]
            self._counted = ""
        super().connection_lost(exc)

    def _look(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._seen is self.cycle:  # as at the look before, or no request yet
            self.transport.abort()
            return
        self._seen = self.cycle if idle else self
        self._hurry = self.loop.call_later(REQUEST_S, self._look)


def neighbour(address: str) -> bool:
    """A process of this machine, such as a proxy that all requests come through."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
