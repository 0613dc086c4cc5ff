"""Readers' bytes to READ arrays, and sessions that survive."""

from drivers.open import open_session

__all__ = ["open_session"]
