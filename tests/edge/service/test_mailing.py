"""The digest by e-mail: once a day and once a week, to a real server on loopback, and what is said when it can't be."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import forked
import pytest
import tomli_w
from certificates import Authority
from hypothesis import given, settings
from hypothesis import strategies as st
from mail_servers import SECRET, USER, MailServer, mail_to, serving
from shopdays import DATE, Day, busy, store_values
from thorough import examples

from config import StoreConfig
from config.mail import Mail
from edge.database.writer import Database
from edge.service import mailing, post
from edge.service.mailing import Due, Mailing, due, from_us, last
from edge.store.business_days import BusinessDay, business_days
from edge.store.errors import Trouble

DAY_US = 86_400_000_000
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    config = StoreConfig.model_validate(store_values(tmp_path))
    day = Day(config)
    for back in range(8):
        busy(day, -back, people=40 if back == 0 else 30)
        day.covered(f"{4 - 24 * back}:00", f"{28 - 24 * back}:00", bags=0)
    day.watermark("33:00")
    day.conn.close()
    return config


@pytest.fixture
def server() -> Iterator[MailServer]:
    with serving() as server:
        yield server


class Morning:
    """A service's mailing at a time: on Sunday, after the Saturday DATE."""

    def __init__(self, config: StoreConfig, mail: Mail) -> None:
        self.config, self.mail = config, mail
        self.now_us = from_us(mail, business_days(config), DATE)
        self.waits = False

    async def look(self) -> None:
        database = Database(self.config.database.path, store=self.config.store.id, quota_mb=64)
        try:
            await Mailing(self.config, self.mail, database, lambda: self.now_us, lambda: self.waits).look()
        finally:
            database.close()

    def go_on(self, days: int) -> None:
        """Days have gone by, on which the service ran and no reader was up."""
        self.now_us += days * DAY_US
        day = Day(self.config)
        day.watermark(f"{33 + 24 * days}:00")
        day.conn.close()

    def noted(self, kind: mailing.Kind = "day") -> str | None:
        with sqlite3.connect(self.config.database.path) as conn:
            return last(conn, kind)


async def test_the_digest_is_sent_once_with_its_page(config: StoreConfig, server: MailServer) -> None:
    morning = Morning(config, mail_to(server))
    morning.now_us -= 1
    await morning.look()
    assert [one["Subject"] for _, one in server.taken] == ["Store one · Digest of the day 2026-03-13"]
    morning.now_us += 1
    for _ in range(3):
        await morning.look()
    assert len(server.taken) == 2
    to, made = server.taken[-1]
    assert to == ["manager@shop.example", "deputy@shop.example"]
    assert (made["From"], made["Subject"]) == ("tagtrail@shop.example", "Store one · Digest of the day 2026-03-14")
    assert (made["Message-ID"] or "").startswith("<digest-day-2026-03-14.s1.")
    text, page = made.iter_parts()
    said = text.get_content()
    assert "Journeys of people: 40" in said
    assert "- " in said
    assert "The attached page has the pictures" in said
    assert page.get_filename() == "tagtrail-s1-day-2026-03-14.html"
    html = page.get_content()
    assert html.startswith("<!doctype html>")
    assert "<svg" in html
    assert morning.noted() == "2026-03-14"


async def test_on_mondays_the_week_comes_too(config: StoreConfig, server: MailServer) -> None:
    morning = Morning(config, mail_to(server, week="sun", lang="zh"))
    await morning.look()
    await morning.look()
    assert [one["Subject"] for _, one in server.taken] == [
        "一店 · 每日简报 2026-03-14",
        "一店 · 每周简报 2026-03-08 – 2026-03-14",
    ]
    assert (morning.noted("day"), morning.noted("week")) == ("2026-03-14", "2026-03-14")


async def test_what_was_refused_is_tried_again(config: StoreConfig, server: MailServer) -> None:
    morning = Morning(config, mail_to(server))
    server.refuse["data"] = "451 later"
    with pytest.raises(Trouble, match=r"refuses the message \(451\)"):
        await morning.look()
    assert morning.noted() is None
    server.refuse.clear()
    await morning.look()
    assert (len(server.taken), morning.noted()) == (1, "2026-03-14")


async def test_what_may_have_been_sent_is_not_sent_again(
    config: StoreConfig, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    morning = Morning(config, mail_to(server, week="never"))
    server.hang_up = True
    with pytest.raises(Trouble, match="may have been sent, and is not repeated"):
        await morning.look()
    server.hang_up = False
    await morning.look()
    assert (len(server.taken), morning.noted()) == (1, "2026-03-14?")
    assert "it is not known whether the digest of the day to 2026-03-14 was sent" in caplog.text
    morning.go_on(1)
    await morning.look()
    assert (len(server.taken), morning.noted()) == (2, "2026-03-15")


async def test_a_stop_while_it_is_sent_does_not_send_it_twice(
    config: StoreConfig, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    morning = Morning(config, mail_to(server))
    begun, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*_: object) -> int:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(20)
        return 0

    monkeypatch.setattr(post, "send", slow)
    looking = asyncio.create_task(morning.look())
    await begun.wait()
    looking.cancel()
    await asyncio.wait([looking], timeout=20)
    assert looking.cancelled()
    goes_on.set()
    monkeypatch.undo()
    await morning.look()
    assert (server.taken, morning.noted()) == ([], "2026-03-14?")


async def test_one_digest_that_fails_keeps_no_other(
    config: StoreConfig, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    morning = Morning(config, mail_to(server, week="sun"))
    sending = post.send
    calls: list[str] = []

    def send(mail: Mail, made: EmailMessage) -> int:
        calls.append(made["Subject"])
        if "day" in made["Subject"]:
            raise Trouble("no")
        return sending(mail, made)

    monkeypatch.setattr(post, "send", send)
    with pytest.raises(Trouble, match="no"):
        await morning.look()
    assert len(calls) == 2
    assert (morning.noted("day"), morning.noted("week")) == (None, "2026-03-14")


async def test_nothing_is_sent_of_days_before_the_first_record(tmp_path: Path, server: MailServer) -> None:
    empty = StoreConfig.model_validate(store_values(tmp_path))
    morning = Morning(empty, mail_to(server))
    await morning.look()
    day = Day(empty)
    day.covered("28:00", "33:00")
    day.watermark("33:00")
    day.conn.close()
    await morning.look()
    assert server.taken == [], "the store has been open since this morning"


async def test_nothing_is_sent_while_the_time_is_unknown(config: StoreConfig, server: MailServer) -> None:
    morning = Morning(config, mail_to(server))
    morning.waits = True
    await morning.look()
    assert server.taken == []
    morning.waits = False
    await morning.look()
    assert len(server.taken) == 1


async def test_a_day_without_readers_is_told_as_such(config: StoreConfig, server: MailServer) -> None:
    morning = Morning(config, mail_to(server, week="never"))
    morning.now_us += 9 * DAY_US
    await morning.look()
    assert server.taken == [], "the service has not come so far yet"
    morning.now_us -= 9 * DAY_US
    morning.go_on(9)
    await morning.look()
    ((_, made),) = server.taken
    assert "Nothing is known of these days" in next(made.iter_parts()).get_content()


@pytest.mark.parametrize(
    ("at", "start", "sent"),
    [
        ("08:00", "04:00", "2026-03-15T08:00"),
        ("04:00", "04:00", "2026-03-15T04:00"),
        ("03:59", "04:00", "2026-03-16T03:59"),
        ("00:00", "00:00", "2026-03-15T00:00"),
    ],
)
def test_it_is_sent_at_the_first_time_after_the_day(at: str, start: str, sent: str) -> None:
    zone = store().store.tz
    us = from_us(a_mail(at=at), BusinessDay(zone, start), DATE)
    assert dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%dT%H:%M") == sent


@settings(max_examples=examples(200), deadline=None)
@given(
    st.integers(0, 60 * 24 * 60),
    st.sampled_from(("00:00", "03:30", "08:00", "23:59")),
    st.sampled_from(("Asia/Shanghai", "Europe/Berlin")),
)
def test_whenever_it_looks_the_last_finished_day_is_due(minute: int, at: str, zone: str) -> None:
    config = store(zone)
    days = business_days(config)
    now_us = days.bounds_us(DATE)[0] + minute * 60_000_000
    mail = a_mail(at=at, week="sun")
    first, *weeks = due(mail, days, now_us)
    assert first.kind == "day"
    assert from_us(mail, days, first.date) <= now_us < from_us(mail, days, first.date + mailing.DAY)
    assert weeks in ([], [Due("week", weeks[0].date if weeks else DATE)])
    for one in weeks:
        assert one.date.weekday() == 5
        assert 0 <= (first.date - one.date).days < mailing.LATE_DAYS


def store(zone: str = "Asia/Shanghai") -> StoreConfig:
    values = store_values(Path("/nowhere"))
    values["store"]["timezone"] = zone
    return StoreConfig.model_validate(values)


def a_mail(**keys: Any) -> Mail:
    return mail_to(MailServer(port=1), **keys)


def test_a_login_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    cert, secret = authority.issue("mail"), tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    for tls in ("starttls", "tls"):
        with serving(cert, tls=tls, logs_in=True) as server:
            keys = {"tls": tls, "ca": authority.folder / "ca.pem", "username": USER, "password_file": secret}
            mail = mail_to(server, **keys)
            assert post.send(mail, post.trial(mail, "s1")) == 0
            assert (server.logins, server.encrypted) == ([USER], [True])
            assert "This is a trial." in server.taken[0][1].get_content()
            with pytest.raises(Trouble, match="certificate is not trusted"):
                post.send(mail_to(server, **keys | {"ca": None}), post.trial(mail, "s1"))
            secret.write_text("wrong")
            with pytest.raises(Trouble, match=r"refuses the login \(535\)"):
                post.send(mail, post.trial(mail, "s1"))
            secret.write_text(SECRET)
            assert len(server.taken) == 1


def test_an_unencrypted_server_gets_no_password(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    with serving(logs_in=True) as server:
        mail = mail_to(server, tls="starttls", username=USER, password_file=tmp_path / "secret")
        with pytest.raises(Trouble, match="offers no STARTTLS"):
            post.send(mail, post.trial(mail, "s1"))
        assert server.logins == []


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        ({"tagtrail@shop.example": "550 no"}, r"refuses the sender \(550\)"),
        ({f"{who}@shop.example": "550 no" for who in ("manager", "deputy")}, r"refuses all recipients \(550\)"),
        ({"data": "554 no"}, r"refuses the message \(554\)"),
    ],
)
def test_what_the_server_refuses_is_told_without_names(server: MailServer, refuse: dict[str, str], said: str) -> None:
    server.refuse.update(refuse)
    mail = mail_to(server)
    with pytest.raises(Trouble, match=said) as refused:
        post.send(mail, post.trial(mail, "s1"))
    assert "@" not in str(refused.value)


def test_one_recipient_that_is_refused_keeps_no_other(server: MailServer) -> None:
    server.refuse["deputy@shop.example"] = "550 no"
    mail = mail_to(server)
    assert post.send(mail, post.trial(mail, "s1")) == 1
    assert server.taken[0][0] == ["manager@shop.example"]


def test_a_server_that_is_not_there_or_no_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        mail = a_mail(server=f"127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(Trouble, match="does not answer"):
            post.send(mail, post.trial(mail, "s1"))
        with pytest.raises(Trouble, match="does not answer"):
            post.send(mail.model_copy(update={"tls": "tls"}), post.trial(mail, "s1"))
    with pytest.raises(Trouble, match="refuses the connection"):
        post.send(mail, post.trial(mail, "s1"))
    with pytest.raises(Trouble, match="name was not found"):
        post.send(a_mail(server="no-such-host.invalid"), post.trial(mail, "s1"))


def test_by_command(tmp_path: Path, config: StoreConfig, server: MailServer) -> None:
    values = store_values(tmp_path)
    file = tmp_path / "store.toml"

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return forked.run("mail", "-c", str(file), *options)

    file.write_text(tomli_w.dumps(values), encoding="utf-8")
    assert "the store file has no [mail]" in run().stderr
    section = mail_to(server).model_dump(mode="json", exclude_none=True)
    file.write_text(tomli_w.dumps(values | {"mail": section}), encoding="utf-8")
    assert run("--test").stdout == "sent to 2 recipients\n"
    assert run().stdout.splitlines() == [
        f"from tagtrail@shop.example to 2 recipients by 127.0.0.1:{server.port} (none)",
        "day: each day from 08:00 on; last: none",
        "week: each week on mon from 08:00 on; last: none",
    ]
    server.refuse["deputy@shop.example"] = "550 no"
    refused = run("--test")
    assert (refused.returncode, "refuses 1 recipient" in refused.stderr) == (1, True)
