"""Tell systemd how the service is: sd_notify(3), which is a datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> None:
    """Send assignments such as "READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS=…"; does nothing outside systemd.

    What cannot be delivered is dropped: the watchdog is there for a manager that stays without news.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace: the name begins with a zero byte
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.setblocking(False)
        datagrams.sendto("\n".join(assignments).encode(), address)
