"""Backups: complete, verified, without secrets; and stores made from them, of which the CRM has everything once."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import io
import json
import secrets
import shlex
import sqlite3
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from brokers import MAKERS, MakeCrm, NatsBroker, Until, now_us
from gateways import Gateway

from config import StoreConfig
from config.check import load
from edge.access.users import Role, Users, users_path
from edge.backup import archive
from edge.backup.restore import restore
from edge.database.keys import tag_key_file
from edge.database.lock import hold
from edge.database.writer import Database
from edge.store.errors import Trouble
from edge.store.files import Erasure, backup_mark, beside, copies
from sync import outbox
from sync.mqtt import MqttSettings
from sync.publisher import Publisher
from sync.sending import Identity

PASSWORD = "correct horse battery"


@pytest.fixture
def config(gateway: Gateway) -> StoreConfig:
    """A store with a database, a user who is logged in, and a tag key."""
    gateway.configure()
    config = load(gateway.file)
    Database(config.database.path, store="s1", quota_mb=64).close()
    users = Users(users_path(config))
    users.put("chen", Role.MANAGER, PASSWORD)
    users.close()
    with closing(sqlite3.connect(users_path(config))) as conn:
        conn.execute("INSERT INTO failure VALUES ('mallory-7', 3, 1.0)")
        conn.commit()
    return config


def made(config: StoreConfig, gateway: Gateway) -> bytes:
    out = io.BytesIO()
    archive.write(config, gateway.file, "1", out)
    return out.getvalue()


def away(gateway: Gateway) -> None:
    """The gateway is replaced by a new one, with nothing but its store file."""
    for file in gateway.folder.glob("store.*"):
        if file != gateway.file:
            file.unlink()


def user_names(config: StoreConfig) -> list[str]:
    with closing(sqlite3.connect(users_path(config))) as conn:
        return [name for (name,) in conn.execute("SELECT name FROM user")]


def test_a_backup_has_the_store_but_no_secrets(config: StoreConfig, gateway: Gateway) -> None:
    key = tag_key_file(config.database.path).read_text().strip()
    text = gzip.decompress(made(config, gateway))
    assert key.encode() not in text
    assert bytes.fromhex(key) not in text
    assert b"mallory-7" not in text, "who failed to log in is of no use elsewhere"
    with tarfile.open(fileobj=io.BytesIO(text)) as tar:
        assert tar.getnames() == ["manifest.json", "store.toml", "database", "web"]
        assert {member.mode for member in tar} == {0o600}
        stored = tar.extractfile("store.toml")
        assert stored is not None
        assert stored.read() == gateway.file.read_bytes()
    assert not copies(config.database.path), "nothing is left beside the database"
    assert not [file for file, kind in beside(config.database.path) if kind and kind.what.startswith("part of")]


def test_a_new_machine_gets_it_all(config: StoreConfig, gateway: Gateway) -> None:
    backup = made(config, gateway)
    away(gateway)
    told = restore(config, io.BytesIO(backup), replace=False)
    assert (told.store, told.version) == ("s1", "1")
    assert user_names(config) == ["chen"]
    assert config.database.path.stat().st_mode & 0o077 == 0
    assert not [file for file in gateway.folder.iterdir() if "restoring" in file.name]
    Database(config.database.path, store="s1", quota_mb=64).close()


def test_what_is_there_is_replaced_only_if_told_so_and_kept_for_a_while(config: StoreConfig, gateway: Gateway) -> None:
    backup = made(config, gateway)
    database = Database(config.database.path, store="s1", quota_mb=64)
    database.write_now(lambda conn: conn.execute("INSERT INTO fact VALUES ('later', 'x')").fetchall())
    database.close()
    with pytest.raises(Trouble, match="give --replace"):
        restore(config, io.BytesIO(backup), replace=False)
    restore(config, io.BytesIO(backup), replace=True)
    with closing(sqlite3.connect(config.database.path)) as conn:
        assert not conn.execute("SELECT 1 FROM fact WHERE name = 'later'").fetchall()
    kept = config.database.path.with_name(f"{config.database.path.name}.replaced")
    with closing(sqlite3.connect(kept)) as conn:
        assert conn.execute("SELECT 1 FROM fact WHERE name = 'later'").fetchall()
    ((kind),) = [kind for file, kind in beside(config.database.path) if file == kept]
    assert kind is not None
    assert (kind.erasure, kind.keep_days) == (Erasure.DELETED, 7)


def test_nothing_is_changed_by_a_backup_that_does_not_fit(config: StoreConfig, gateway: Gateway) -> None:
    backup = made(config, gateway)
    before = config.database.path.read_bytes()
    whole = gzip.decompress(backup)
    changed = bytearray(whole)
    changed[whole.index(b"SQLite format 3") + 5000] ^= 1
    for bad, why in (
        (gzip.compress(bytes(changed)), "is not what was written|can't be read"),
        (backup[: len(backup) // 2], "can't be read|incomplete"),
        (b"", "can't be read|incomplete"),
        (b"hello" * 100, "can't be read"),
        (gzip.compress(whole.replace(b'"store": "s1"', b'"store": "s2"')), "of store 's2'"),
        (gzip.compress(whole.replace(b'"format": 1', b'"format": 9')), "that this release can read"),
    ):
        with pytest.raises(Trouble, match=why):
            restore(config, io.BytesIO(bad), replace=True)
    assert config.database.path.read_bytes() == before
    assert not [file for file in gateway.folder.iterdir() if "restoring" in file.name or "replaced" in file.name]


def test_a_name_with_a_path_in_it_is_refused(config: StoreConfig, gateway: Gateway) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        manifest = {"format": 1, "store": "s1", "version": "1", "made": "x", "files": {"../evil": [1, "0"]}}
        for name, content in (("manifest.json", json.dumps(manifest).encode()), ("../evil", b"x")):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    with pytest.raises(Trouble, match="that this release can read"):
        restore(config, io.BytesIO(out.getvalue()), replace=True)
    assert not (gateway.folder.parent / "evil").exists()


def test_not_while_the_service_runs(config: StoreConfig, gateway: Gateway) -> None:
    backup = made(config, gateway)
    with hold(config.database.path), pytest.raises(Trouble, match="stop it first"):
        restore(config, io.BytesIO(backup), replace=True)


def test_the_last_ones_are_kept(config: StoreConfig, gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    older = [folder / f"tagtrail-s1-2026010{n}T020000Z.tar.gz" for n in range(1, 6)]
    others = [folder / "tagtrail-s2-20260101T020000Z.tar.gz", folder / "notes.txt"]
    for file in (*older, *others):
        file.touch()
    new = archive.keep(config, gateway.file, "1", folder, number=3)
    assert set(folder.iterdir()) == {new, *older[-2:], *others}
    assert new.stat().st_mode & 0o077 == 0
    assert backup_mark(config.database.path).exists()


def test_it_can_be_encrypted_on_the_way(config: StoreConfig, gateway: Gateway, tmp_path: Path) -> None:
    turned = "import sys; sys.stdout.buffer.write(bytes(b ^ 90 for b in sys.stdin.buffer.read()))"
    through = shlex.join([sys.executable, "-c", turned])
    sealed = archive.keep(config, gateway.file, "1", tmp_path / "b", number=3, through=through)
    assert sealed.name.endswith(".tar.gz.sealed")
    with pytest.raises(Trouble):
        archive.read(io.BytesIO(sealed.read_bytes()), {})
    archive.read(io.BytesIO(bytes(b ^ 90 for b in sealed.read_bytes())), {})


@pytest.mark.parametrize("through", ["false", "true", "/no/such/program"])
def test_a_failing_encryption_leaves_no_backup(
    config: StoreConfig, gateway: Gateway, tmp_path: Path, through: str
) -> None:
    with pytest.raises(Trouble, match=through):
        archive.keep(config, gateway.file, "1", tmp_path / "b", number=3, through=through)
    assert not list((tmp_path / "b").iterdir())
    assert not backup_mark(config.database.path).exists()


def test_by_the_commands(config: StoreConfig, gateway: Gateway, tmp_path: Path) -> None:
    file = str(gateway.file)
    done = gateway.run("backup", "-c", file, "--to", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    refused = gateway.run("restore", done.stdout.strip(), "-c", file)
    assert refused.returncode == 1
    assert "give --replace" in refused.stderr
    away(gateway)
    restored = gateway.run("restore", done.stdout.strip(), "-c", file)
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.startswith("restored s1 as of ")
    assert user_names(config) == ["chen"]


@asynccontextmanager
async def online(config: StoreConfig, url: str) -> AsyncIterator[tuple[Database, Publisher]]:
    """A gateway's database and publisher."""
    database = Database(config.database.path, store="s1", quota_mb=64)
    identity = dataclasses.replace(Identity("s1", database.epoch, "0"), instance=secrets.token_hex(8))
    publisher = Publisher(MqttSettings.from_url(url, "tagtrail-s1"), identity, database, now_us)
    running = asyncio.create_task(publisher.run())
    try:
        yield database, publisher
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        database.close()


async def commit(database: Database, publisher: Publisher, n: int) -> None:
    await database.write(lambda conn: outbox.append(conn, "health", [MAKERS["health"](i) for i in range(n)]))
    publisher.wake("health")


async def pending(database: Database) -> int:
    return sum(depth.pending for depth in (await database.read(outbox.depth)).values())


@pytest.mark.parametrize("after", [30, 6000])
async def test_the_crm_has_everything_once(
    config: StoreConfig, gateway: Gateway, nats: NatsBroker, crm: MakeCrm, until: Until, after: int
) -> None:
    """A gateway dies with its disk after a backup, and another goes on from it, however much was sent meanwhile."""
    there = crm(nats.url)
    await there.start()
    await until(there.ready)
    async with online(config, nats.url) as (database, publisher):
        await commit(database, publisher, 50)
        await until(lambda: there.count() == 50)
        backup = await asyncio.to_thread(made, config, gateway)
        await commit(database, publisher, after)
        await until(lambda: there.count() == 50 + after)
    away(gateway)
    restore(config, io.BytesIO(backup), replace=False)
    async with online(config, nats.url) as (database, publisher):

        async def settled() -> bool:
            return await pending(database) == 0

        await commit(database, publisher, 20)
        await until(settled)
    assert there.count() == 50 + after + 20
    ended = await there.stop()
    assert ended["gaps"] == 0


def test_a_store_is_told_of_skipped_numbers(config: StoreConfig, gateway: Gateway) -> None:
    backup = made(config, gateway)
    away(gateway)
    restore(config, io.BytesIO(backup), replace=False)
    with closing(sqlite3.connect(config.database.path)) as conn:
        lost = conn.execute("SELECT class, first, last, reason FROM lost ORDER BY class").fetchall()
    reason = "numbers given before the database was taken back"
    skipped = outbox.SINCE_BACKUP + outbox.JUMP
    assert lost == [(class_, 1, skipped, reason) for class_ in range(4)]
