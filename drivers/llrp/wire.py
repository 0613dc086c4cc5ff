"""TCP side of an LLRP connection: opening it, and a receive buffer that is decoded in place."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.links import HUNG_UP, LinkFailure, insecure, words
from drivers.session import Clock

DEFAULT_PORT = 5084
TLS_PORT = 5085


@dataclass(frozen=True)
class Address:
    """Address at which a reader listens."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> Address:
        """Parse host, host:port, [IPv6]:port or a bare IPv6 address; ValueError says what is valid."""
        match = re.fullmatch(r"\[(?P<v6>[^\[\]]+)\](?::(?P<p6>\d+))?|(?P<host>[^\s:\[\]]+)(?::(?P<port>\d+))?", text)
        if match:
            port = int(match["p6"] or match["port"] or default_port)
            if 1 <= port <= 65535:
                return cls(match["v6"] or match["host"], port)
        elif re.fullmatch(r"[0-9A-Fa-f:.%\w]*:[0-9A-Fa-f:.%\w]*:[0-9A-Fa-f:.%\w]*", text):
            return cls(text, default_port)
        raise ValueError(f"address {text!r} is not host, host:port or [IPv6]:port")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Wire(asyncio.BufferedProtocol):
    """Receives into `buffer[start:end]`; reading pauses after every arrival until `resume`, so that TCP slows down
    senders. While paused, data gathers in the kernel and arrives at once: a connection costs a few wake-ups a second
    however many messages it carries. All connections resume at the same moments, so that the loop serves 64 readers in
    one turn, and their reads form one batch.
    """

    FIRST_CAPACITY = 1 << 14
    """Enough for what a busy reader sends between two wake-ups; more would cost megabytes for 64 readers."""
    CAPACITY = 1 << 16
    """Size once the first was full: a reader delivers its backlog, or sends longer messages."""

    def __init__(self, clock: Clock, peer: str, *, hold: bool = False) -> None:
        """`hold`: receive nothing before `secure`."""
        self.peer = peer
        """Peer address as text for people."""
        self.buffer: NDArray[np.uint8] = np.zeros(self.FIRST_CAPACITY, np.uint8)
        self.start = self.end = 0
        self.received_us = 0
        """Store time of the last bytes received."""
        self.silent_since_s: float | None = None
        """Loop time of the last byte, or of the last resume; None while paused."""
        self.lost: str | None = None
        """Reason why the connection has ended; what arrived before is still in the buffer."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._need = 0
        self._filled = False
        self._hold = hold
        self._made = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._resuming: asyncio.TimerHandle | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.silent_since_s = self._loop.time()
        if self._hold:
            transport.pause_reading()
        self._made.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Move unused bytes to the front and return the free space behind them; grows for a longer message."""
        if self.start:
            left = self.end - self.start
            self.buffer[:left] = self.buffer[self.start : self.end].copy()
            self.start, self.end = 0, left
        need = max(self._need, self.CAPACITY) if self._filled else self._need
        if need > len(self.buffer):
            self.buffer = np.concatenate([self.buffer[: self.end], np.zeros(need - self.end, np.uint8)])
        return self.buffer.data[self.end :]

    def buffer_updated(self, nbytes: int) -> None:
        self.end += nbytes
        self._filled = self._filled or self.end == len(self.buffer)
        self.received_us = self._clock()
        assert self._transport is not None
        self._transport.pause_reading()
        self.silent_since_s = None
        self._arrived.set()

    def eof_received(self) -> None:
        self._lose("the reader closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self._lose(insecure(exc, self.peer))  # with TLS 1.3 it's only now that the other end tells
        else:
            self._lose(f"the connection broke: {words(exc)}" if exc else "the reader closed the connection")

    # What the connection calls

    async def arrival(self) -> None:
        """Wait for bytes, `nudge`, or the end of the connection (see `lost`)."""
        await self._arrived.wait()
        self._arrived.clear()

    def used(self, start: int, need: int) -> None:
        """Release the bytes before `start`; make room for a message of `need` bytes from there."""
        self.start, self._need = start, need

    def resume(self, step_s: float) -> None:
        """Resume receiving at the next multiple of `step_s` of the loop's time, the same for all wires, or now if 0."""
        if self._resuming:
            self._resuming.cancel()
        if step_s > 0:
            self._resuming = self._loop.call_at((self._loop.time() // step_s + 1) * step_s, self._resume)
        else:
            self._resume()

    def nudge(self) -> None:
        """Make `arrival` return once without bytes."""
        self._arrived.set()

    @property
    def caller(self) -> str:
        """Return the peer's address."""
        assert self._transport is not None
        return str((self._transport.get_extra_info("peername") or ["an unknown address"])[0])

    async def secure(self, tls: ssl.SSLContext) -> None:
        """Start TLS as server; ssl.SSLError if the handshake fails."""
        await self._made.wait()
        assert self._transport is not None
        try:
            secured = await self._loop.start_tls(self._transport, self, tls, server_side=True)
        except ssl.SSLError:
            raise
        except OSError as error:
            raise ssl.SSLError(error.errno or 0, HUNG_UP) from error
        self._transport = secured

    def certificate(self) -> bytes:
        """Return the peer's certificate in DER; empty without TLS."""
        assert self._transport is not None
        secure = self._transport.get_extra_info("ssl_object")
        return (secure.getpeercert(binary_form=True) or b"") if secure is not None else b""

    def send(self, message: bytes) -> None:
        """Send bytes; what can't be sent is lost with the connection, see `lost`."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(message)

    def drop(self, reason: str) -> None:
        """Abort the connection."""
        self._lose(reason)
        if self._resuming:
            self._resuming.cancel()
        if self._transport:
            self._transport.abort()

    def _resume(self) -> None:
        self._resuming = None
        if self._transport is not None and not self._transport.is_closing():
            self.silent_since_s = self._loop.time()
            self._transport.resume_reading()

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self._arrived.set()


async def connect(address: Address, clock: Clock, timeout_s: float, tls: ssl.SSLContext | None = None) -> Wire:
    """Open a connection over IPv4 or IPv6; LinkFailure with a sentence, ssl.SSLError if the handshake fails."""
    reached = False

    def wire_there() -> Wire:
        nonlocal reached
        reached = tls is not None  # from here on it is TLS that fails
        return Wire(clock, str(address))

    try:
        async with asyncio.timeout(timeout_s):
            _, wire = await asyncio.get_running_loop().create_connection(
                wire_there, address.host, address.port, happy_eyeballs_delay=0.25, ssl=tls
            )
    except TimeoutError:
        if reached:
            raise ssl.SSLError(errno.ETIMEDOUT, f"no answer within {timeout_s:g} s") from None
        raise LinkFailure(f"no answer from {address} within {timeout_s:g} s: is it switched on and wired?") from None
    except socket.gaierror as error:
        raise LinkFailure(f"the name {address.host} was not found ({error.strerror})") from error
    except ssl.SSLError:
        raise
    except OSError as error:
        if reached:
            raise ssl.SSLError(error.errno or errno.ECONNRESET, HUNG_UP) from error
        raise LinkFailure(_why_not(address, error)) from error
    return wire


def _why_not(address: Address, error: OSError) -> str:
    # Several addresses that all failed come as one error with no number, only their texts.
    found = re.search(r"\[Errno (\d+)\]", str(error))
    number = error.errno or (int(found[1]) if found else 0)
    if number == errno.ECONNREFUSED:
        return f"{address} refused the connection: is LLRP switched on, is the port right?"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return f"there is no route to {address}: check cable, VLAN and the gateway's address"
    return f"{address} can't be reached: {words(error)}"
