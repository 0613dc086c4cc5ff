"""Digests of cues and service cases: what they count, and that each is told once."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from shopdays import Day, store_values
from typer.testing import CliRunner

from config import StoreConfig
from config.model import CueRule
from edge.cli.main import app
from edge.cues import book
from edge.cues.book import Wanted
from edge.cues.digest import digest, tell
from edge.database.reader import Past
from edge.database.retention import prune

RULE = CueRule(id="vip", kind="arrival", expires_s=120)
FRIDAY = dt.date(2026, 3, 13)
MINUTE = 60_000_000


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig.model_validate(store_values(tmp_path))


@pytest.fixture
def day(config: StoreConfig) -> Iterator[Day]:
    day = Day(config, FRIDAY)
    yield day
    day.conn.close()


def cue(day: Day, name: str, at: str, tier: str = "A", zone: str = "shoes") -> int:
    at_us = day.us(at)
    one = Wanted("arrival", name.encode(), at_us, name, tier, zone, "F1", at_us, at_us, RULE)
    (number,) = book.make(day.conn, [one], 4, at_us)
    return number


def four(day: Day) -> None:
    """One done after 30 s, one that a badge ended, one expired, one still open."""
    done, attended, expired, _ = (
        cue(day, name, "10:00", zone=zone) for name, zone in zip("abcd", ["shoes"] * 3 + ["bags"], strict=True)
    )
    now = day.us("10:00:30")
    book.done(day.conn, done, "li", now)
    book.attended(day.conn, [attended], now)
    book.expire(day.conn, [expired], day.us("10:03"))
    book.note_latencies(day.conn, [(done, 80.04), (expired, 200.0)])


def told(conn: sqlite3.Connection, class_: int) -> list[dict[str, object]]:
    rows = conn.execute("SELECT payload FROM outbox WHERE class = ? ORDER BY seq", (class_,)).fetchall()
    return [json.loads(payload) for (payload,) in rows]


def test_a_digest_counts_every_cue_once(config: StoreConfig, day: Day) -> None:
    four(day)
    cue(day, "late", "27:59", tier="B")
    cue(day, "next", "28:01")
    found = digest(Past(day.conn, config), FRIDAY, 1, day.us("29:00"))
    assert (found.cues, found.complete) == ({"arrival": 5, "waiting": 0}, True)
    assert found.outcomes == {"done": 1, "attended": 1, "expired": 1, "open": 2}
    assert (found.answered, found.answer_median_s, found.cue_p95_ms) == (1, 30.0, 200.0)
    assert [(line.name, line.arrivals, line.expired) for line in found.tiers] == [("A", 4, 1), ("B", 1, 0)]
    assert [(line.name, line.arrivals) for line in found.zones] == [("shoes", 4), ("bags", 1)]
    assert (found.cases["opened"], found.cases["open"], found.rules_versions) == (1, 1, (4,))
    week = digest(Past(day.conn, config), FRIDAY + dt.timedelta(days=2), 7, day.us("29:00"))
    assert (week.cues["arrival"], week.first_date, week.complete) == (6, "2026-03-09", False)


def test_days_and_weeks_that_are_over_are_told_once(config: StoreConfig, day: Day) -> None:
    four(day)
    assert tell(day.conn, config, day.us("27:00")) == 0
    assert tell(day.conn, config, day.us("28:01")) == 1
    assert tell(day.conn, config, day.us("28:02")) == 0
    monday = day.us("28:01") + 2 * 86_400_000_000
    assert tell(day.conn, config, monday) == 3  # Saturday, Sunday and the week
    assert tell(day.conn, config, monday + MINUTE) == 0
    events = told(day.conn, 3)
    assert [(event["first_date"], event["last_date"]) for event in events] == [
        ("2026-03-13", "2026-03-13"),
        ("2026-03-14", "2026-03-14"),
        ("2026-03-15", "2026-03-15"),
        ("2026-03-09", "2026-03-15"),
    ]
    assert events[0]["outcomes"] == events[3]["outcomes"] == {"done": 1, "attended": 1, "expired": 1, "open": 1}


def test_a_store_without_cues_tells_no_digest(config: StoreConfig, day: Day) -> None:
    assert tell(day.conn, config, day.us("40:00")) == 0


def test_old_cues_and_cases_are_forgotten(config: StoreConfig, day: Day) -> None:
    four(day)
    later = day.us("10:00") + 126 * 86_400_000_000
    while prune(day.conn, config, later, most=2):
        pass
    for table in ("cue", "service_case", "case_step"):
        assert day.conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert prune(day.conn, config, later) == 0


def test_outcomes_stand_beside_their_cause(day: Day) -> None:
    """An outcome is in the outbox exactly if the row has moved."""
    number = cue(day, "a", "10:00")
    day.conn.execute("BEGIN")
    book.done(day.conn, number, "li", day.us("10:01"))
    day.conn.execute("ROLLBACK")
    assert [event["type"] for event in told(day.conn, 0)] == ["cue"]
    assert [going.state for going in book.going(day.conn)] == ["open"]
    assert (
        book.make(
            day.conn,
            [Wanted("arrival", b"a", day.us("10:00"), "a", "A", "shoes", "F1", day.us("10:01"), day.us("10:01"), RULE)],
            4,
            day.us("10:01"),
        )
        == []
    )


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_on_the_console(config: StoreConfig, day: Day, tmp_path: Path, lang: str) -> None:
    import tomli_w

    four(day)
    file = tmp_path / "store.toml"
    file.write_text(tomli_w.dumps(store_values(tmp_path)))
    arguments = ["summary", "-c", str(file), "--date", str(FRIDAY), "--lang", lang, "--digest"]
    shown = CliRunner().invoke(app, [*arguments, "week"])
    assert shown.exit_code == 0, shown.output
    assert ("nobody came 1" in shown.stdout) == (lang == "en")
    assert ("无人到场 1" in shown.stdout) == (lang == "zh")
    as_json = json.loads(CliRunner().invoke(app, [*arguments, "day", "--json"]).stdout)
    assert as_json["outcomes"]["expired"] == 1
    assert CliRunner().invoke(app, [*arguments, "day", "--csv"]).exit_code == 2
