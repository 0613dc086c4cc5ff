"""What a service and its standby tell each other after the greeting, in frames as in edge.forwarding.records.

standby                                              service
Where: how far its copy of the log is          ──►
                                               ◄──   Resume, or Copy: a whole copy follows
Digests of the blocks that it has, if a Copy   ──►
                                               ◄──   Block: each one that is other; Side: files beside the database
                                               ◄──   Log: transactions, as they are committed
Have: what is on disk                          ──►
                                               ◄──   Beat, every second
Unable: why it can't keep the copy             ──►
HandOver                                       ──►   stops, and sends the rest
                                               ◄──   HandedOver
"""

from __future__ import annotations

import asyncio

import msgspec

from edge.forwarding import wire
from edge.forwarding.records import Malformed, frame

CHUNK_BYTES = 512 * 1024
"""A longer part of the log is sent in several messages."""


class Where(msgspec.Struct, tag="where"):
    """See edge.database.wal.Place."""

    header: bytes
    size: int
    sums: tuple[int, int]


class Resume(msgspec.Struct, tag="resume"):
    """The log goes on where the standby is."""


class Copy(msgspec.Struct, tag="copy"):
    """The database has so many bytes. Its blocks follow once the standby has said which it has."""

    size: int


class Digests(msgspec.Struct, tag="digests"):
    """Digests of blocks in order. `last`: there are no more."""

    digests: bytes
    last: bool


class Block(msgspec.Struct, tag="block"):
    number: int
    data: bytes


class Log(msgspec.Struct, tag="log"):
    """A part of the log. `begins`: from its header on; `number`: of the transactions up to its end, 0 if the part goes
    on in the next message."""

    begins: bool
    data: bytes
    number: int


class Side(msgspec.Struct, tag="side"):
    """A file beside the database, or that there is none. `more`: it goes on in the next message."""

    name: str
    data: bytes | None
    more: bool


class Beat(msgspec.Struct, tag="beat"):
    """A sign of life. `number`: of the last transaction; `stamp_us`: the sender's monotonic clock; `at_us`: its store
    time; `protected`: nothing leaves the store that the standby doesn't have."""

    number: int
    stamp_us: int
    at_us: int
    protected: bool


class Have(msgspec.Struct, tag="have"):
    """Everything up to a number is on disk. `stamp_us`: of the last Beat, in answer to which the standby promises not
    to take over for the time of a lease; 0: it doesn't, and is busy with what came before."""

    number: int
    stamp_us: int


class Unable(msgspec.Struct, tag="unable"):
    """The standby can't keep the copy, and ends the connection."""

    reason: str


class HandOver(msgspec.Struct, tag="hand_over"):
    """The standby wants to take over with this term."""

    term: int


class HandedOver(msgspec.Struct, tag="handed_over"):
    """The service has stopped, and everything has been sent up to this number."""

    number: int


class Ask(msgspec.Struct, tag="ask"):
    """To a witness: what is in the register; or, with a `value`, put it there in place of that of a revision."""

    revision: int
    value: bytes | None


class Found(msgspec.Struct, tag="found"):
    """What is in the register, and whether it was put there by the question."""

    revision: int
    value: bytes
    done: bool


Message = (
    Ask | Found | Where | Resume | Copy | Digests | Block | Log | Side | Beat | Have | Unable | HandOver | HandedOver
)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def framed(message: Message) -> bytes:
    """Return a message as a frame."""
    return frame(_encoder.encode(message))


async def receive(reader: asyncio.StreamReader) -> Message:
    """Return the next message of a peer that is not silent for long; TimeoutError, or as `wait_for`."""
    async with asyncio.timeout(wire.SILENT_S):
        return await wait_for(reader)


async def wait_for(reader: asyncio.StreamReader) -> Message:
    """Return the next message; Malformed, or EOFError and OSError if the peer is gone."""
    payload = await wire.receive(reader)
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"not a message between gateways: {error}") from error
