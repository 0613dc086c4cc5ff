"""A directory of a million members: how long it takes to apply, what a greeting waits, what a look-up costs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from headquarters import directory_file

from edge.crm.directory import MemberDirectory
from edge.database.writer import Database
from edge.store.pseudonyms import Pseudonyms, look_up
from sync.down import DirectoryFile

MEMBERS = 1_000_000


@pytest.mark.benchmark_suite
async def test_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str], benchmark: Any) -> None:

    database = Database(tmp_path / "store.db", store="s1", quota_mb=2048)
    hashes = Pseudonyms(database.tag_key)
    rows = [f"{n:024x},M{n:07},{'ABC'[n % 3]},{int(n % 10 > 0)},," for n in range(MEMBERS)]
    random.Random(1).shuffle(rows)
    entry, packed = directory_file(rows, 1)
    del rows
    file = DirectoryFile.model_validate(entry)
    reports: list[bytes] = []

    async def nothing() -> None:
        pass

    members = MemberDirectory(
        database, lambda: 1, lambda rest, message, _: reports.append(message), nothing, lambda _: None
    )
    part = tmp_path / "store.db.part"
    part.write_bytes(packed)
    waits_ms: list[float] = []

    async def greet() -> None:
        while True:
            began = time.perf_counter()
            await database.read(lambda conn: look_up(conn, hashes.member(b"\0" * 12, 96)))
            waits_ms.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.01)

    greeting = asyncio.create_task(greet())
    began, busy_from_s = time.perf_counter(), cpu_s()
    await members._apply(part, file, 2**60, {})
    apply_s = time.perf_counter() - began
    busy_s = cpu_s() - busy_from_s
    greeting.cancel()

    def look(conn: sqlite3.Connection) -> float:
        tags = [hashes.member(n.to_bytes(12, "big"), 96) for n in random.Random(2).sample(range(MEMBERS), 10_000)]
        start = time.perf_counter()
        assert all(look_up(conn, tag) is not None for tag in tags)
        return (time.perf_counter() - start) / len(tags) * 1e6

    look_up_us = await database.read(look)
    count = await database.read(lambda conn: conn.execute("SELECT count(*) FROM directory").fetchone()[0])
    database.close()
    waits_ms.sort()
    p99 = waits_ms[int(len(waits_ms) * 0.99)]
    size_mb = (tmp_path / "store.db").stat().st_size / 1e6
    with capsys.disabled():
        print(
            f"\ndirectory: {count:,} members, {len(packed) / 1e6:.1f} MB packed, applied in {apply_s:.1f} s "
            f"({busy_s:.1f} s of CPU), {size_mb:.0f} MB; look-up {look_up_us:.1f} µs; "
            f"meanwhile look-ups waited p99 {p99:.0f} ms, "
            f"worst {waits_ms[-1]:.0f} ms"
        )
    benchmark.extra_info.update(
        apply_s=round(apply_s, 1), apply_cpu_s=round(busy_s, 1), look_up_us=round(look_up_us, 1), wait_p99_ms=round(p99)
    )
    benchmark.pedantic(lambda: None)
    assert count == MEMBERS
    assert hashlib.sha256(packed).hexdigest() == entry["sha256"]


def cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
