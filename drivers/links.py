"""Failures of connections to readers, as sentences for store IT."""

from __future__ import annotations

import re
import ssl


class LinkFailure(Exception):
    """The connection is lost or unusable; the text is a sentence for store IT."""

    def __init__(self, text: str, since_us: int | None = None) -> None:
        """`since_us`: store time since when it has been unusable, if not now."""
        super().__init__(text)
        self.since_us = since_us


def insecure(error: ssl.SSLError, peer: str) -> str:
    """Return the LinkFailure for a failed TLS connection, with the reason."""
    return f"{peer} and the gateway agree on no secure connection ({words(error)}): does this port speak TLS?"


def words(error: Exception) -> str:
    """Return the system's own message about an error."""
    if isinstance(error, ssl.SSLError):
        return re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", str(error.strerror or error))
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
