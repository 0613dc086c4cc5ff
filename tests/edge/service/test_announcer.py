"""What the journal and `systemctl status` say of broker, readers, clock and certificates."""

from __future__ import annotations

import datetime as dt
import logging
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from brokers import MosquittoBroker, need_mosquitto
from certificates import Authority
from gateways import STORE, Gateway, antennas
from hands import Machine

from config.model import StoreConfig
from drivers.session import Link, ReaderStatus
from edge.intake.health import Elsewhere, HealthNews
from edge.readers import flapping
from edge.service import announcer
from edge.service.announcer import Announcer
from edge.service.expiry import Certificates
from sync.contract import ReaderHealth
from sync.publisher import Status

NOW = dt.datetime.now(dt.UTC)


@dataclass
class Rig:
    publisher: Any = field(default_factory=lambda: SimpleNamespace(status=Status(False, "not yet connected", 0)))
    machine: Machine = field(default_factory=Machine)
    pending: dict[str, int] = field(default_factory=dict)
    seconds: float = 1000.0

    def __post_init__(self) -> None:
        readers = {id_: ReaderStatus(id_, link, "", 0) for id_, link in (("a", Link.UP), ("b", Link.DOWN))}
        self.announcer = Announcer("b:1883", self.publisher, readers, self.machine.keeper, lambda: self.pending)

    def say(self, connected: bool, reason: str) -> None:
        self.publisher.status = Status(connected, reason, 0)
        self.announcer.look()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig()
    monkeypatch.setattr(announcer.time, "monotonic", lambda: rig.seconds)
    return rig


def test_the_brokers_state_is_logged_once_each(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tagtrail.broker")
    rig.announcer.look()
    assert caplog.messages == [], "not tried yet"
    for connected, reason in ((False, "refused"), (False, "refused"), (True, ""), (True, "an access rule"), (True, "")):
        rig.say(connected, reason)
        rig.announcer.look()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the broker b:1883 is away, and tried again: refused"),
        ("INFO", "the broker b:1883 is connected"),
        ("WARNING", "the broker b:1883 is connected, but: an access rule"),
        ("INFO", "the broker b:1883 is connected"),
    ]
    rig.say(False, "stopped")
    assert len(caplog.messages) == 4


def test_a_broker_that_comes_and_goes_is_a_few_lines(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tagtrail.broker")
    for n in range(3600):
        rig.seconds += 1
        rig.say(n % 2 == 0, "" if n % 2 == 0 else "connection lost")
    rig.seconds += flapping.JOURNAL.together_s
    rig.announcer.look()
    assert len(caplog.messages) < 20
    assert sum(int(text.split("after ")[1].split()[0]) for text in caplog.messages if "after" in text) > 3500


def test_a_day_with_a_dead_broker_and_a_flapping_reader_is_read_in_a_minute(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    events: list[ReaderHealth] = []
    links = {"r1": ReaderStatus("r1", Link.DOWN, "", 0)}
    said: Any = SimpleNamespace(add_health=events.append)
    news = HealthNews(said, links, links, rig.machine.keeper, None, rig.machine.keeper._clock, Elsewhere("1"))  # type: ignore[arg-type]
    reasons = ("no route to host", "no answer within 10 s")
    for second in range(86_400):
        rig.seconds += 1
        if second % 60 == 0:  # the publisher's longest wait
            rig.say(False, reasons[second // 60 % 2])
        if second % 7 == 0:
            up = second % 2 == 0
            links["r1"] = ReaderStatus(
                "r1", Link.UP if up else Link.DOWN, "taking inventory" if up else "reset", second
            )
            news.tell("link", "r1", links["r1"].reason, second)
            news.tell("gap", "r1", "reads were lost", second)
        rig.announcer.look()
        news.tell_repeated()
    news.tell_repeated(all_=True)
    assert 3 < len(caplog.messages) < 200
    assert caplog.messages[-1].startswith("reader r1 is ")
    assert sum(event.changes or 1 for event in events) == 2 * (86_400 // 7 + 1)


def test_one_line_for_systemctl_status(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(announcer, "notify", said.append)
    rig.say(True, "")
    rig.announcer.look()
    rig.pending = {"member": 2, "agg": 5}
    rig.say(False, "no route\nto host")
    rig.machine.wall_us = 5
    rig.machine.keeper.look()
    rig.announcer.look()
    assert said == [
        "STATUS=1 of 2 readers up; broker connected",
        "STATUS=1 of 2 readers up; broker away: no route to host; 7 events waiting",
        "STATUS=1 of 2 readers up; broker away: no route to host; 7 events waiting; time untrusted",
    ]


async def test_the_service_says_it(gateway: Gateway) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(gateway.folder / "notify"))
        manager.settimeout(30)
        gateway.configure()
        environment = {"NOTIFY_SOCKET": str(gateway.folder / "notify"), "JOURNAL_STREAM": "8:1"}
        gateway.start("--no-web", environment=environment)
        while not re.match("STATUS=0 of 0 readers up; broker away: .*127.0.0.1:1", manager.recv(4096).decode()):
            assert gateway.process is not None
            assert gateway.process.poll() is None, gateway.log()
    gateway.end()
    (line,) = [line for line in gateway.log().splitlines() if "the broker" in line]
    assert line.startswith("<4>WARNING tagtrail.broker: the broker 127.0.0.1:1 is away, and tried again: ")


def test_certificates_are_told_of_thirty_seven_and_one_days_ahead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path / "pki")
    soon, later = authority.issue("soon", days=(-1, 40)), authority.issue("later", days=(-1, 400))
    readers = [
        {"id": "r1", "driver": "llrp", "address": "r1", "tls": True, "ca": str(later), "antennas": antennas("door")}
    ]
    values = STORE | {
        "database": {"path": str(tmp_path / "s.db")},
        "mqtt": {"url": "mqtts://b", "cert": str(soon), "key": str(tmp_path / "pki/soon.key"), "ca": str(later)},
        "readers": readers,
    }
    now, broker_until_s = NOW, (NOW + dt.timedelta(days=35, hours=1)).timestamp()
    found = Certificates(StoreConfig.model_validate(values), lambda: broker_until_s, lambda: now)
    days = {}
    for day in range(44):
        now = NOW + dt.timedelta(days=day)
        before = len(caplog.messages)
        found.look()
        if new := caplog.messages[before:]:
            days[day] = new
        assert bool(found.soon) is (day >= 5)
    assert list(days) == [5, 10, 28, 33, 34, 35, 36, 39, 40, 41] or list(days) == [5, 9, 28, 32, 34, 35, 36, 38, 39, 40]
    assert days[5] == [f"the broker's certificate expires on {_day(broker_until_s)}, in 30 days"]
    assert sum("expired" in text for texts in days.values() for text in texts) == 2
    assert [one.what for one in found.soon] == ["broker", "mqtt.cert"]
    assert {one.what for one in found.all} == {"broker", "mqtt.cert", "mqtt.ca", "readers.r1.ca"}
    soon.write_bytes(later.read_bytes())  # renewed under the same name
    broker_until_s += 86_400 * 365
    found.look()
    assert found.soon == ()
    later.unlink()
    found.look()
    assert [one.what for one in found.all] == ["mqtt.cert", "broker"]


def _day(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d}"


async def test_the_brokers_own_certificate_is_looked_at_too(gateway: Gateway) -> None:
    need_mosquitto()
    authority = Authority(gateway.folder / "pki")
    cert = authority.issue("broker", days=(-1, 3))
    folder = gateway.folder / "pki"
    for file in folder.iterdir():
        file.chmod(0o644)
    tls = f"allow_anonymous true\ncafile {folder}/ca.pem\ncertfile {cert}\nkeyfile {folder}/broker.key"
    async with MosquittoBroker(gateway.folder / "broker", tls) as broker:
        gateway.configure(mqtt={"url": broker.url.replace("mqtt://", "mqtts://"), "ca": str(folder / "ca.pem")})
        gateway.start("--no-web")
        state = await gateway.until(lambda s: any(one["what"] == "broker" for one in s["certificates"]))
        assert {one["what"]: one["days"] for one in state["certificates"]}["broker"] == 2
        gateway.end()
    assert "the broker's certificate expires on" in gateway.log()
    assert "is connected" in gateway.log()
