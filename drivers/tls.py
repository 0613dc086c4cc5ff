"""TLS with readers (port 5085): pinned or CA-signed certificates, and a client certificate if the reader asks for
one."""

from __future__ import annotations

import ssl
from hashlib import sha256

from drivers.links import LinkFailure, insecure
from drivers.session import Tls

_CIPHERS = "ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:RSA+AES:!aNULL:!eNULL:@SECLEVEL=1"
"""Python's defaults, plus RSA key exchange with SHA-1 and keys of 1024 bits: some readers have nothing newer."""


def context(tls: Tls) -> ssl.SSLContext:
    """Create the context for connections to one reader; LinkFailure if a file can't be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    if tls.ca is None:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE  # the pin is checked instead, by `check_pin`
    try:
        if tls.ca is not None:
            made.load_verify_locations(tls.ca)
        if tls.cert is not None:
            made.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        which = "ca" if tls.cert is None else "ca, cert or key"
        raise LinkFailure(f"{which} of the reader can't be used: {error.strerror or error}") from error
    return made


def listening(tls: Tls) -> ssl.SSLContext:
    """Create the context for readers that connect to us; with `ca` they need a certificate. LinkFailure if a file can't
    be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    assert tls.cert is not None
    try:
        made.load_cert_chain(tls.cert, tls.key)
        if tls.ca is not None:
            made.load_verify_locations(tls.ca)
            made.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise LinkFailure(f"cert, key or ca of the reader can't be used: {error.strerror or error}") from error
    return made


def check_pin(pin: str, certificate: bytes, peer: str) -> None:
    """Raise LinkFailure unless the certificate (DER) has that SHA-256 fingerprint."""
    found = sha256(certificate).hexdigest().upper()
    if found != pin:
        raise LinkFailure(other_pin(found, peer))


def other_pin(found: str, peer: str) -> str:
    """Return the LinkFailure for a certificate whose fingerprint is not the pinned one."""
    return (
        f"the certificate of {peer} has the fingerprint {found}, not the pinned one: was the reader replaced or "
        "reset, or does someone pose as it?"
    )


def hung_up(peer: str, why: str) -> str:
    """Return the LinkFailure for a connection that the other end gives up after the handshake: with TLS 1.3 it turns a
    client away only then, and some do it without a word."""
    return (
        f"{peer} hung up as soon as the connection was secure ({why}): does it want a certificate of the gateway, or "
        "another one?"
    )


def why_refused(error: ssl.SSLError, peer: str) -> str:
    """Describe a failed handshake in a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {peer} is not accepted: {error.verify_message}"
    return insecure(error, peer)
