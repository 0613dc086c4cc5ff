"""Notify systemd of the service's state: sd_notify(3), a datagram to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BEAT_S = 5.0
LONGEST_S = 900.0
"""Work that takes longer than this is considered hung, and the watchdog is allowed to act."""


def notify(*assignments: str) -> None:
    """Send assignments such as "READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS=…"; does nothing outside systemd.

    Messages that can't be delivered are dropped; the watchdog handles a missing notification.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace: the name begins with a zero byte
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.setblocking(False)
        datagrams.sendto("\n".join(assignments).encode(), address)


@contextmanager
def long_work() -> Iterator[None]:
    """Context for work that exceeds the watchdog's timeout, such as compiling or checking a large database."""
    over = threading.Event()

    def beat() -> None:
        until_s = time.monotonic() + LONGEST_S
        while time.monotonic() < until_s:
            notify("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={round(3 * BEAT_S * 1e6)}")
            if over.wait(BEAT_S):
                return

    beating = threading.Thread(target=beat, name="patience", daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()


def begin_anew() -> None:
    """Announce that the process restarts itself; after announcing a stop, the supervisor would kill it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "WATCHDOG=1")
