"""The page's own file, damaged or another program's: moved aside, and nobody gets in because of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pages
import pytest
from gateways import Gateway
from shopdays import DATE, store_values

from config import StoreConfig
from edge.access import verdicts
from edge.access.page_file import prove
from edge.access.users import Role, Users, users_path
from edge.database.writer import Database
from edge.store.errors import Trouble

PASSWORD = "correct horse battery"
cheap_passwords = pages.cheap_passwords


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig.model_validate(store_values(tmp_path))


@pytest.fixture
def file(config: StoreConfig) -> Path:
    """With a user, a long audit log and a verdict in it."""
    path = users_path(config)
    users = Users(path)
    users.put("li", Role.MANAGER, PASSWORD)
    users.close()
    with closing(sqlite3.connect(path)) as conn, conn:
        line = (
            "INSERT INTO audit (at_s, name, role, address, action, object) VALUES (0, 'li', 'manager', '', 'look', ?)"
        )
        conn.executemany(line, [(f"{number:0200}",) for number in range(400)])
    verdicts.say(config, DATE, b"tag", True)
    return path


def statement(sql: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        path.unlink()
        with closing(sqlite3.connect(path)) as conn, conn:
            conn.execute(sql)

    return run


def main_database(path: Path) -> None:
    Database(path.with_name("other.db"), store="s2", quota_mb=16).close()
    shutil.move(path.with_name("other.db"), path)


def middle_overwritten(path: Path) -> None:
    with path.open("r+b") as out:
        out.seek(8192)
        out.write(os.urandom(20_000))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "garbage": lambda path: path.write_bytes(os.urandom(24_576)),
    "cut": lambda path: os.truncate(path, 9000),
    "middle": middle_overwritten,
    "text": lambda path: path.write_text("users = []\n" * 100),
    "another program's": statement("CREATE TABLE bookmark (url TEXT)"),
    "other columns": statement("CREATE TABLE user (id INTEGER, mail TEXT)"),
    "the store's database": main_database,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_it_is_moved_aside_and_users_are_set_anew(
    file: Path, config: StoreConfig, damage: Callable[[Path], Any]
) -> None:
    damage(file)
    with pytest.raises(Trouble, match="Create the users again"):
        prove(file)
    assert not file.exists()
    assert file.with_name(f"{file.name}.corrupt-1").exists()
    users = Users(file)
    assert (users.anyone(), users.ever()) == (False, True)
    assert verdicts.verdicts(config) == ()
    users.put("wang", Role.IT, PASSWORD)
    prove(file)
    assert [user.name for user in users.users()] == ["wang"]
    users.close()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_whoever_comes_upon_it_moves_it_aside(file: Path, config: StoreConfig, damage: Callable[[Path], Any]) -> None:
    damage(file)
    users = Users(file)

    def look() -> None:
        users.anyone()
        users.programs()
        users.audit(1000)
        verdicts.stamps(config)

    with pytest.raises(Trouble, match="Create the users again"):
        look()
    assert not file.exists()
    assert not users.anyone()
    assert users.ever()


def test_a_good_file_stays_and_one_that_is_locked_too(file: Path) -> None:
    prove(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        users = Users(file)
        users._conn = sqlite3.connect(file, timeout=0, check_same_thread=False)
        with pytest.raises(Trouble, match="locked"):
            users.anyone()
    assert file.exists()


def test_no_file_is_no_trouble(tmp_path: Path) -> None:
    prove(tmp_path / "store.web.db")
    assert not Users(tmp_path / "store.web.db").ever()


def test_the_last_two_are_kept(file: Path) -> None:
    for _ in range(4):
        file.write_bytes(os.urandom(5000))
        with pytest.raises(Trouble):
            prove(file)
    assert sorted(one.name[-1] for one in file.parent.glob("*.corrupt-*")) == ["3", "4"]


async def test_a_service_whose_users_file_is_damaged_serves(gateway: Gateway) -> None:
    gateway.configure()
    file = gateway.folder / "store.web.db"
    file.write_bytes(os.urandom(24_576))
    gateway.start()
    state = await gateway.until(lambda s: s["page"] is not None)
    assert "Create the users again" in gateway.log()
    listed = gateway.run("users", "list", "-c", str(gateway.file))
    assert (listed.returncode, listed.stdout) == (0, "")
    # And while it runs.
    file.write_bytes(os.urandom(24_576))
    gateway.run("users", "list", "-c", str(gateway.file))
    assert (gateway.folder / "store.web.db.corrupt-2").exists()
    assert (await gateway.live() or {}).get("pid") == state["pid"]
    assert gateway.end() == 0, gateway.log()
