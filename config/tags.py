"""EPCs by the GS1 EPC Tag Data Standard: bits that determine a tag's class, and the four schemes that shops print.

All 96-bit schemes with a company prefix start in the same way, from the left:

    header 8 | filter 3 | partition 3 | company prefix 20…40 | reference | serial or zeros

The partition determines how the following bits are split between prefix and reference. The filter indicates the type of
the tagged object, never its owner.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.model import TagClass

HEADERS = {
    "sgtin-96": 0x30,
    "sscc-96": 0x31,
    "sgln-96": 0x32,
    "grai-96": 0x33,
    "giai-96": 0x34,
    "gid-96": 0x35,
    "gsrn-96": 0x2D,
    "gsrnp-96": 0x2E,
}
_PREFIX_BITS = {12: (0, 40), 11: (1, 37), 10: (2, 34), 9: (3, 30), 8: (4, 27), 7: (5, 24), 6: (6, 20)}
"""Digits of the company prefix → partition and bits (the same in all schemes)."""
_BITS = 96
MAX_BYTES = 62
"""Longest EPC, 496 bits."""


@dataclass(frozen=True)
class Scheme:
    """Layout after the partition: prefix and reference together, then the serial."""

    header: int
    digits: int
    bits: int
    serial_bits: int


_GSRN = Scheme(HEADERS["gsrn-96"], 17, 58, 0)
_GSRNP = Scheme(HEADERS["gsrnp-96"], 17, 58, 0)
_GRAI = Scheme(HEADERS["grai-96"], 12, 44, 38)
_SGTIN = Scheme(HEADERS["sgtin-96"], 13, 44, 38)


@dataclass(frozen=True)
class Gsrn:
    """A service relation number; prefix and `reference` have 17 digits together."""

    company_prefix: str
    reference: str
    filter: int

    @property
    def key(self) -> str:
        """Return the 18 digits of AI (8018), including the check digit."""
        digits = self.company_prefix + self.reference
        return digits + check_digit(digits)


def masks(tag_class: TagClass) -> tuple[bytes, bytes]:
    """Return mask and value for the leftmost bytes of the EPC: a tag is in the class if `epc & mask == value`."""
    if tag_class.epc_prefix is not None:
        nibbles = tag_class.epc_prefix
        pad = len(nibbles) % 2 * "0"
        return bytes.fromhex("F" * len(nibbles) + pad), bytes.fromhex(nibbles + pad)
    if tag_class.scheme is None:
        raise ValueError("a tag class needs a scheme or an epc_prefix")
    header = HEADERS[tag_class.scheme]
    if tag_class.company_prefix is None:
        return b"\xff", bytes([header])
    partition, width = _partition(tag_class.company_prefix)
    fields = ((8, 0xFF, header), (3, 0, 0), (3, 7, partition), (width, (1 << width) - 1, int(tag_class.company_prefix)))
    bits = mask = value = 0
    for n, m, v in fields:
        bits, mask, value = bits + n, mask << n | m, value << n | v
    pad_bits = -bits % 8
    length = (bits + pad_bits) // 8
    return (mask << pad_bits).to_bytes(length, "big"), (value << pad_bits).to_bytes(length, "big")


def shape(tag_class: TagClass) -> tuple[bytes, bytes]:
    """Return mask and value for a complete EPC (62 bytes): those of `masks`, and zero bits required by the scheme.

    A GSRN-96 ends with 24 zero bits, and 96-bit schemes have no bits after the 96th.
    """
    mask, value = (bytearray(part.ljust(MAX_BYTES, b"\0")) for part in masks(tag_class))
    if tag_class.scheme is not None:
        start = _BITS // 8 - (3 if tag_class.scheme.startswith("gsrn") else 0)
        mask[start:] = b"\xff" * (MAX_BYTES - start)
    return bytes(mask), bytes(value)


def matches(epc: bytes, mask: bytes, value: bytes) -> bool:
    """True if an EPC matches a rule; a shorter EPC is padded with zeros."""
    padded = epc.ljust(len(mask), b"\0")
    return all(e & m == v for e, m, v in zip(padded, mask, value, strict=False))


def gsrn96(company_prefix: str, reference: int, filter: int = 0) -> bytes:
    """Encode a member's card (recipient of a service) in 12 bytes."""
    return _encode(_GSRN, company_prefix, reference, 0, filter)


def gsrnp96(company_prefix: str, reference: int, filter: int = 0) -> bytes:
    """Encode a staff badge (provider of a service) in 12 bytes."""
    return _encode(_GSRNP, company_prefix, reference, 0, filter)


def grai96(company_prefix: str, asset_type: int, serial: int, filter: int = 0) -> bytes:
    """Encode a cart or basket (returnable asset) in 12 bytes."""
    return _encode(_GRAI, company_prefix, asset_type, serial, filter)


def sgtin96(company_prefix: str, item: int, serial: int, filter: int = 1) -> bytes:
    """Encode merchandise in 12 bytes; `item`: indicator digit and item reference; filter 1: sold at a till."""
    return _encode(_SGTIN, company_prefix, item, serial, filter)


def read_gsrn96(epc: bytes) -> Gsrn:
    """Decode the number in a GSRN-96 or GSRNP-96; ValueError if it is not a valid encoding."""
    if len(epc) * 8 != _BITS:
        raise ValueError(f"a GSRN-96 has 12 bytes, not {len(epc)}")
    if epc[0] not in (_GSRN.header, _GSRNP.header):
        raise ValueError(f"header {epc[0]:02X} is not GSRN-96 (2D) or GSRNP-96 (2E)")
    number = int.from_bytes(epc, "big")
    if number & 0xFFFFFF:
        raise ValueError("the last 24 bits of a GSRN-96 are zero")
    partition = number >> 82 & 7
    if partition == 7:
        raise ValueError("partition 7 does not exist")
    digits = 12 - partition
    width = _PREFIX_BITS[digits][1]
    body = number >> 24 & (1 << _GSRN.bits) - 1
    rest = _GSRN.bits - width
    prefix, reference = body >> rest, body & (1 << rest) - 1
    if prefix >= 10**digits or reference >= 10 ** (_GSRN.digits - digits):
        raise ValueError("prefix or reference has more digits than its partition allows")
    return Gsrn(f"{prefix:0{digits}}", f"{reference:0{_GSRN.digits - digits}}", number >> 85 & 7)


def check_digit(digits: str) -> str:
    """Compute the GS1 check digit: weights 3, 1, 3 … from the right (GS1 General Specifications, 7.9)."""
    return str(-sum(int(d) * (3 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits))) % 10)


def _partition(company_prefix: str) -> tuple[int, int]:
    if len(company_prefix) not in _PREFIX_BITS or not (company_prefix.isascii() and company_prefix.isdigit()):
        raise ValueError(f"company prefix {company_prefix!r} is not 6 to 12 digits")
    return _PREFIX_BITS[len(company_prefix)]


def _encode(scheme: Scheme, company_prefix: str, reference: int, serial: int, filter: int) -> bytes:
    partition, width = _partition(company_prefix)
    digits = scheme.digits - len(company_prefix)
    if not 0 <= reference < 10**digits:
        raise ValueError(f"reference {reference} does not fit {digits} digits")
    if not 0 <= serial < 1 << scheme.serial_bits:
        raise ValueError(f"serial {serial} does not fit {scheme.serial_bits} bits")
    if not 0 <= filter < 8:
        raise ValueError(f"filter {filter} is not 0…7")
    number = scheme.header << 6 | filter << 3 | partition
    number = number << width | int(company_prefix)
    number = number << scheme.bits - width | reference
    number = number << scheme.serial_bits | serial
    return (number << _BITS - 14 - scheme.bits - scheme.serial_bits).to_bytes(_BITS // 8, "big")
