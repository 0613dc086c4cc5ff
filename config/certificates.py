"""Validation of certificates and keys in PEM files: validity period, format, matching key."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WARN_DAYS = 30
"""Days before expiry from which a warning is given."""
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(r"-----BEGIN (ENCRYPTED |[A-Z]+ )?PRIVATE KEY-----(\s*Proc-Type: 4,ENCRYPTED)?")
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0


class Unusable(ValueError):
    """A file that is not a usable certificate or key; the text gives the reason."""


@dataclass(frozen=True, order=True)
class Validity:
    """Validity period of a certificate, in UTC."""

    until: dt.datetime
    since: dt.datetime

    def days_left(self, now: dt.datetime) -> int:
        """Return the whole days until expiry; negative after it."""
        return (self.until - now) // dt.timedelta(days=1)


def in_days(days: int) -> str:
    """Say when something happens that is whole `days` ahead."""
    return "in less than a day" if days < 1 else f"in {days} {'day' if days == 1 else 'days'}"


def validity(der: bytes) -> Validity:
    """Return the validity of one certificate in DER (RFC 5280, 4.1). Raises Unusable.

    Certificate { tbs { [0] version?, serial, algorithm, issuer, validity { since, until }, … }, … }
    """
    try:
        (_, certificate), *_ = _fields(der)
        (_, tbs), *_ = _fields(certificate)
        fields = [field for field in _fields(tbs) if field[0] != _VERSION]
        since, until = (_time(tag, text) for tag, text in _fields(fields[3][1]))
    except (IndexError, ValueError) as error:
        raise Unusable("contains a certificate that can't be read") from error
    return Validity(until, since)


def read(path: Path) -> tuple[Validity, ...]:
    """Return the validity of all certificates of a PEM file, in its order. Raises Unusable and OSError."""
    content = path.read_bytes()
    if content[:1] == b"\x30" and b"-----BEGIN" not in content:
        how = "pkcs12 -nokeys" if path.suffix.lower() in (".p12", ".pfx") else "x509 -inform der"
        raise Unusable(f"is DER, not PEM: openssl {how} -in {path.name} -out {path.stem}.pem")
    text = content.decode("latin-1")
    found = [_decoded(body) for body in _PEM.findall(text)]
    if not found:
        if "-----BEGIN PKCS7" in text:
            raise Unusable(f"is PKCS #7, not PEM: openssl pkcs7 -print_certs -in {path.name} -out {path.stem}.pem")
        if "CERTIFICATE REQUEST-----" in text:
            raise Unusable("is the request for a certificate, not the certificate (PEM)")
        what = "contains a private key but no certificate" if _KEY.search(text) else "contains no certificate"
        raise Unusable("is empty" if not text.strip() else f"{what} (PEM)")
    return tuple(map(validity, found))


def check_pair(cert: Path, key: Path) -> None:
    """Check that the key is usable and matches the certificate. Raises Unusable and OSError."""
    text = key.read_bytes()
    found = _KEY.search(text.decode("latin-1"))
    if found is None:
        raise Unusable("is DER, not PEM" if text[:1] == b"\x30" else "contains no private key (PEM)")
    if found[1] == "ENCRYPTED " or found[2]:
        raise Unusable("is protected by a passphrase; expected: a key without one")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Unusable(f"is not the key of {cert}") from error
        raise Unusable(f"can't be used with {cert.name}: {error.reason or error}") from error


def _decoded(body: str) -> bytes:
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error as error:
        raise Unusable("contains a certificate that can't be read") from error


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element (X.690)."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            size, at = int.from_bytes(data[at : at + octets], "big"), at + octets
        if at + size > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + size]
        at += size


def _time(tag: int, text: bytes) -> dt.datetime:
    told = text.decode("ascii")
    if tag == _UTC_TIME:  # two-digit year: 1950 to 2049
        told = ("19" if told[:2] >= "50" else "20") + told
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return dt.datetime.strptime(told, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)
