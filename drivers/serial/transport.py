"""Transports of serial readers: a tty, or a serial server at tcp://host:port."""

from __future__ import annotations

import asyncio
import errno
import socket
import termios
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import serial
import serial_asyncio_fast

OPEN_TIMEOUT_S = 5.0
PIECE_BYTES = 1024
"""Bytes processed in one turn of the event loop. Garbage in which every byte may begin a frame costs some 3 ms."""
_LIMIT = 1 << 16


class TransportError(OSError):
    """The line can't be opened or has failed; the text is a sentence for store IT."""


@dataclass
class Line:
    """Open line. Reading and writing raise TransportError once it has failed."""

    address: str
    tty: bool
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def read(self, timeout_s: float) -> bytes:
        """Return what has arrived, at least one byte; TimeoutError after `timeout_s` of silence. Yields to other tasks
        first: a flooding line always has something to read.
        """
        try:
            async with asyncio.timeout(timeout_s) as silence:
                chunk = await self._reader.read(PIECE_BYTES)
        except OSError as error:
            if silence.expired():
                raise
            raise self._broken(error) from error  # among them TCP's own time-out, which is a TimeoutError too
        if not chunk:
            raise TransportError(f"{self.address} was closed by the other end")
        await asyncio.sleep(0)
        return chunk

    async def write(self, frame: bytes) -> None:
        """Send one frame."""
        try:
            self._writer.write(frame)
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._writer.drain()
        except OSError as error:
            raise self._broken(error) from error

    def set_baud(self, baud: int) -> None:
        """Change the speed of a tty at once; a serial server has its own setting."""
        if self.tty:
            try:
                self._writer.transport.get_extra_info("serial").baudrate = baud
            except (OSError, termios.error, AttributeError) as error:  # a broken transport has no port any more
                raise self._broken(error) from error

    async def close(self) -> None:
        """Close the line; bytes not yet sent are dropped."""
        transport = self._writer.transport
        if not transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._writer.wait_closed()

    def _broken(self, error: Exception) -> TransportError:
        return TransportError(f"{self.address} was unplugged or has failed ({error or type(error).__name__})")


async def open_line(address: str, baud: int = 115200) -> Line:
    """Open `address`, a device path or tcp://host:port; TransportError says what to do."""
    if address.startswith("tcp://"):
        return await _open_tcp(address)
    if address.startswith("/"):
        return await _open_tty(address, baud)
    raise TransportError(f"address {address!r} is neither a device path such as /dev/rfid/gate-1 nor tcp://host:port")


async def _open_tty(path: str, baud: int) -> Line:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            # No software flow control: XON (0x11) occurs in frames. Exclusive: two readers of a port share its bytes.
            loop = asyncio.get_running_loop()
            opened = partial(serial.Serial, path, baud, exclusive=True, xonxoff=False)
            port = await loop.run_in_executor(None, opened)
            reader = asyncio.StreamReader(_LIMIT, loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
            writer = asyncio.StreamWriter(_Tty(loop, protocol, port), protocol, reader, loop)
    except TimeoutError as error:
        raise TransportError(f"{path} did not open within {OPEN_TIMEOUT_S:g} s") from error
    except (OSError, ValueError, termios.error) as error:
        raise TransportError(_why_tty(path, error)) from error
    return Line(path, True, reader, writer)


class _Tty(serial_asyncio_fast.SerialTransport):
    """tty whose loss is reported once, by an exception where it is used: the loop logs no traceback."""

    _gone = False

    def _fatal_error(self, exc: BaseException, message: str = "") -> None:
        self._abort(exc)

    async def _call_connection_lost(self, exc: Exception | None, *, flush: bool) -> None:
        if not self._gone:
            self._gone = True
            await super()._call_connection_lost(exc, flush=flush and exc is None)


def _why_tty(path: str, error: Exception) -> str:
    """Return why a tty couldn't be opened: pyserial has the reason in its text, and `errno` only sometimes."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"{path} does not exist: plug the reader in, or correct the address or the udev rule"
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission to open {path}: the service's user must be in group dialout"
    if number in (errno.EBUSY, errno.EAGAIN):
        return f"{path} is in use by another program"
    if isinstance(error, serial.SerialException) and "configure" in str(error):
        return f"{path} is not a serial port"
    return f"{path} cannot be opened ({error})"


async def _open_tcp(address: str) -> Line:
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise TransportError(f"address {address!r} is wrong ({error}); write tcp://host:port") from error
    if not host or not port:
        raise TransportError(f"address {address!r} lacks a host or a port; write tcp://host:port")
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, limit=_LIMIT)
    except TimeoutError as error:
        raise TransportError(f"{address} did not answer within {OPEN_TIMEOUT_S:g} s") from error
    except ConnectionRefusedError as error:
        raise TransportError(f"{address} refused the connection: is that the serial server's port?") from error
    except socket.gaierror as error:
        raise TransportError(f"host {host} of {address} is unknown") from error
    except OSError as error:
        raise TransportError(f"{address} cannot be reached ({error})") from error
    return Line(address, False, reader, writer)
