"""How gateways of a store greet each other, over TCP or TLS, in frames as in edge.forwarding.records.

    service                                          forwarder
    Challenge: version, store, term, nonce    ──►
                                              ◄──    Hello: version, role, id, term, nonce, proof that it has the token
    Welcome: proof, what it has already       ──►                      … or Refused, and why
                                              ◄──    records, and Now every second without any
    Ack: what is committed, every second      ──►

The token itself is never sent. Both proofs are HMAC-SHA256 with it over both nonces and the term, each with its own
side's name. Terms tell an old service from the one that has taken over: the highest counts (edge.database.terms).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from drivers.links import LinkFailure
from edge.forwarding.records import HEADER, Malformed, checked, checked_length, frame
from edge.store.errors import Trouble

VERSION = 2
NONCE_BYTES = 32
TOKEN_BYTES_MIN = 16
SILENT_S = 6.0
"""A peer that has said nothing for so long is gone."""
EVERY_S = 1.0
GREETING_S = 10.0


Role = Literal["forwarder", "standby", "peer", "holder"]
"""Who calls: a forwarder; the standby, for a copy; a service, to learn whether another one runs; who wants a lease."""


class Challenge(msgspec.Struct, tag="challenge"):
    """`term`: of this service."""

    version: int
    store: str
    term: int
    nonce: bytes


class Hello(msgspec.Struct, tag="hello"):
    """`term`: the highest that the caller has seen."""

    version: int
    role: Role
    id: str
    term: int
    nonce: bytes
    proof: bytes


class Welcome(msgspec.Struct, tag="welcome"):
    """The last record that the service has taken; none if `life` is empty."""

    proof: bytes
    at_us: int
    life: str
    seq: int


class Refused(msgspec.Struct, tag="refused"):
    reason: str


class Ack(msgspec.Struct, tag="ack"):
    """Everything up to this record is committed; nothing yet if `life` is empty. `at_us`: the service's store time."""

    at_us: int
    life: str
    seq: int


Greeting = Challenge | Hello | Welcome | Refused | Ack
G = TypeVar("G")
_decoder: msgspec.msgpack.Decoder[Greeting] = msgspec.msgpack.Decoder(Greeting)


def framed(greeting: Greeting) -> bytes:
    """Return a greeting as a frame."""
    return frame(msgspec.msgpack.encode(greeting))


async def receive(reader: asyncio.StreamReader) -> bytes:
    """Return the payload of the next frame; Malformed, or EOFError and OSError if the peer is gone."""
    length, crc = checked_length(await reader.readexactly(HEADER.size))
    return checked(await reader.readexactly(length), crc)


async def expect(reader: asyncio.StreamReader, kind: type[G]) -> G:
    """Return the next greeting; Malformed if it is of another kind, LinkFailure if the peer refuses."""
    try:
        greeting = _decoder.decode(await receive(reader))
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"not a greeting: {error}") from error
    if isinstance(greeting, Refused):
        raise LinkFailure(greeting.reason[:200])
    if not isinstance(greeting, kind):
        raise Malformed(f"{type(greeting).__name__} instead of {kind.__name__}")
    return greeting


def proof(token: bytes, side: str, store: str, id_: str, term: int, ours: bytes, theirs: bytes) -> bytes:
    """Return the proof of one side: its role and term. `ours`: the service's nonce, `theirs`: the caller's."""
    said = b"\0".join((side.encode(), store.encode(), id_.encode(), str(term).encode(), ours, theirs))
    return hmac.digest(token, said, "sha256")


@dataclass(frozen=True)
class Greeted:
    """A caller's greeting of a port with this store and term. `nonce`: of the port."""

    hello: Hello
    store: str
    term: int
    nonce: bytes

    def proven(self, token: bytes | None) -> bool:
        """Return whether the caller has a token. For None it takes as long, and is False."""
        hello = self.hello
        expected = proof(token or self.nonce, hello.role, self.store, hello.id, hello.term, self.nonce, hello.nonce)
        return hmac.compare_digest(expected, hello.proof) and token is not None

    def welcome(self, token: bytes, at_us: int, life: str = "", seq: int = 0) -> bytes:
        """Return the frame that proves to the caller that the port has the token, too."""
        ours = proof(token, "service", self.store, self.hello.id, self.term, self.nonce, self.hello.nonce)
        return framed(Welcome(ours, at_us, life, seq))


async def challenged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, store: str, term: int) -> Greeted:
    """Challenge a caller, and return its greeting. Raises as `expect` does."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    writer.write(framed(Challenge(VERSION, store, term, nonce)))
    return Greeted(await expect(reader, Hello), store, term, nonce)


def token(file: Path) -> bytes:
    """Return the token in a file; Trouble if there is none."""
    try:
        read = file.read_bytes().strip()
    except OSError as error:
        raise Trouble(f"can't read the token {file}: {error.strerror}") from error
    if len(read) < TOKEN_BYTES_MIN:
        raise Trouble(f"the token in {file} is too short; make one with: openssl rand -hex 32 > {file}")
    return read


def listening_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the service's TLS context; None without a certificate. Trouble if a file can't be used."""
    if cert is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise Trouble(f"cert or key of [forwarding] can't be used: {error.strerror or error}") from error
    return made


def calling_context(ca: Path | None) -> ssl.SSLContext | None:
    """Return a caller's TLS context; None without a CA. Trouble if the file can't be used."""
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise Trouble(f"ca of [forwarding] can't be used: {error.strerror or error}") from error


def host_port(address: str) -> tuple[str, int]:
    """Split host:port; an IPv6 address stands in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
