"""Checksums used by several families."""

from __future__ import annotations

from binascii import crc_hqx

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc16_mcrf4xx(body: bytes) -> int:
    """Compute CRC-16/MCRF4XX: polynomial 1021 reflected (8408), initial value FFFF; "123456789" gives 6F91. It is the
    bit-reversed CCITT checksum, which the standard library computes in C.
    """
    mirrored = crc_hqx(body.translate(_REVERSED), 0xFFFF)
    return _REVERSED[mirrored & 0xFF] << 8 | _REVERSED[mirrored >> 8]
