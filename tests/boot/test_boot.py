"""A gateway as a technician sets it up and leaves it: the package on a bare machine with a booted systemd, by the words
of docs/install.md and docs/operations.md. `make boot-test` builds the package first; needs root.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from booted import Booted
from later_release import later
from technician import (
    BROKER_PASSWORD,
    FILE,
    NEEDS,
    ROOT,
    STATE,
    TAGS,
    UNIT,
    Shop,
    findings,
    install,
    monitor,
    reads,
    set_up,
    started,
    works,
)

pytestmark = NEEDS


def test_from_a_bare_machine_to_reads_at_the_crm(
    machine: Booted, shop: Shop, packages: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    shop.open()
    began = time.monotonic()
    install(machine, "first.deb")
    installed_s = time.monotonic() - began
    said = set_up(machine, packages)
    assert f"systemctl enable --now {UNIT}" in said
    assert BROKER_PASSWORD not in said
    began = time.monotonic()
    machine.run("systemctl", "enable", "--now", UNIT)
    ready_s = time.monotonic() - began
    machine.until(lambda: works(machine))
    machine.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
    machine.until(lambda: shop.recognised() == TAGS)
    found = findings(machine)
    assert found["error"] == set(), found
    assert found["warning"] <= {"store file"}, "the reader's tags are merchandise, but members here"
    assert {"database", "kernels", "program", "broker", "clock"} <= found["ok"], found
    assert monitor(machine, "ready")[0] == 200
    machine.until(lambda: "\ntagtrail_page_up 1.0" in monitor(machine, "metrics")[1])
    tell(f"package installed in {installed_s:.1f} s; the first start of a new store was ready after {ready_s:.1f} s")

    # Who may do what.
    pid = machine.shows(UNIT, "MainPID")
    inside = ("nsenter", "-t", pid, "-m")
    secret = f"/run/credentials/{UNIT}.service/mqtt-password"
    assert machine.run("stat", "-c", "%a", secret).stdout.strip() == "400"
    assert machine.run("cat", secret).stdout == BROKER_PASSWORD
    assert machine.run("setpriv", "--reuid", "nobody", "--clear-groups", "cat", secret, check=False).returncode != 0
    assert machine.run("setpriv", "--reuid", "nobody", "--clear-groups", "ls", f"{STATE}/", check=False).returncode != 0
    for place in ("/etc/tagtrail/x", "/usr/x", "/opt/tagtrail/x", "/var/lib/x", "/x"):
        assert machine.run(*inside, "touch", place, check=False).returncode != 0, place
    machine.run("touch", "/root/mine")
    assert machine.run(*inside, "ls", "/root", check=False).stdout == ""
    uid = machine.sh(f"stat -c %u /proc/{pid}")
    assert uid != "0"
    assert machine.sh(f"stat -c '%a %u' {STATE}/tagtrail.db") == f"600 {uid}"
    for text in (f"/proc/{pid}/cmdline", f"/proc/{pid}/environ"):
        assert BROKER_PASSWORD.encode() not in (machine.files / text.lstrip("/")).read_bytes()
    assert BROKER_PASSWORD not in machine.journal()

    machine.until(lambda: reads(machine) > 100)
    # Stop within five seconds, with everything at the CRM.
    began = time.monotonic()
    machine.run("systemctl", "stop", UNIT)
    stop_s = time.monotonic() - began
    assert machine.shows(UNIT, "Result") == "success"
    (last,) = shop.events("json_extract(payload, '$.reason') = 'stop'")
    assert last["reads"] > 0
    assert shop.gaps() == []
    lines = machine.journal().splitlines()
    tell(f"stopped in {stop_s:.1f} s, {last['reads']} reads, {len(lines)} lines of journal")


def test_it_is_brought_back_by_systemd(gateway: Booted, shop: Shop, tell: Callable[[str], None]) -> None:
    """kill -9, a service that hangs, and a power cut."""
    gateway.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
    gateway.until(lambda: shop.recognised() == TAGS)
    first = gateway.shows(UNIT, "MainPID")
    gateway.run("systemctl", "kill", "-s", "KILL", UNIT)
    gateway.until(lambda: gateway.shows(UNIT, "MainPID") not in ("0", first) and works(gateway))

    hung = gateway.shows(UNIT, "MainPID")
    began = time.monotonic()
    gateway.run("kill", "-STOP", hung)
    gateway.until(lambda: gateway.shows(UNIT, "MainPID") not in ("0", hung) and works(gateway))
    tell(f"a hung service was back after {time.monotonic() - began:.0f} s")
    assert gateway.shows(UNIT, "NRestarts") == "2"

    gateway.cut_power()
    gateway.boot()
    shop.open()
    began = time.monotonic()
    gateway.until(lambda: works(gateway))
    tell(f"after a power cut it was back {time.monotonic() - began:.1f} s after systemd")
    assert shop.recognised() == TAGS, "nobody is announced again in the same journey"
    gateway.run("systemctl", "stop", UNIT)
    assert shop.gaps() == []


def test_a_first_start_without_kernels_is_not_taken_for_hung(gateway: Booted, tell: Callable[[str], None]) -> None:
    gateway.run("systemctl", "stop", UNIT)
    gateway.sh("rm -rf /opt/tagtrail/releases/*/numba /var/cache/private/tagtrail /var/cache/tagtrail")
    took_s = started(gateway)
    assert gateway.shows(UNIT, "NRestarts") == "0"
    tell(f"compiled and ready after {took_s:.0f} s")
    gateway.until(lambda: works(gateway))
    warm_s = started(gateway)
    tell(f"then ready after {warm_s:.1f} s")


def test_the_brokers_password_can_be_sealed(gateway: Booted, shop: Shop) -> None:
    """By the words of docs/install.md."""
    words = (ROOT / "docs" / "install.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n(mkdir -p -m 0700 /etc/credstore.encrypted\nsystemd-creds.*?)```", words, re.DOTALL)
    gateway.sh(script.replace("STORE", "s1"))
    gateway.until(lambda: works(gateway))
    assert gateway.run("cat", f"/run/credentials/{UNIT}.service/mqtt-password").stdout == BROKER_PASSWORD
    on_disk = gateway.run("grep", "-rl", BROKER_PASSWORD, "/etc", "/var/lib", "/opt", check=False).stdout
    assert on_disk == ""
    assert findings(gateway)["error"] == set()


def test_the_tag_key_can_be_sealed_to_the_machine(gateway: Booted, shop: Shop) -> None:
    """By the words of docs/install.md."""
    gateway.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
    gateway.until(lambda: shop.recognised() == TAGS)
    words = (ROOT / "docs" / "install.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n(systemctl stop tagtrail@STORE\nmkdir.*?)```", words, re.DOTALL)
    gateway.sh(script.replace("STORE", "s1"))
    gateway.until(lambda: works(gateway))
    assert not (gateway.files / f"{STATE[1:]}/tagtrail.db.tag-key").exists()
    assert "the tag key has changed" not in gateway.journal()
    assert (gateway.files / "etc/credstore.encrypted").stat().st_mode & 0o077 == 0
    # The same key: the directory still fits.
    assert "directory" in findings(gateway)["ok"]


def break_start(release: Path) -> None:
    (service,) = release.glob("lib/python*/site-packages/edge/service/service.py")
    service.write_text(service.read_text().replace('        notify("READY=1")', '        raise RuntimeError("broken")'))


def lose_readers(release: Path) -> None:
    (sessions,) = release.glob("lib/python*/site-packages/edge/readers/sessions.py")
    text = sessions.read_text()
    assert "open_session(" in text
    sessions.write_text(
        text.replace("open_session(", "no_session_for(", 1)
        + "\n\ndef no_session_for(*_: object) -> None:\n    raise OSError('broken')\n"
    )
    add_migration(release)


def add_migration(release: Path) -> None:
    (folder,) = release.glob("lib/python*/site-packages/edge/database/migrations")
    (folder / "9999_later.sql").write_text("CREATE TABLE later (x INTEGER);\n")


def release_of(machine: Booted) -> str:
    return machine.sh("basename $(readlink /opt/tagtrail/current)")


def test_a_release_under_which_less_works_is_taken_back(
    gateway: Booted, shop: Shop, packages: Path, tell: Callable[[str], None]
) -> None:
    first = release_of(gateway)
    later(packages / "first.deb", "7.1.0", packages, break_start)
    back = install(gateway, "7.1.0.deb", check=False)
    assert back.returncode != 0
    assert f"release {first} is active again" in back.stdout + back.stderr
    gateway.until(lambda: works(gateway))
    assert release_of(gateway) == first

    later(packages / "first.deb", "7.2.0", packages, lose_readers)
    began = time.monotonic()
    back = install(gateway, "7.2.0.deb", check=False, HEALTH_WAIT_S="10")
    assert back.returncode != 0
    assert "reader reader-1 is away" in back.stdout + back.stderr
    tell(f"taken back {time.monotonic() - began:.0f} s after apt, 10 s of them waiting for the reader")
    gateway.until(lambda: works(gateway))
    assert release_of(gateway) == first
    assert "later" not in tables(gateway), "the database is that of before the migration"
    assert shop.gaps() == []


def tables(machine: Booted) -> set[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    script = f"import sqlite3; print(*[n for n, in sqlite3.connect('{STATE}/tagtrail.db').execute(\"{query}\")])"
    return set(machine.run("/opt/tagtrail/current/bin/python", "-c", script).stdout.split())


def test_upgrade_and_back_over_a_migration(gateway: Booted, shop: Shop, packages: Path) -> None:
    """By the words of docs/operations.md."""
    first = release_of(gateway)
    later(packages / "first.deb", "7.3.0", packages, add_migration)
    install(gateway, "7.3.0.deb")
    assert release_of(gateway) == "7.3.0"
    gateway.until(lambda: works(gateway))
    assert "later" in tables(gateway)

    refused = install(gateway, "first.deb", check=False)
    assert refused.returncode != 0
    assert "written by a newer Tagtrail" in refused.stdout + refused.stderr
    assert release_of(gateway) == "7.3.0"
    gateway.until(lambda: works(gateway))

    words = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (script,) = re.findall(
        r"```sh\n(systemctl stop tagtrail@STORE\ncd /var/lib/tagtrail/STORE.*?)```", words, re.DOTALL
    )
    gateway.sh(script.replace("STORE", "s1").replace("NUMBER_NAME", "9999_later"))
    gateway.run("dpkg", "--configure", "-a")
    install(gateway, "first.deb")
    assert release_of(gateway) == first
    gateway.run("systemctl", "start", UNIT)
    gateway.until(lambda: works(gateway))
    assert "later" not in tables(gateway)


def test_a_dead_gateway_is_replaced_from_a_backup(gateway: Booted, shop: Shop, packages: Path, tmp_path: Path) -> None:
    """By the words of docs/operations.md, on a bare machine of its own."""
    gateway.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
    gateway.until(lambda: shop.recognised() == TAGS)
    gateway.run("tagtrail", "backup", "-c", FILE, "--to", "/srv/packages")
    (backup,) = packages.glob("tagtrail-s1-*.tar.gz")
    gateway.cut_power()
    folder = tmp_path / "second"
    folder.mkdir()
    second = Booted(folder, packages)
    second.boot()
    try:
        shop._machine = second
        shop.open()
        install(second, "first.deb")
        name = f"/srv/packages/{backup.name}"
        second.sh(f"tar -xzOf {name} store.toml > {FILE}")
        second.run("tagtrail", "restore", name, "-c", FILE)
        second.run(
            "install",
            "-D",
            "-m",
            "0600",
            "/dev/stdin",
            "/etc/credstore/tagtrail.s1.mqtt-password",
            given=BROKER_PASSWORD,
        )
        second.run("tagtrail", "check", FILE)
        second.run("systemctl", "enable", "--now", UNIT)
        second.until(lambda: works(second))
        # Without the tag key of the first machine nobody is recognised until the directory has come again.
        second.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
        second.until(lambda: shop.recognised() == 2 * TAGS)
        second.run("systemctl", "stop", UNIT)
    finally:
        second.cut_power()
