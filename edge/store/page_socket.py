"""Listening sockets of the page and of monitoring: opened by the service, that of the page also by the page itself."""

from __future__ import annotations

import socket

from edge.store.errors import Trouble


def listen(address: str, key: str = "[web] listen", who: str = "the page") -> socket.socket:
    """Open a socket listening on `host:port` or `[host]:port`, the value of `key`; Trouble says what to do if that
    fails."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=128)
    except OSError as error:
        raise Trouble(f"{who} cannot listen on {address}: {error.strerror or error}; choose another {key}") from error
