"""Checksums that more than one family uses."""

from __future__ import annotations

from binascii import crc_hqx

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc16_mcrf4xx(body: bytes) -> int:
    """CRC-16/MCRF4XX: polynomial 1021 reflected (8408), started at FFFF; of "123456789" it is 6F91.

    It is the mirror image of the CCITT checksum that the standard library computes in C.
    """
    mirrored = crc_hqx(body.translate(_REVERSED), 0xFFFF)
    return _REVERSED[mirrored & 0xFF] << 8 | _REVERSED[mirrored >> 8]
