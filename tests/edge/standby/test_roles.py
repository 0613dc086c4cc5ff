"""What a gateway is by its files, and how a former database is put away, also after a power cut in the middle."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from gateways import Gateway
from migrated import begin_migrated
from pairs import SECOND, pair_of
from rigs import T0, HandClock, shop_of

from edge.service.standby import StandbyService
from edge.standby import roles
from edge.standby.beside import Beside
from edge.standby.mirror import Mirror, copy_of
from edge.store.errors import Trouble
from edge.store.files import replaced


def test_a_gateway_that_has_no_address_yet_is_not_taken_for_the_other(gateway: Gateway) -> None:
    """After a boot the network may come later than the service."""
    parts = pair_of(gateway, address="198.51.100.2:8790")
    parts["forwarding"]["address"] = "198.51.100.1:8790"
    config = shop_of(gateway, **parts).config
    assert roles.gateway_of(config, None).other == "198.51.100.2:8790"
    assert roles.gateway_of(config, SECOND).other == "198.51.100.1:8790"
    parts["forwarding"]["address"] = "127.0.0.1:8790"
    config = shop_of(gateway, **parts).config
    assert roles.gateway_of(config, None).name == "127.0.0.1:8790"
    with pytest.raises(Trouble, match=f"is this the other gateway \\(no --as {SECOND}\\)"):
        roles.gateway_of(config, SECOND)


def files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_a_former_database_is_kept_however_often_it_is_put_away(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    kept = replaced(database).name
    for name in (kept, f"{kept}-wal", f"{kept}-shm"):
        (tmp_path / name).write_text("of a week ago")
    for name in ("store.db", "store.db-wal"):
        (tmp_path / name).write_text("former")
    roles.keep_aside(database)
    expected = {kept: "former", f"{kept}-wal": "former"}
    assert files(tmp_path) == expected
    roles.keep_aside(database)  # a power cut came before the next step
    assert files(tmp_path) == expected
    (tmp_path / f"{kept}-wal").rename(tmp_path / "store.db-wal")  # or between the two
    roles.keep_aside(database)
    assert files(tmp_path) == expected


def test_a_copy_that_a_newer_release_has_written_is_told_before_it_is_needed(gateway: Gateway) -> None:
    database = gateway.database
    begin_migrated(database)
    database.rename(copy_of(database))
    mirror = Mirror(database)
    assert roles.fitness(mirror).unfit == ""
    with closing(sqlite3.connect(mirror.path, isolation_level=None)) as conn:
        conn.execute("UPDATE _sqlite_migrations SET name = '9999_later' WHERE rowid = 1")
    assert "written by a newer Tagtrail (it has 9999_later)" in roles.fitness(mirror).unfit
    mirror.path.write_bytes(b"SQLite format 3" + bytes(5000))
    assert "the copy can't be read" in roles.fitness(mirror).unfit


def test_what_is_kept_of_a_former_service_goes_when_its_time_is_over_or_somebody_is_erased(gateway: Gateway) -> None:
    config = shop_of(gateway, **pair_of(gateway)).config
    database, kept = gateway.database, replaced(gateway.database)
    web = replaced(gateway.folder / "store.web.db")

    def retire() -> None:
        database.write_text("of long ago")
        os.utime(database, (1e9, 1e9))
        roles.keep_aside(database)
        web.write_text("users")

    retire()
    service = StandbyService(config, SECOND, HandClock(time=[T0]))
    asyncio.run(service._tidy())
    assert kept.exists(), "a week from now on"
    os.utime(kept, (1e9, 1e9))
    asyncio.run(service._tidy())
    assert not kept.exists()
    retire()
    beside = Beside(config)
    gateway.database.with_name("store.db.erased").write_bytes(b"{}")
    beside.put(".erased", b"{}")
    assert kept.exists()
    beside.put(".erased", b'{"one": "more"}')
    assert not kept.exists()
    assert not web.exists()
