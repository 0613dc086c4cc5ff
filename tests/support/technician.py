"""What a technician finds and does at a gateway: a shop around it, the package, a store set up by the documents."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from booted import Booted, newest, why_not

from config.tags import sgtin96

ROOT = Path(__file__).parents[2]
PACKAGE = newest(list((ROOT / "dist").glob("tagtrail_*.deb")))
UNIT = "tagtrail@s1"
STATE = "/var/lib/tagtrail/s1"
FILE = "/etc/tagtrail/s1.toml"
PAGE_PASSWORD, BROKER_PASSWORD = "correct horse battery", "staple-of-the-broker"
MOSQUITTO = """listener 1883 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
user root
persistence true
persistence_location {folder}/
"""
TAGS = 8

NEEDS = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="needs mosquitto and mosquitto_passwd"),
    pytest.mark.skipif(PACKAGE is None, reason="no package in dist/: make deb"),
    pytest.mark.timeout(1500),
]


class Shop:
    """What is around the gateway: one reader, the broker, and the CRM with its own database."""

    def __init__(self, machine: Booted, folder: Path) -> None:
        self._machine = machine
        self._folder = folder
        (folder / "password").write_text(BROKER_PASSWORD)
        (folder / "mosquitto.conf").write_text(MOSQUITTO.format(folder=folder))

    def open(self) -> None:
        """Start them in the machine's network."""
        passwords = self._folder / "passwords"
        passwords.unlink(missing_ok=True)
        self._machine.beside("mosquitto_passwd", "-b", "-c", passwords, "store", BROKER_PASSWORD).wait()
        self._machine.beside("mosquitto", "-c", self._folder / "mosquitto.conf")
        self._simulate("simulate", "reader", "--port", "5084", "--tags", TAGS, "--rate", "40")
        login = ("--username", "store", "--password-file", self._folder / "password")
        self._simulate("crm", "--url", "mqtt://127.0.0.1:1883", "--database", self._folder / "crm.db", *login)

    def events(self, what: str = "1") -> list[Any]:
        """Return the CRM's events of all epochs, in order."""
        with closing(sqlite3.connect(f"file:{self._folder}/crm.db?mode=ro", uri=True, timeout=10)) as conn:
            try:
                rows = conn.execute(f"SELECT payload FROM event WHERE {what} ORDER BY epoch, class, seq")
                return [json.loads(payload) for (payload,) in rows]
            except sqlite3.OperationalError:
                return []

    def gaps(self) -> list[Any]:
        """Return epochs and classes of which an event is missing or there twice."""
        with closing(sqlite3.connect(f"file:{self._folder}/crm.db?mode=ro", uri=True, timeout=10)) as conn:
            return conn.execute(
                "SELECT epoch, class, min(seq), max(seq), count(*) FROM event GROUP BY epoch, class"
                " HAVING min(seq) <> 1 OR max(seq) <> count(*)"
            ).fetchall()

    def recognised(self) -> int:
        """Return how many recognitions the CRM has."""
        return len(self.events("json_extract(payload, '$.type') = 'recognised'"))

    def _simulate(self, *arguments: object) -> None:
        self._machine.beside(sys.executable, "-m", "edge", *arguments, environment={"PYTHONPATH": str(ROOT)})


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    assert PACKAGE is not None
    folder = tmp_path / "packages"
    folder.mkdir()
    shutil.copy(PACKAGE, folder / "first.deb")
    return folder


@pytest.fixture
def machine(tmp_path: Path, packages: Path) -> Iterator[Booted]:
    """A bare machine."""
    machine = Booted(tmp_path, packages)
    machine.boot()
    yield machine
    machine.cut_power()


@pytest.fixture
def shop(machine: Booted, tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(machine, folder)


@pytest.fixture
def gateway(machine: Booted, shop: Shop, packages: Path) -> Booted:
    """The package installed, a store set up and running."""
    shop.open()
    install(machine, "first.deb")
    set_up(machine, packages)
    machine.run("systemctl", "enable", "--now", UNIT)
    machine.until(lambda: works(machine))
    return machine


def install(machine: Booted, package: str, check: bool = True, **environment: str) -> Any:
    command = ("apt-get", "install", "-y", "-q", "--allow-downgrades", f"/srv/packages/{package}")
    return machine.run(*command, check=check, **environment)


def set_up(machine: Booted, packages: Path) -> str:
    """As docs/install.md says, by a script; what `tagtrail init` has said."""
    command = (
        *(
            "tagtrail",
            "init",
            FILE,
            "--store",
            "s1",
            "--timezone",
            "Asia/Shanghai",
            "--broker",
            "mqtt://127.0.0.1:1883",
        ),
        *("--username", "store", "--members", "0x30", "--scan", "127.0.0.1"),
    )
    said = machine.run(*command, given=f"{PAGE_PASSWORD}\n").stdout
    machine.run(
        "install", "-D", "-m", "0600", "/dev/stdin", "/etc/credstore/tagtrail.s1.mqtt-password", given=BROKER_PASSWORD
    )
    cards = "".join(f"{sgtin96('9521141', 1, n).hex()},M{n:06},A,1,\n" for n in range(TAGS))
    (packages / "members.csv").write_text(f"epc,member,tier,consent,hint\n{cards}")
    return said


def works(machine: Booted) -> bool:
    """The service says that broker and readers are there."""
    said = machine.run("tagtrail", "status", "-c", FILE, check=False).stdout
    return "broker connected, 1 of 1 readers up" in said


def monitor(machine: Booted, path: str) -> tuple[int, str]:
    """Ask the monitoring socket, as docs/observability says."""
    ran = machine.run(
        *("curl", "-s", "-w", "\n%{http_code}", "--unix-socket", f"{STATE}/tagtrail.db.monitor"),
        f"http://localhost/{path}",
        check=False,
    )
    content, _, status = ran.stdout.rpartition("\n")
    return int(status or 0), content


def findings(machine: Booted) -> dict[str, set[str]]:
    """What the doctor says, by state."""
    found = json.loads(machine.run("tagtrail", "doctor", "--json", "-c", FILE, check=False).stdout)
    return {state: {one["what"] for one in found if one["state"] == state} for state in ("ok", "warning", "error")}


def started(machine: Booted) -> float:
    """Restart it; seconds until systemd takes it for ready."""
    before = time.monotonic()
    machine.run("systemctl", "restart", UNIT)
    return time.monotonic() - before


def reads(machine: Booted) -> float:
    content = monitor(machine, "metrics")[1]
    return sum(
        float(line.split()[-1]) for line in content.splitlines() if line.startswith("tagtrail_reader_reads_total")
    )
