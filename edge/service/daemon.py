"""Blocking work in threads that keep no stop waiting: of compilers, and of servers that don't answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do blocking work in a thread of its own, which a stop doesn't wait for; returns what becomes of it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def thread() -> None:
        try:
            settle = partial(done.set_result, work())
        except BaseException as error:
            settle = partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop was closed by a stop meanwhile
            loop.call_soon_threadsafe(lambda: done.done() or settle())

    threading.Thread(target=thread, daemon=True).start()
    return done
