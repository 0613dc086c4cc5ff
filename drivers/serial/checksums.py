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


def crc16_xmodem(body: bytes) -> int:
    """Compute CRC-16/XMODEM: polynomial 1021, initial value 0; "123456789" gives 31C3."""
    return crc_hqx(body, 0)


def crc16_ibm_3740(body: bytes) -> int:
    """Compute CRC-16/IBM-3740, also called CCITT-FALSE: polynomial 1021, initial value FFFF; "123456789" gives 29B1."""
    return crc_hqx(body, 0xFFFF)


def crc16_umts(body: bytes) -> int:
    """Compute CRC-16/UMTS, also called BUYPASS: polynomial 8005, initial value 0; "123456789" gives FEE8."""
    register = 0
    for byte in body:
        register = (register << 8 & 0xFF00) ^ _UMTS[register >> 8 ^ byte]
    return register


def _umts(byte: int) -> int:
    register = byte << 8
    for _ in range(8):
        register = (register << 1 ^ 0x8005 if register & 0x8000 else register << 1) & 0xFFFF
    return register


_UMTS = tuple(map(_umts, range(256)))
