"""Hashes of passwords and PINs: scrypt (RFC 7914; N=2¹⁴, r=8, p=5: 16 MiB and about 0.1 s per attempt)."""

from __future__ import annotations

import hashlib
import hmac
import secrets

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5
MAX_BYTES = 1024


def scrypt(password: str) -> str:
    """Hash a password for storage: `scrypt$N$r$p$salt$hash`."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${digest.hex()}"


def matches(password: str, kept: str | None) -> bool:
    """Return whether a password is the one that was hashed. For None it takes as long, and is False."""
    if len(password.encode()) > MAX_BYTES:
        return False
    nobody = f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${'00' * 16}${'00' * 32}"
    _, n, r, p, salt, digest = (kept or nobody).split("$")
    made = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(made, bytes.fromhex(digest)) and kept is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=1 << 26, dklen=32)
