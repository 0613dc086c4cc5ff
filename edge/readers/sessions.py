"""Run readers' sessions, restart one on demand, and record raw reads for a while on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from drivers import open_session
from drivers.read import Reads
from drivers.session import Contact, Gap, Link, Notice, ReaderStatus, Sink, Switchboard
from edge.readers.capture import CaptureFile
from edge.store.compose import Shop

CAPTURE_READS = 500_000
"""A capture ends after this many reads …"""
CAPTURE_BYTES = 64 * 1024 * 1024
"""… or this many bytes before compression."""
CAPTURES_KEPT = 3


class Readers:
    """Sink of the sessions, which passes everything on to `sink`; `run` runs one reader's session until cancelled."""

    def __init__(self, shop: Shop, sink: Sink, clock: Callable[[], int]) -> None:
        self._settings = {reader.id: reader for reader in shop.readers}
        self._via = {reader.id: reader.via for reader in shop.config.readers}
        self._sink = sink
        self._clock = clock
        self._sessions: dict[str, asyncio.Task[None]] = {}
        self._open: dict[str, object] = {}
        self._restarting: set[str] = set()
        self._shop = shop
        self._captured: list[tuple[str, Reads]] | None = None
        self._captured_reads = 0
        self._capture_of: str | None = None

    async def run(self, reader: str) -> None:
        """Run a reader's session; raises what it raises, after reporting the link as down."""
        settings = self._settings[reader]
        try:
            while True:
                session = open_session(settings, self, self._clock)
                self._open[reader] = session
                self._sessions[reader] = task = asyncio.create_task(session.run())
                await asyncio.wait([task])
                if reader not in self._restarting:
                    task.result()
                    raise RuntimeError(f"the session of reader {reader} ended by itself")
                self._restarting.discard(reader)
        except Exception as error:
            reason = f"unexpected error: {type(error).__name__}: {error}"
            self._sink.status(ReaderStatus(reader, Link.DOWN, reason, self._clock()))
            raise
        finally:
            self._open.pop(reader, None)
            if (last := self._sessions.pop(reader, None)) is not None:
                last.cancel()
                await asyncio.gather(last, return_exceptions=True)

    def restart(self, reader: str) -> None:
        """Restart a reader's session; ValueError for an unknown reader."""
        if reader not in self._settings:
            raise ValueError(f"no reader {reader!r}; there are {', '.join(sorted(self._settings)) or 'none'}")
        if (via := self._via[reader]) is not None and reader not in self._sessions:
            raise ValueError(f"reader {reader} is at {via}; restart that gateway instead")
        if reader in self._sessions:
            self._restarting.add(reader)
            self._sessions[reader].cancel()

    async def capture(self, folder: Path, seconds: int, reader: str | None) -> tuple[Path, int]:
        """Record reads as `tagtrail capture` does, with pseudonyms; returns the file and the number of reads. One
        capture at a time."""
        if reader is not None and reader not in self._settings:
            raise ValueError(f"no reader {reader!r}; there are {', '.join(sorted(self._settings)) or 'none'}")
        if self._captured is not None:
            raise ValueError("a capture is running already")
        self._captured, self._captured_reads, self._capture_of = [], 0, reader
        try:
            await asyncio.sleep(seconds)
            captured = self._captured
        finally:
            self._captured = None
        file = folder / f"capture-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.csv.gz"
        await asyncio.to_thread(self._write, file, captured)
        for old in sorted(folder.glob("capture-*.csv.gz"))[:-CAPTURES_KEPT]:
            old.unlink(missing_ok=True)
        return file, sum(len(batch) for _, batch in captured)

    def drop_captured(self) -> None:
        """Forget what has been recorded of a capture under way."""
        if self._captured:
            self._captured.clear()

    async def reads(self, reader: str, batch: Reads) -> None:
        """Pass on and record reads."""
        if self._captured is not None and self._capture_of in (None, reader) and self._captured_reads < CAPTURE_READS:
            self._captured.append((reader, batch.copy()))
            self._captured_reads += len(batch)
        await self._sink.reads(reader, batch)

    def status(self, status: ReaderStatus) -> None:
        """Pass on."""
        self._sink.status(status)

    def gap(self, gap: Gap) -> None:
        """Pass on."""
        self._sink.gap(gap)

    def notice(self, notice: Notice) -> None:
        """Pass on."""
        self._sink.notice(notice)

    def contact(self, contact: Contact) -> None:
        """Pass on."""
        self._sink.contact(contact)

    def switch(self, reader: str, port: int, high: bool) -> None:
        """Switch an output of a reader, now or once it is connected."""
        session = self._open.get(reader)
        if isinstance(session, Switchboard):
            session.switch(port, high)

    def _write(self, file: Path, captured: list[tuple[str, Reads]]) -> None:
        out = CaptureFile(file, self._shop, clear=False, max_bytes=CAPTURE_BYTES)
        try:
            for reader, batch in captured:
                out.add(reader, batch)
        finally:
            out.close()
