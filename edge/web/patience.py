"""A connection to the page, closed if no complete request arrives in time, or if other clients need its place.

uvicorn would wait forever, and a thousand half-sent requests, which anyone on the shop's Wi-Fi can open, would use up
all file descriptors of the process. A connection that waits for a request keeps its place only until a newer one needs
it, so requests sent at once are always answered, even from an address that somebody else floods.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections import Counter

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 15.0
"""Time limit from connecting, or from the last answer, to the end of a request; TLS handshakes have the same limit."""
CONNECTIONS = 64
"""Maximum number of connections per address. A browser opens six, and one stream for each live page."""
ALL_CONNECTIONS = 1000

_open: Counter[str] = Counter()
_waiting: dict[Patience, str] = {}
"""Connections without a complete request, longest-waiting first, with their addresses; "" if not limited."""


class Patience(H11Protocol):
    """Protocol class for uvicorn."""

    proxies: frozenset[str] = frozenset()
    """Addresses shared by many clients."""
    _hurry: asyncio.TimerHandle | None = None
    _counted = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if address and address not in self.proxies and not neighbour(address):
            self._counted = address
            _open[address] += 1
        self._wait()
        if _open[self._counted] > CONNECTIONS:
            next(one for one, its in _waiting.items() if its == self._counted)._hang_up()
        elif len(self.connections) > _most():
            next(iter(_waiting))._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cease()
        if self._counted:
            _open[self._counted] -= 1
            if not _open[self._counted]:
                del _open[self._counted]
            self._counted = ""
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._cease()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self._cease()
        _waiting[self] = self._counted
        self._hurry = self.loop.call_later(REQUEST_S, self._hang_up)

    def _cease(self) -> None:
        _waiting.pop(self, None)
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _hang_up(self) -> None:
        self._cease()
        self.transport.abort()


def neighbour(address: str) -> bool:
    """True for an address of this machine, such as a local proxy for all requests."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _most() -> int:
    """Return the maximum number of connections, leaving file descriptors for other uses."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ALL_CONNECTIONS if files == resource.RLIM_INFINITY else min(ALL_CONNECTIONS, files // 2)
