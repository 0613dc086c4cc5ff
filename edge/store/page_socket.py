"""Listening socket of the page, opened by the service before it starts the page, or by the page itself."""

from __future__ import annotations

import socket

from edge.store.errors import Trouble


def listen(address: str) -> socket.socket:
    """Open a socket listening on `host:port` or `[host]:port`; Trouble says what to do if that fails."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=128)
    except OSError as error:
        raise Trouble(
            f"the page cannot listen on {address}: {error.strerror or error}; choose another [web] listen"
        ) from error
