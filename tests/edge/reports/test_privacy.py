"""What a member may ask to see, and the proof that nothing is older than it may be."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import tomli_w
from erasing import MEMBER, OTHER, TAG, erase, fill
from gateways import STORE

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.database.writer import Database
from edge.reports.retention import GRACE_DAYS, lines
from edge.reports.subject import subject
from edge.store.files import DAY_S, KINDS

NOW_S = time.time()
NOW_US = round(NOW_S * 1e6)
DAY_US = 86_400_000_000
ASKED = ("directory", "in_the_store_since", "visits", "journeys", "cues", "told_to_the_crm")


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig.model_validate(STORE | {"database": {"path": str(tmp_path / "store.db")}})


@pytest.fixture
def database(config: StoreConfig) -> Iterator[Database]:
    database = Database(config.database.path, store="s1", quota_mb=64)
    yield database
    database.close()


def file_of(config: StoreConfig) -> str:
    file = config.database.path.parent / "store.toml"
    file.write_text(tomli_w.dumps(STORE | {"database": {"path": str(config.database.path)}}))
    return str(file)


def test_a_member_gets_all_that_is_stored_and_nothing_of_others(config: StoreConfig, database: Database) -> None:
    database.write_now(fill)
    users = Users(users_path(config))
    users.put("li", Role.MANAGER, "a-long-password")
    users.record("li", Role.MANAGER, "127.0.0.1", "looked at a member", f"#{users.digest(MEMBER)}")
    users.record("li", Role.MANAGER, "127.0.0.1", "looked at a member", f"#{users.digest(OTHER)}")
    users.close()
    told = subject(config, MEMBER, NOW_US)
    assert {name: len(told[name]) for name in ASKED} == dict.fromkeys(ASKED, 1) | {"told_to_the_crm": 3}
    assert told["cards"] == [TAG.hex()]
    assert told["visits"][0]["zone"] == "shoes"
    assert told["visits"][0]["enter"].startswith("1970-01-01T08:00:00"), "in the store's time"
    assert [look["action"] for look in told["looks"]] == ["looked at a member"]
    assert told["kept_days"]
    assert all(event["event"]["member"] == MEMBER for event in told["told_to_the_crm"])
    text = json.dumps(told)
    assert OTHER not in text
    assert bytes(reversed(TAG)).hex() not in text


async def test_who_was_erased_or_is_unknown_gets_empty_lists(config: StoreConfig, database: Database) -> None:
    await database.write(fill)
    await erase(database, config, MEMBER)
    for member in (MEMBER, "nobody"):
        told = subject(config, member, NOW_US)
        assert not any(told[name] for name in (*ASKED, "cards", "looks", "verdicts"))


def test_the_command_writes_a_file_for_its_owner_and_a_line_in_the_audit_log(
    config: StoreConfig, database: Database
) -> None:
    database.write_now(fill)
    users = Users(users_path(config))
    users.put("it", Role.IT, "a-long-password")
    out = config.database.path.parent / "answer.json"
    done = forked.run("subject", MEMBER, "--config", file_of(config), "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o077 == 0
    assert json.loads(out.read_text())["member"] == MEMBER
    assert users.audit()[0].action == "gave out a member's data"
    assert MEMBER not in "".join(line.object for line in users.audit())
    users.close()
    assert json.loads(forked.run("subject", "nobody", "--config", file_of(config)).stdout)["visits"] == []


def told(config: StoreConfig) -> dict[str, tuple[float | None, bool]]:
    return {line.what: (line.oldest_days, line.ok) for line in lines(config, NOW_US, NOW_S)}


@pytest.mark.parametrize(
    ("what", "sql", "keep_days"),
    [
        ("visits", "INSERT INTO visit VALUES (NULL, x'01', 1, NULL, 'shoes', {us}, {us}, {us}, 1, 0, 1)", 125),
        ("journeys", "INSERT INTO journey VALUES (NULL, x'01', 1, NULL, {us}, {us}, 0, '[]')", 125),
        ("windows", "INSERT INTO aggregate VALUES ({us}, 'shoes', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, 1, x'')", 400),
        (
            "passages at doors",
            "INSERT INTO door (window_us, reader, port, zone, passages, covered_us)"
            " VALUES ({us}, 'r1', 1, 'shoes', 1, 9)",
            400,
        ),
        ("keys of pseudonyms", "INSERT OR REPLACE INTO day_key VALUES (date({us} / 1000000, 'unixepoch'), x'00')", 3),
    ],
)
def test_rows_that_are_too_old_are_told(
    config: StoreConfig, database: Database, what: str, sql: str, keep_days: int
) -> None:
    (before, ok) = told(config)[what]
    assert (before, ok) == (None, True)
    old_us = NOW_US - round((keep_days + GRACE_DAYS + 2) * DAY_US)
    times_us = [NOW_US - 2 * DAY_US, NOW_US - 3600_000_000, old_us]

    def insert(conn: sqlite3.Connection) -> None:
        conn.execute(sql.format(us=times_us.pop(0)))

    database.write_now(insert)
    database.write_now(insert)
    (oldest, ok) = told(config)[what]
    assert oldest == pytest.approx(2, abs=1.5)
    assert ok
    database.write_now(insert)
    (oldest, ok) = told(config)[what]
    assert oldest is not None
    assert oldest > keep_days + GRACE_DAYS
    assert not ok


EXAMPLES = {
    "damaged file moved aside": "store.db.corrupt-1",
    "damaged list of erasures": "store.db.erased.corrupt-1",
    "directory file being fetched": "store.db.directory-abc0123456789def.part",
    "recorded reads": "capture-20260101T000000Z.csv.gz",
    "copy made at a stop": "store.db.saved",
    "file not written to its end": "store.db.tag-key.new",
    "copy made before a migration": "store.db.before-0011_crm",
    "replaced by a restore": "store.db.replaced",
    "part of a backup or restore": "store.db.restoring",
}


def test_files_that_are_too_old_are_told_and_others_are_named(config: StoreConfig, database: Database) -> None:
    folder = config.database.path.parent
    limited = {kind.what: kind for kind in KINDS if kind.keep_days is not None}
    assert set(EXAMPLES) == set(limited)
    for what, name in EXAMPLES.items():
        (folder / name).touch()
        os.utime(folder / name, (0, NOW_S - DAY_S / 2))
        oldest, ok = told(config)[f"files: {what}"]
        assert oldest == pytest.approx(0.5, abs=0.01)
        assert ok
        os.utime(folder / name, (0, NOW_S - ((limited[what].keep_days or 0) + GRACE_DAYS + 0.5) * DAY_S))
        assert told(config)[f"files: {what}"][1] is False
    (folder / "store.db.bak").touch()
    assert any(what.startswith("store.db.bak, not created by Tagtrail") for what in told(config))


def test_the_command_fails_when_something_is_too_old(config: StoreConfig, database: Database) -> None:
    done = forked.run("retention", "--config", file_of(config), "--json")
    assert done.returncode == 0, done.stdout
    assert all(line["ok"] for line in json.loads(done.stdout))
    capture = config.database.path.parent / "capture-20200101T000000Z.csv.gz"
    capture.touch()
    os.utime(capture, (0, NOW_S - 30 * DAY_S))
    done = forked.run("retention", "--config", file_of(config))
    assert done.returncode == 1
    late: list[Any] = [line for line in done.stdout.splitlines() if line.endswith("too old")]
    assert len(late) == 1
    assert late[0].startswith("files: recorded reads")
