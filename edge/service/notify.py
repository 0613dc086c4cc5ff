"""Tell systemd how the service is: sd_notify(3), which is a datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BEAT_S = 5.0
LONGEST_S = 900.0
"""Work that is not done by then hangs: the watchdog may have its way."""


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


@contextmanager
def long_work() -> Iterator[None]:
    """Within, the supervisor stays patient: compiling, or a large database, takes longer than a watchdog waits."""
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
    """This process is about to run the program from its start: no stop, which the supervisor would soon enforce."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "WATCHDOG=1")
