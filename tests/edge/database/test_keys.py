"""The keys of pseudonyms: where they lie, how long they live, and what is left when they are gone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from gateways import Gateway, member_card
from rigs import OUT, SHOES, HandClock, running, shop_of

from edge.crm.directory_csv import import_csv
from edge.database import keys
from edge.database.keys import DayKeys, destroy_day_keys, tag_key_file
from edge.database.scrub import fold
from edge.database.writer import Database
from edge.store.business_days import BusinessDay
from edge.store.errors import Trouble
from edge.store.pseudonyms import Pseudonyms

DAYS = BusinessDay(ZoneInfo("Asia/Shanghai"), "04:00")
DAY_US = 86_400_000_000
NOON_US = 1_773_460_800_000_000
"""2026-03-14 12:00 in Shanghai."""
KEY = bytes(range(32))


def opened(folder: Path, *, service: bool = True) -> Database:
    return Database(folder / "store.db", store="s1", quota_mb=64, repair=service)


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("store.db*") if file.suffix != ".tag-key")


def as_before(folder: Path, *, generation: int, members: int) -> None:
    """The database of a version that kept the tag key in it."""
    database = opened(folder)

    def job(conn: sqlite3.Connection) -> None:
        conn.execute("DELETE FROM fact WHERE name = 'tag_key_mark'")
        conn.execute("INSERT INTO fact VALUES ('tag_key', ?)", (KEY.hex(),))
        conn.execute("UPDATE directory_state SET generation = ?", (generation,))
        conn.executemany(
            "INSERT INTO directory (tag, member, tier, consent) VALUES (?, 'M', 'A', 1)",
            [(bytes([n]),) for n in range(members)],
        )

    database.write_now(job)
    database.close()
    tag_key_file(folder / "store.db").unlink()


# The tag key.


def test_the_tag_key_lies_apart_for_its_owner_only_and_stays(tmp_path: Path) -> None:
    first = opened(tmp_path)
    key = first.tag_key
    file = tag_key_file(tmp_path / "store.db")
    assert file.stat().st_mode & 0o777 == 0o600
    for form in (key, key.hex().encode()):
        assert form not in everything(tmp_path)
    first.close()
    again = opened(tmp_path)
    assert (again.tag_key, again.rekeyed) == (key, False)
    again.close()
    (tmp_path / "store.db").unlink()
    anew = opened(tmp_path)
    assert anew.tag_key == key, "a new database is made with the same key, so that what was erased stays erased"
    anew.close()


@pytest.mark.parametrize("name", ["tag-key", "tag-key-sealed"])
def test_a_credential_comes_before_the_file_which_then_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = opened(tmp_path)
    key = first.tag_key
    first.close()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / name).write_text(key.hex() + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    second = opened(tmp_path)
    assert (second.tag_key, second.rekeyed) == (key, False)
    second.close()
    assert not tag_key_file(tmp_path / "store.db").exists()

    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    tool = opened(tmp_path, service=False)
    with pytest.raises(Trouble, match="only the service has"):
        _ = tool.tag_key
    tool.close()
    assert not tag_key_file(tmp_path / "store.db").exists(), "and it must not make another one up"


def test_another_key_has_the_directory_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = opened(tmp_path)
    database.write_now(lambda conn: conn.execute("UPDATE directory_state SET generation = 7").rowcount)
    database.write_now(lambda conn: conn.execute("INSERT INTO recognised VALUES (x'00', 'M', 1)").rowcount)
    database.close()
    (tmp_path / "tag-key").write_bytes(b"x" * 40)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    other = opened(tmp_path)
    assert other.rekeyed
    query = "SELECT generation, (SELECT count(*) FROM recognised) FROM directory_state"
    assert other.write_now(lambda conn: conn.execute(query).fetchone()) == (0, 0)
    other.close()
    assert tag_key_file(tmp_path / "store.db").exists(), "the one before is somebody's mistake to mend"
    same = opened(tmp_path)
    assert not same.rekeyed
    same.close()


@pytest.mark.parametrize("content", [b"", b"short", b"a" * 31])
def test_a_key_of_no_use_is_told(tmp_path: Path, content: bytes) -> None:
    tag_key_file(tmp_path / "store.db").write_bytes(content)
    with pytest.raises(Trouble, match="is too short"):
        opened(tmp_path)


def test_a_key_that_lay_in_the_database_is_taken_out_and_drawn_anew(tmp_path: Path) -> None:
    """Pseudonyms of all days were made of it: with a new one they stand for nobody."""
    as_before(tmp_path, generation=3, members=2)
    database = opened(tmp_path)
    assert database.tag_key != KEY
    assert database.rekeyed
    database.close()
    for form in (KEY, KEY.hex().encode()):
        assert form not in everything(tmp_path)


def test_one_that_a_directory_without_the_crm_hangs_on_is_kept(tmp_path: Path) -> None:
    as_before(tmp_path, generation=0, members=2)
    database = opened(tmp_path)
    assert (database.tag_key, database.rekeyed) == (KEY, False)
    database.close()
    assert KEY.hex().encode() not in everything(tmp_path)


# Day keys.


@pytest.fixture
def conn(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA secure_delete=ON")
        yield conn


def test_a_day_has_one_key_drawn_at_random(conn: sqlite3.Connection) -> None:
    first = DayKeys(conn, DAYS, NOON_US).of(NOON_US)
    assert len(first) == 32
    again = DayKeys(conn, DAYS, NOON_US + 1)
    assert again.of(NOON_US - 3_600_000_000) == first
    assert again.of(NOON_US - DAY_US) != first


def test_a_key_is_destroyed_once_the_journeys_of_its_day_have_closed(conn: sqlite3.Connection, tmp_path: Path) -> None:
    yesterday = DayKeys(conn, DAYS, NOON_US).of(NOON_US)
    tomorrow_us = NOON_US + DAY_US
    today = DayKeys(conn, DAYS, tomorrow_us).of(tomorrow_us)
    assert destroy_day_keys(conn, DAYS, tomorrow_us, [NOON_US, tomorrow_us]) == 0, "somebody is still here"
    assert DayKeys(conn, DAYS, tomorrow_us).of(NOON_US) == yesterday
    assert destroy_day_keys(conn, DAYS, tomorrow_us, [tomorrow_us]) == 1
    assert fold(tmp_path / "store.db")
    left = everything(tmp_path)
    assert yesterday not in left
    assert today in left


def test_what_lies_in_the_store_for_days_gets_another_pseudonym_each_day(conn: sqlite3.Connection) -> None:
    """A lost card keeps no day's key alive."""
    began_us = NOON_US
    first = DayKeys(conn, DAYS, began_us).of(began_us)
    found = {first}
    for day in range(1, 6):
        now_us = began_us + day * DAY_US
        destroy_day_keys(conn, DAYS, now_us, [began_us, now_us])
        key = DayKeys(conn, DAYS, now_us).of(began_us)
        assert key == (first if day == 1 else DayKeys(conn, DAYS, now_us).of(now_us))
        found.add(key)
    assert len(found) == 5
    assert conn.execute("SELECT count(*) FROM day_key").fetchone() == (1,)


def test_a_clock_that_is_wrong_makes_no_keys_that_last(conn: sqlite3.Connection) -> None:
    for now_us in (0, NOON_US, NOON_US + 800 * DAY_US, NOON_US):
        DayKeys(conn, DAYS, now_us).of(NOON_US)
        DayKeys(conn, DAYS, now_us).of(0)
    assert conn.execute("SELECT count(*) FROM day_key WHERE date < '2026-03-14'").fetchone() == (1,)
    destroy_day_keys(conn, DAYS, NOON_US + 801 * DAY_US, [])
    assert conn.execute("SELECT count(*) FROM day_key").fetchone() == (0,)


# Who holds a copy.


async def test_nobody_without_consent_is_found_again_in_yesterdays_visits(gateway: Gateway, clock: HandClock) -> None:
    """Not by a copy of all files with the tag key, and not while the day goes on by a copy of the database alone."""
    shop = shop_of(gateway)
    cards = [member_card(n) for n in range(4)]
    members = gateway.folder / "members.csv"
    members.write_text(
        "epc,member,tier,consent,hint\n" + "".join(f"{card.hex()},M{n},gold,0,\n" for n, card in enumerate(cards))
    )
    assert import_csv(shop.config, members).rows == 4
    async with running(shop, clock) as rig:
        for card in cards:
            await rig.see(card, SHOES, 60)
            await rig.see(card, OUT, 20)
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.tags_under_way()))
        await rig.until(lambda: rows_of(rig.database.path, "SELECT count(*) FROM journey") == [(4,)])
        tags = {tag for (tag,) in rows_of(rig.database.path, "SELECT tag FROM visit")}
        days = rows_of(rig.database.path, "SELECT key FROM day_key")
        secret = Pseudonyms(rig.database.tag_key)
        assert {secret.daily(card, 96, key) for card in cards for (key,) in days} == tags, "the test knows how"
        alone = Pseudonyms(bytes(32))
        assert not {alone.daily(card, 96, key) for card in cards for (key,) in days} & tags
        await rig.wait(24 * 3600)
        await rig.until(lambda: not rows_of(rig.database.path, "SELECT 1 FROM day_key WHERE date < '2027-01-16'"))
        left = [key for (key,) in rows_of(rig.database.path, "SELECT key FROM day_key")]
        kept = [tag for (tag,) in rows_of(rig.database.path, "SELECT tag FROM visit")]
        assert set(kept) == tags
        assert not {secret.daily(card, 96, key) for card in cards for key in left} & tags
        assert not {secret.member(card, 96) for card in cards} & tags


def rows_of(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as conn:
        return conn.execute(query).fetchall()


def test_a_file_of_another_form_is_a_key_too(tmp_path: Path) -> None:
    tag_key_file(tmp_path / "store.db").write_bytes(bytes(range(200, 240)))
    found = keys.find_tag_key(tmp_path / "store.db")
    assert found is not None
    assert len(found) == keys.BYTES
