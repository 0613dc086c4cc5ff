"""Reader drivers: bytes to READ arrays, and sessions that reconnect."""

from drivers.open import open_session

__all__ = ["open_session"]
