"""What the gateway throws away by itself, and how it comes through a database that refuses, is damaged or is old."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import health, journey
from gateways import STORE, Gateway

from config.model import StoreConfig
from edge.database import life
from edge.database.retention import DAY_US, Pace, held, make_room, prune
from edge.database.writer import Database
from edge.service.housekeeping import Housekeeping
from sync import outbox, quota

NOW_US = 1_800_000_000_000_000


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig.model_validate(STORE | {"database": {"path": str(tmp_path / "store.db"), "quota_mb": 16}})


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Database]:
    return lambda: Database(tmp_path / "store.db", store="s1", quota_mb=16)


def add_history(conn: sqlite3.Connection, days: int) -> None:
    for day in range(days):
        at = NOW_US - day * DAY_US
        conn.execute("INSERT INTO visit VALUES (NULL, x'00', 1, NULL, 'shoes', ?, ?, ?, 1, 0, 1)", (at, at, at))
        conn.execute("INSERT INTO journey VALUES (NULL, x'00', 1, NULL, ?, ?, 0, '[]')", (at, at))
        conn.execute("INSERT INTO aggregate VALUES (?, 'shoes', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, x'')", (at,))


def test_what_is_too_old_goes_in_slices_and_the_rest_stays(opened: Callable[[], Database], config: StoreConfig) -> None:
    database = opened()
    database.write_now(lambda conn: add_history(conn, 500))
    rounds = 0
    while database.write_now(lambda conn: prune(conn, config, NOW_US, most=50)):
        rounds += 1
    assert rounds > 5
    counts = database.write_now(
        lambda conn: [
            conn.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("visit", "journey", "aggregate")
        ]
    )
    # 90 days of `returning_days` and 35 more, today included; row 500 is the highest id, and emptied.
    assert counts == [127, 127, 401]
    database.close()


def test_of_the_last_visit_and_journey_only_the_number_is_kept(
    opened: Callable[[], Database], config: StoreConfig
) -> None:
    """A store that was shut a year ago still holds what its last customer did, if the highest row is never touched."""
    database = opened()
    long_ago_us = NOW_US - 300 * DAY_US

    def add(conn: sqlite3.Connection, at: int) -> None:
        conn.execute("INSERT INTO visit VALUES (NULL, x'07', 1, 'M7', 'shoes', ?, ?, ?, 1, 0, 1)", (at, at, at))
        conn.execute("INSERT INTO journey VALUES (NULL, x'07', 1, 'M7', ?, ?, 0, '[[\"shoes\", 1, 2]]')", (at, at))

    def rows(conn: sqlite3.Connection) -> list[tuple[object, ...]]:
        return [
            *conn.execute("SELECT id, tag, member, zone FROM visit"),
            *conn.execute("SELECT id, tag, member, path FROM journey"),
        ]

    for _ in range(3):
        database.write_now(lambda conn: add(conn, long_ago_us))
    told = {each.what: each.oldest_us for each in database.write_now(lambda conn: list(held(conn, config)))}
    assert (told["visits"], told["journeys"]) == (long_ago_us, long_ago_us)
    while database.write_now(lambda conn: prune(conn, config, NOW_US)):
        pass
    assert database.write_now(rows) == [(3, b"", None, ""), (3, b"", None, "[]")]
    told = {each.what: each.oldest_us for each in database.write_now(lambda conn: list(held(conn, config)))}
    assert (told["visits"], told["journeys"]) == (None, None)
    database.write_now(lambda conn: add(conn, NOW_US))
    assert database.write_now(lambda conn: prune(conn, config, NOW_US)) == 2
    assert [row[:3] for row in database.write_now(rows)] == [(4, b"\x07", "M7")] * 2
    database.close()


def test_retention_goes_no_faster_than_two_days_a_day(config: StoreConfig, opened: Callable[[], Database]) -> None:
    """A clock that is 800 days ahead for an hour would have deleted everything."""
    clock_us, ran_s = NOW_US, 0.0
    pace = Pace(lambda: clock_us, NOW_US, mono_s=lambda: ran_s)
    for _ in range(9 * 24 * 60):  # days at a right clock buy nothing for later
        clock_us, ran_s = clock_us + 60_000_000, ran_s + 60
        assert pace.now_us() == clock_us
    right_us = clock_us
    database = opened()
    database.write_now(lambda conn: add_history(conn, 130))
    for _ in range(60):
        clock_us, ran_s = right_us + 800 * DAY_US, ran_s + 60
        while database.write_now(lambda conn: prune(conn, config, pace.now_us())):
            pass
    assert pace.now_us() == right_us + 2 * 3_600_000_000
    days_left = database.write_now(lambda conn: conn.execute("SELECT count(*) FROM visit").fetchone()[0])
    assert days_left == 117  # 125 days, less the nine that have passed, and the highest id's
    clock_us = right_us + 3_600_000_000
    assert pace.now_us() == clock_us
    fast = Pace(lambda: NOW_US + DAY_US, NOW_US, speed=20.0, mono_s=lambda: ran_s)
    ran_s += 60
    assert fast.now_us() == NOW_US + 40 * 60_000_000
    database.close()


def test_a_gateway_that_was_off_for_long_catches_up_at_that_pace() -> None:
    clock_us, ran_s = NOW_US, 0.0
    pace = Pace(lambda: clock_us, NOW_US - 30 * DAY_US, mono_s=lambda: ran_s)
    for day in range(40):
        clock_us, ran_s = NOW_US + (day + 1) * DAY_US, ran_s + 86_400
        behind_days = (clock_us - pace.now_us()) / DAY_US
        assert behind_days == max(0, 29 - day)


async def test_while_the_time_is_unknown_nothing_is_deleted_summed_up_or_told(
    opened: Callable[[], Database], config: StoreConfig
) -> None:
    database = opened()
    database.write_now(lambda conn: add_history(conn, 500))
    unknown = True

    async def forget(_: int) -> None:
        raise AssertionError("by which time?")

    keeping = Housekeeping(database, config, lambda: NOW_US, forget, waits=lambda: unknown)
    rounds = {name: work for _, name, work in keeping.rounds()}
    tasks = [asyncio.ensure_future(work()) for work in rounds.values()]
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in tasks)
    assert database.write_now(lambda conn: conn.execute("SELECT count(*) FROM visit").fetchone()) == (500,)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    unknown = False
    await rounds["retention"]()
    assert database.write_now(lambda conn: conn.execute("SELECT count(*) FROM visit").fetchone()) == (127,)
    database.close()


async def test_the_last_time_that_is_known_outlives_a_stop(opened: Callable[[], Database], tmp_path: Path) -> None:
    database = opened()
    assert (life.known_us(database), life.retained_us(database)) == (0, None)
    life.begin(database)
    await life.remember(database, NOW_US, NOW_US - DAY_US)
    await life.remember(database, None, NOW_US - 5)  # the clock is not to be trusted any more
    life.begin(database)
    assert (life.known_us(database), life.retained_us(database)) == (NOW_US, NOW_US - 5)
    database.write_now(lambda conn: add_history(conn, 1))
    visit = "INSERT INTO visit VALUES (NULL, x'00', 1, NULL, 'shoes', ?, ?, ?, 1, 0, 1)"
    database.write_now(lambda conn: conn.execute(visit, (NOW_US + 9,) * 3))
    assert life.known_us(database) == NOW_US + 9, "never earlier than what was committed last"
    for broken in ("", "[]", '{"clock_us": "x"}', '{"clock_us": null}'):
        (tmp_path / "store.db.life").write_text(broken)
        assert life.known_us(database) == NOW_US + 9
        assert life.retained_us(database) is None
    database.close()


def test_history_goes_before_any_event_of_the_outbox(opened: Callable[[], Database], config: StoreConfig) -> None:
    database = opened()
    database.write_now(lambda conn: add_history(conn, 300))

    def fill(conn: sqlite3.Connection) -> None:
        while quota.in_use(conn) < quota.FULL:
            outbox.append(conn, "journey", [journey()] * 200)

    database.write_now(fill)
    before = database.write_now(outbox.depth)["journey"].pending
    assert database.write_now(lambda conn: make_room(conn, config, NOW_US)) == 0
    assert database.write_now(outbox.depth)["journey"].pending == before
    assert database.write_now(lambda conn: conn.execute("SELECT count(*) FROM visit").fetchone()[0]) < 300
    database.write_now(fill)
    before = database.write_now(outbox.depth)["journey"].pending
    while database.write_now(quota.in_use) >= quota.FULL:
        database.write_now(lambda conn: make_room(conn, config, NOW_US))
    assert database.write_now(outbox.depth)["journey"].pending < before
    database.close()


def use(database: Database, events: int) -> None:
    database.write_now(lambda conn: outbox.append(conn, "health", [health()] * events))


async def test_a_database_taken_back_to_a_backup_gives_no_number_twice(
    opened: Callable[[], Database], tmp_path: Path
) -> None:
    database = opened()
    assert life.begin(database) is False
    use(database, 10)
    await life.remember(database, None, 0)
    database.close()
    shutil.copy(tmp_path / "store.db", tmp_path / "backup.db")
    database = opened()
    assert life.begin(database) is False
    use(database, 20)
    await life.remember(database, None, 0)
    epoch = database.epoch
    database.close()

    shutil.copy(tmp_path / "backup.db", tmp_path / "store.db")
    database = opened()
    assert life.begin(database) is True
    assert database.epoch == epoch
    numbers = database.write_now(lambda conn: outbox.append(conn, "health", [health()]))
    assert numbers.start > 30
    lost = database.write_now(lambda conn: outbox.pending(conn, "health", 10, 10))
    assert lost is not None
    assert (lost.lost[0].from_, lost.lost[0].to) == (11, numbers.start - 1)
    database.close()
    database = opened()
    assert life.begin(database) is False
    database.close()


async def test_a_backup_of_the_same_life_is_noticed_too(opened: Callable[[], Database], tmp_path: Path) -> None:
    database = opened()
    life.begin(database)
    use(database, 10)
    copy = sqlite3.connect(tmp_path / "backup.db")
    with sqlite3.connect(tmp_path / "store.db") as source:
        source.backup(copy)
    source.close()
    copy.close()
    use(database, 1)
    await life.remember(database, None, 0)
    database.close()
    shutil.copy(tmp_path / "backup.db", tmp_path / "store.db")
    database = opened()
    assert life.begin(database) is True
    database.close()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"epoch": 1}', '{"epoch": "e", "life": "l", "next": {"member": "x"}}']
)
def test_a_broken_life_file_is_no_life(opened: Callable[[], Database], tmp_path: Path, text: str) -> None:
    (tmp_path / "store.db.life").write_text(text)
    database = opened()
    assert life.begin(database) is False
    assert json.loads((tmp_path / "store.db.life").read_text())["epoch"] == database.epoch
    database.close()


async def test_damage_found_while_running_is_a_new_epoch_and_a_running_service(gateway: Gateway) -> None:
    gateway.configure()
    gateway.start("--no-web")
    state = await gateway.until(lambda s: s["outbox"].get("health", {}).get("sent", 0) > 0)
    pid = state["pid"]
    (epoch,) = gateway.rows("SELECT value FROM fact WHERE name = 'epoch'")[0]
    # Fold the log back and commit as somebody else, so that the service has to read its pages anew.
    with contextlib.closing(sqlite3.connect(gateway.database, timeout=10, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.execute("INSERT INTO fact VALUES ('other', 'hand')")
    with gateway.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (gateway.database.stat().st_size - 4096))
    state = await gateway.until(lambda s: s["database"]["quarantined"] is not None)
    assert state["pid"] == pid
    assert Path(state["database"]["quarantined"]).exists()
    await gateway.until(lambda s: s["outbox"].get("health", {}).get("sent", 0) > 0)
    assert gateway.rows("SELECT value FROM fact WHERE name = 'epoch'")[0] != (epoch,)
    assert not (gateway.folder / "store.db.condemned").exists()
    assert gateway.end() == 0, gateway.log()
