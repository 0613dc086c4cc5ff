"""Thousands of stores that connect at once and then stay, as bytes on sockets: a client library would be measured
instead of the broker."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from config import topics

FILTERS = ("down/ack/+", "state", "down/cmd/#", "down/directory/#", "down/config/#")
"""What a gateway subscribes to, at QoS 1."""
CONNECT, CONNACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x82, 0x90


@dataclass
class Storm:
    """What became of it: times are from the socket's opening to the subscription's acknowledgement."""

    seconds: float
    took_ms: list[float]
    failed: int


def packet(kind: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes((kind,)) + bytes(length) + body


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


async def received(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    size = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        size |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return kind, await reader.readexactly(size)


@contextlib.asynccontextmanager
async def storm(port: int, stores: int, at_once: int = 500, within_s: float = 120) -> AsyncIterator[Storm]:
    """Connect so many stores, `at_once` at a time, and keep them connected."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, stores + 1000)), hard))
    slots = asyncio.Semaphore(at_once)
    writers: list[asyncio.StreamWriter] = []
    result = Storm(0.0, [], 0)

    async def join(number: int) -> None:
        async with slots:
            began = time.monotonic()
            name = f"storm{number:05}"
            try:
                async with asyncio.timeout(within_s):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writers.append(writer)
                    writer.write(packet(CONNECT, text("MQTT") + bytes((4, 2)) + struct.pack(">H", 60) + text(name)))
                    kind, body = await received(reader)
                    assert (kind, body[1]) == (CONNACK, 0)
                    filters = b"".join(text(topics.topic(name, rest)) + b"\1" for rest in FILTERS)
                    writer.write(packet(SUBSCRIBE, b"\0\1" + filters))
                    while (await received(reader))[0] != SUBACK:
                        pass
                    result.took_ms.append((time.monotonic() - began) * 1000)
            except (OSError, TimeoutError, AssertionError, asyncio.IncompleteReadError):
                result.failed += 1

    began = time.monotonic()
    await asyncio.gather(*map(join, range(stores)))
    result.seconds = time.monotonic() - began
    try:
        yield result
    finally:
        for writer in writers:
            writer.close()
