"""Failures of connections to readers, as sentences for store IT."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import NoReturn

log = logging.getLogger("tagtrail.drivers")


class LinkFailure(Exception):
    """The connection is lost or unusable; the text is a sentence for store IT."""

    def __init__(self, text: str, since_us: int | None = None) -> None:
        """`since_us`: store time since when it has been unusable, if not now."""
        super().__init__(text)
        self.since_us = since_us


HUNG_UP = "the other end hung up"
NOTICE_S = 600.0
"""A message isn't repeated within this many wall seconds."""
_NOTICES_MAX = 256


class Noticed:
    """Messages about a reader that were reported of late."""

    def __init__(self) -> None:
        self._at_s: dict[str, float] = {}

    def is_new(self, text: str) -> bool:
        """Return whether a message is to be reported, and note it if so."""
        now_s = asyncio.get_running_loop().time()
        if text in self._at_s and now_s - self._at_s[text] < NOTICE_S:
            return False
        if len(self._at_s) >= _NOTICES_MAX:
            self._at_s.clear()
        self._at_s[text] = now_s
        return True


async def keep_trying(
    reader: str,
    once: Callable[[], Awaitable[object]],
    failed: Callable[[str, int | None], bool],
    was_steady: Callable[[], bool],
    retry_s: tuple[float, float],
) -> NoReturn:
    """Run a connection `once` after the other for ever, with a backoff between the two times of `retry_s`.

    `failed` is told the reason and since when (None: now), and returns True if it hadn't been the reason already;
    after a connection that `was_steady` the backoff begins anew.
    """
    pause_s = retry_s[0]
    while True:
        try:
            await once()
        except LinkFailure as failure:
            failed(str(failure), failure.since_us)
        except Exception as error:
            # A fault of ours with one reader's bytes must not end the others.
            if failed(f"unexpected error: {error!r}", None):
                log.exception("reader %s: unexpected error", reader)
        if was_steady():
            pause_s = retry_s[0]
        # Jitter: 64 readers behind a switch that restarts must not come back in one instant.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, retry_s[1])


def insecure(error: OSError, peer: str) -> str:
    """Return the LinkFailure for a failed TLS connection, with the reason."""
    return f"{peer} and the gateway agree on no secure connection ({words(error)}): does this port speak TLS?"


def words(error: BaseException) -> str:
    """Return the system's own message about an error."""
    if isinstance(error, ConnectionResetError) and not str(error):
        return HUNG_UP
    if isinstance(error, ssl.SSLError):
        return re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", str(error.strerror or error))
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
