"""The page's listening socket, opened by the service before its page starts, or by the page alone."""

from __future__ import annotations

import socket

from edge.store.errors import Trouble


def listen(address: str) -> socket.socket:
    """A socket listening on `host:port` or `[host]:port`; Trouble that says what to do if it can't be had."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=128)
    except OSError as error:
        raise Trouble(
            f"the page cannot listen on {address}: {error.strerror or error}; choose another [web] listen"
        ) from error
