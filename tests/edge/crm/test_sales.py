"""Sales from the tills: what is taken, replaced and refused, from messages and from files."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import forked
import pytest
import tomli_w
from gateways import Gateway
from headquarters import headquarters
from shopdays import DATE, Day, store_values, zone

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.crm.sales import HOUR_US, SalesDesk, Sold, Terms, delete, nothing_else, take, wrong
from edge.crm.sales_csv import import_csv
from edge.database.writer import Database
from edge.days.sales import any_known
from edge.store.errors import Trouble
from simulators.headquarters.broker import NatsBroker
from sync.down import MAX_SALES
from sync.mqtt import Incoming

HEADER = "hour,zone,tickets,units,amount,currency\n"


def rows(day: Day) -> list[tuple[Any, ...]]:
    """Zone, hour of the day, tickets, units, cents, revision."""
    found = day.conn.execute("SELECT zone, hour_us, tickets, units, cents, revision FROM sales ORDER BY hour_us, zone")
    return [(zone, (hour_us - day.us("00:00")) // HOUR_US, *rest) for zone, hour_us, *rest in found]


def changes(day: Day) -> dict[str, int]:
    return dict(day.conn.execute("SELECT date, changes FROM sales_day").fetchall())


def test_the_same_hour_again_replaces_and_a_lower_revision_does_not(day: Day) -> None:
    at = day.us("10:00")
    terms = Terms(day.us("20:00"))
    done = take(day.conn, day.config, [Sold("shoes", at, 3), Sold("bags", at, 1)], terms)
    assert (done.taken, done.changed) == (2, 2)
    again = take(day.conn, day.config, [Sold("shoes", at, 3), Sold("bags", at, 2)], terms)
    assert (again.taken, again.changed) == (2, 1)
    assert rows(day) == [("bags", 10, 2, None, None, 2), ("shoes", 10, 3, None, None, 1)]
    assert changes(day) == {str(DATE): 2}
    take(day.conn, day.config, [Sold("shoes", at, 4)], Terms(terms.now_us, revision=7))
    late = take(day.conn, day.config, [Sold("shoes", at, 9), Sold("books", at, 5)], Terms(terms.now_us, revision=6))
    assert (late.taken, late.problems) == (1, [(0, "revision 7 of this hour is here already")])
    assert ("shoes", 10, 4, None, None, 7) in rows(day)
    assert ("books", 10, 5, None, None, 6) in rows(day)


@pytest.mark.parametrize(
    ("sold", "reason"),
    [
        (("toys", "10:00", 1), "no zone 'toys'"),
        (("shoes", "20:00", 1), "not over yet"),
        (("shoes", "10:20", 1), "not the beginning of an hour"),
        (("shoes", "10:00", -1), "negative"),
        (("shoes", "10:00", 1, -1), "negative"),
        (("shoes", "10:00", 1, 1, 500), "an amount needs its currency"),
        (("shoes", "-99999:00", 1), "older than the"),
    ],
)
def test_what_is_wrong_with_an_hour_is_said(day: Day, sold: tuple[Any, ...], reason: str) -> None:
    zone, at, *counts = sold
    said = wrong(day.config, Sold(zone, day.us(at), *counts), Terms(day.us("20:30")))
    assert reason in (said or "")
    assert wrong(day.config, Sold("shoes", day.us("19:00"), 0), Terms(day.us("20:00"))) is None


def test_an_hour_can_be_taken_back_and_an_older_message_does_not_bring_it_again(day: Day) -> None:
    at, now_us = day.us("10:00"), day.us("20:00")
    unknown = [Sold("shoes", at, None)]
    assert take(day.conn, day.config, unknown, Terms(now_us)).changed == 0, "nothing was known"
    assert rows(day) == []
    take(day.conn, day.config, [Sold("shoes", at, 3, 4, 5990)], Terms(now_us, "CNY", revision=2))
    done = take(day.conn, day.config, unknown, Terms(now_us, revision=3))
    assert (done.taken, done.changed) == (1, 1)
    assert not any_known(day.past)
    assert zone(day, "shoes").sales is None
    late = take(day.conn, day.config, [Sold("shoes", at, 3)], Terms(now_us, revision=2))
    assert late.problems == [(0, "revision 3 of this hour is here already")]
    assert rows(day) == [("shoes", 10, None, None, None, 3)]
    early = take(day.conn, day.config, [Sold("bags", at, None)], Terms(now_us, revision=5))
    assert (early.taken, early.changed) == (1, 0)
    assert take(day.conn, day.config, [Sold("bags", at, 1)], Terms(now_us, revision=4)).problems, "it overtook"
    other = [Sold("shoes", at, 3, None, 100)]
    assert take(day.conn, day.config, other, Terms(now_us, "EUR", 4)).problems == [], "no amount in CNY is left"
    assert any_known(day.past)


def test_sales_are_deleted_by_day_and_zone_and_can_come_again(tmp_path: Path) -> None:
    day = Day(StoreConfig.model_validate(store_values(tmp_path)))
    hours = [f"{hour - 24 * back}:00" for back in range(3) for hour in (4, 10, 27)]
    for at in hours:
        day.sold("shoes", at, 1, revision=9)
        day.sold("bags", at, 1)
    day.conn.execute("UPDATE sales SET tickets = NULL WHERE zone = 'bags' AND hour_us = ?", (day.us("4:00"),))
    before = changes(day)
    one = dt.timedelta(days=1)
    done = delete(day.config, DATE - one, DATE, "bags")
    assert done == (5, frozenset({"bags"}), frozenset({DATE, DATE - one}))
    assert [row[:2] for row in rows(day) if row[0] == "bags"] == [("bags", n) for n in (-44, -38, -21)]
    assert sum(row[0] == "shoes" for row in rows(day)) == 9
    assert {date: n - before[date] for date, n in changes(day).items()} == {
        str(DATE): 1,
        str(DATE - one): 1,
        str(DATE - 2 * one): 0,
    }
    day.conn.execute("UPDATE sales SET zone = 'gone' WHERE zone = 'shoes' AND hour_us = ?", (day.us("10:00"),))
    done = delete(day.config, DATE, DATE)
    assert done[:2] == (3, frozenset({"shoes", "gone"})), "also of zones that are not there any more"
    assert delete(day.config, DATE, DATE).hours == 0
    day.sold("shoes", "10:00", 7, revision=1)
    assert ("shoes", 10, 7, None, None, 1) in rows(day)
    day.conn.close()


def test_many_hours_are_deleted_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(StoreConfig.model_validate(store_values(tmp_path)))
    for at in range(4, 24):
        day.sold("shoes", f"{at}:00", 1)
    monkeypatch.setattr("edge.crm.sales.SLICE_ROWS", 7)
    assert delete(day.config, DATE, DATE).hours == 20
    assert rows(day) == []
    assert changes(day)[str(DATE)] == 20 + 3
    day.conn.close()


def test_amounts_of_two_currencies_are_not_mixed(day: Day) -> None:
    day.sold("shoes", "10:00", 1, cents=100, currency="CNY")
    other = [Sold("bags", day.us("10:00"), 1, None, 100), Sold("books", day.us("10:00"), 1)]
    done = take(day.conn, day.config, other, Terms(day.us("20:00"), "EUR"))
    assert done.problems == [(0, "amounts in EUR, but those of this store are in CNY")]
    assert [row[0] for row in rows(day)] == ["books", "shoes"]
    day.sold("shoes", "10:00", 1)
    day.sold("bags", "10:00", 1, cents=100, currency="EUR")


def test_whole_days_are_filled_with_nothing_up_to_now(day: Day) -> None:
    sold = [Sold("shoes", day.us("10:00"), 3), Sold("bags", day.us("12:00"), 1)]
    filled = list(nothing_else(day.config, sold, day.us("14:30")))
    hours = {(one.zone, (one.hour_us - day.us("00:00")) // HOUR_US) for one in filled}
    every = {(zone, hour) for zone in ("shoes", "bags") for hour in range(4, 14)}
    assert hours == every - {("shoes", 10), ("bags", 12)}
    assert {one[2:] for one in filled} == {(0, 0, 0)}


class Heard:
    """A desk on a database of its own, and what it answers."""

    def __init__(self, day: Day) -> None:
        self.said: list[dict[str, Any]] = []
        self.database = Database(day.config.database.path, store="s1", quota_mb=64)
        self.desk = SalesDesk(day.config, self.database, lambda: day.us("20:30"), self._say)

    def _say(self, rest: str, message: bytes) -> None:
        assert rest == "up/result"
        self.said.append(json.loads(message))

    async def tell(self, payload: bytes) -> dict[str, Any]:
        running = asyncio.create_task(self.desk.run())
        told = len(self.said)
        await self.desk.take(Incoming("tagtrail/v1/1/s1/down/sales", payload, False))
        async with asyncio.timeout(20):
            while len(self.said) == told:
                await asyncio.sleep(0.01)
        running.cancel()
        return self.said[-1]


async def test_a_message_is_taken_but_for_its_wrong_hours(day: Day) -> None:
    heard = Heard(day)
    at = day.us("10:00")
    hours: list[Any] = [
        {"zone": "shoes", "hour_us": at, "tickets": 3, "units": 4, "amount": 59.9},
        {"zone": "shoes", "hour_us": at + HOUR_US, "tickets": -1},
        {"zone": "toys", "hour_us": at, "tickets": 1},
        {"zone": "bags", "hour_us": at, "tickets": 2},
        {"zone": "bags", "hour_us": at},
        7,
    ]
    head = {"v": 1, "id": "a", "currency": "CNY", "whole_days": True}
    answer = await heard.tell(json.dumps({**head, "hours": hours}).encode())
    assert (answer["id"], answer["state"]) == ("a", "applied")
    assert {key: answer["output"][key] for key in ("taken", "changed", "refused")} == {
        "taken": 2,
        "changed": 2,
        "refused": 4,
    }
    assert [problem["hour"] for problem in answer["output"]["problems"]] == [1, 2, 4, 5]
    assert "greater than or equal to 0" in answer["output"]["problems"][0]["reason"]
    assert "no zone 'toys'" in answer["output"]["problems"][1]["reason"]
    assert rows(day) == [("bags", 10, 2, None, None, 1), ("shoes", 10, 3, 4, 5990, 1)], "nothing is filled"
    answer = await heard.tell(json.dumps({**head, "id": "b", "hours": [hours[0], hours[3]]}).encode())
    assert answer["output"] == {"taken": 32, "changed": 30, "refused": 0, "problems": []}
    heard.database.close()


async def test_a_message_takes_hours_back_but_not_half_of_one(day: Day) -> None:
    for at in ("10:00", "11:00", "12:00"):
        day.sold("shoes", at, 3)
    hours: list[dict[str, Any]] = [
        {"zone": "shoes", "hour_us": day.us("10:00"), "tickets": None},
        {"zone": "shoes", "hour_us": day.us("11:00"), "tickets": None, "units": 1},
        {"zone": "shoes", "hour_us": day.us("12:00")},
    ]
    heard = Heard(day)
    answer = await heard.tell(json.dumps({"v": 1, "id": "back", "hours": hours}).encode())
    heard.database.close()
    assert (answer["state"], answer["output"]["taken"], answer["output"]["changed"]) == ("applied", 1, 1)
    said = {problem["hour"]: problem["reason"] for problem in answer["output"]["problems"]}
    assert "units and amount without tickets" in said[1]
    assert "tickets" in said[2], "left out is not taken back"
    assert [row[1:3] for row in rows(day)] == [(10, None), (11, 3), (12, 3)]


async def test_a_message_cannot_fill_the_database(day: Day) -> None:
    heard = Heard(day)
    day_us = 24 * HOUR_US
    hours = [
        {"zone": zone, "hour_us": day.us("10:00") - n * day_us, "tickets": 1}
        for n in range(300)
        for zone in ("shoes", "bags", "books")
    ]
    message = {"v": 1, "id": "a", "whole_days": True, "hours": hours}
    answer = await heard.tell(json.dumps(message).encode())
    assert (answer["state"], rows(day)) == ("refused", [])
    assert "send several" in answer["reason"]
    answer = await heard.tell(json.dumps(message | {"hours": hours[:60]}).encode())
    assert answer["output"]["taken"] == 20 * 3 * 24 - 3 * 8, "the last hours of today are not over"
    heard.database.close()


@pytest.mark.parametrize(
    ("payload", "id_", "reason"),
    [
        (b"\xff", "", "JSON"),
        (b'{"v":1,"id":"a"}', "a", "hours"),
        (b'{"v":1,"id":"a","hours":[]}', "a", "hours"),
        (b'{"v":2,"id":"a","hours":[{}]}', "a", "v"),
        (b'{"v":1,"id":"a","currency":"yuan","hours":[{}]}', "a", "currency"),
        (b'{"v":1,"id":"a","hours":[{}]}', "a", "no hour could be taken: zone"),
        (b'{"v":1,"id":"a","hours":[' + b"{}," * MAX_SALES + b"{}]}", "a", "hours"),
        (b'{"v":1,"id":"a","hours":[' + b" " * 70_000 + b"]}", "", "the limit is"),
    ],
)
async def test_what_is_no_message_is_refused_with_a_reason(day: Day, payload: bytes, id_: str, reason: str) -> None:
    heard = Heard(day)
    answer = await heard.tell(payload)
    assert (answer["id"], answer["state"]) == (id_, "refused")
    assert reason in answer["reason"]
    assert rows(day) == []
    heard.database.close()


async def test_too_many_messages_are_told_to_come_later(day: Day) -> None:
    heard = Heard(day)
    for n in range(70):
        await heard.desk.take(Incoming("x", json.dumps({"id": f"m{n}"}).encode(), False))
    assert [(one["id"], one["state"]) for one in heard.said] == [(f"m{n}", "refused") for n in range(64, 70)]
    heard.database.close()


def test_a_file_is_taken_but_for_its_wrong_lines(tmp_path: Path) -> None:
    day = Day(StoreConfig.model_validate(store_values(tmp_path)))
    file = tmp_path / "sales.csv"
    lines = (
        "2026-03-14T10:00,shoes,3,4,59.90,CNY",
        "2026-03-14T10:00+08:00,bags,2,,,",
        "2026-03-14T11:00,toys,2,,,",
        "2026-03-14T11:00,shoes,-2,,,",
        "2026-03-14T11:00,shoes,2.5,,,",
        "14.03.2026 11:00,shoes,2,,,",
        "2026-03-14T11:00,shoes,2,,12.345,CNY",
        "2026-03-14T11:00,shoes,2,,12,",
        "2026-03-14T11:00,shoes,2,,12,EUR",
        "2026-03-14T10:00,shoes,9,,,",
        "2026-03-14T23:00,shoes,9,,,",
        "2026-03-14T12:00,shoes,9,,,,1",
        "2026-03-14T12:00,shoes",
    )
    file.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    done = import_csv(day.config, file, day.us("20:00"), whole_days=True)
    assert (done.hours, done.changed, done.filled) == (2, 2, 0)
    assert rows(day) == [("bags", 10, 2, None, None, 1), ("shoes", 10, 3, 4, 5990, 1)]
    said = [problem.removeprefix(f"{file}:") for problem in done.problems]
    assert [text.split(":")[0] for text in said] == [str(n) for n in range(4, 15)]
    for text, part in zip(
        said,
        (
            *("no zone 'toys'", "tickets: '-2' is no count", "tickets: '2.5' is no count", "is no time; write"),
            *("amount: '12.345'", "currency is missing", "EUR, but earlier lines are in CNY", "already in line 2"),
            *("the hour is not over yet", "more cells than columns", "tickets: '' is no count"),
        ),
        strict=True,
    ):
        assert part in text
    file.write_text("hour,zone,tickets\n2026-03-14T10:00,shoes,3\n")
    again = import_csv(day.config, file, day.us("20:00"), whole_days=True)
    assert (again.hours, again.changed, again.filled) == (1, 16, 15), "units and amount are gone"
    for text, reason in (
        ("zone,tickets\n", "hour is missing"),
        ("hour,zone,tickets,till\n", "no column 'till'"),
        ("", "hour is missing"),
    ):
        file.write_text(text)
        with pytest.raises(Trouble, match=reason):
            import_csv(day.config, file, day.us("20:00"))
    with pytest.raises(Trouble, match="can't read"):
        import_csv(day.config, tmp_path / "none.csv", day.us("20:00"))
    day.conn.close()


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    store = tmp_path / "store.toml"
    store.write_text(tomli_w.dumps(store_values(tmp_path)))
    file = tmp_path / "sales.csv"
    hour = (dt.datetime.now(dt.UTC) - 2 * dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:00Z")
    file.write_text(f"hour,zone,tickets\n{hour},shoes,3\n{hour},toys,3\n")
    done = forked.run("sales", "import", str(file), "--config", str(store))
    assert done.returncode == 1
    assert "toys" in done.stderr
    assert "1 hour, 1 new or different; 1 line left out" in done.stdout


def test_the_command_deletes_and_the_audit_log_says_so(tmp_path: Path) -> None:
    day = Day(StoreConfig.model_validate(store_values(tmp_path)))
    store = tmp_path / "store.toml"
    store.write_text(tomli_w.dumps(store_values(tmp_path)))
    users = Users(users_path(day.config))
    users.put("li", Role.IT, "a long password")
    for name in ("shoes", "bags"):
        day.sold(name, "10:00", 1)
    day.conn.close()
    span = ("--from", f"{DATE}", "--to", f"{DATE}")
    done = forked.run("sales", "delete", *span, "--zone", "shoes", "--config", str(store))
    assert (done.returncode, done.stdout) == (0, "1 hour deleted, of 1 zone on 1 day; now unknown\n")
    line = users.audit()[0]
    assert (line.name, line.action, line.object) == ("console", "deleted sales", f"{DATE} – {DATE} shoes")
    again = forked.run("sales", "delete", *span, "--zone", "shoes", "--config", str(store))
    assert (again.returncode, again.stderr) == (1, f"no sales are known of {DATE} – {DATE} in zone shoes\n")
    assert len(users.audit()) == 1, "nothing was done"
    wrong = forked.run("sales", "delete", "--from", f"{DATE}", "--to", "2026-03-01", "--config", str(store))
    assert wrong.returncode == 2
    assert "before --from" in wrong.stderr
    users.close()


async def test_headquarters_sends_sales_and_is_answered(gateway: Gateway, nats: NatsBroker) -> None:
    gateway.configure(mqtt={"url": nats.url})
    async with headquarters(nats.url) as hq:
        gateway.start("--no-web")
        await gateway.until(lambda s: s["broker"]["connected"])
        state = await hq.command("c1", "ping")
        hour_us = (state["output"]["now_us"] // HOUR_US - 2) * HOUR_US
        sold = {"zone": "shoes", "hour_us": hour_us, "tickets": 5}
        message = {"v": 1, "id": "s1", "hours": [sold, {**sold, "zone": "nowhere"}]}
        await hq.send("down/sales", json.dumps(message).encode())
        async with asyncio.timeout(30):
            while not (answers := [one for one in hq.came["up/result"] if one["id"] == "s1"]):
                await asyncio.sleep(0.02)
    assert (answers[0]["state"], answers[0]["output"]["taken"], answers[0]["output"]["refused"]) == ("applied", 1, 1)
    assert gateway.end() == 0, gateway.log()
    assert gateway.rows("SELECT zone, tickets FROM sales") == [("shoes", 5)]
