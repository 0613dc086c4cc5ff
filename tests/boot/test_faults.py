"""What happens to a gateway in its years: a full disk, one that can only be read, a clock that is set, a power cut
while it is upgraded, and other distributions' way of installing it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from booted import Booted
from technician import FILE, NEEDS, ROOT, STATE, TAGS, UNIT, Shop, install, monitor, reads, set_up, started, works

pytestmark = NEEDS

DISK = "/var/lib/private/tagtrail"


def health(machine: Booted) -> str:
    status, content = monitor(machine, "health")
    return str(json.loads(content)["status"]) if status else "no answer"


def on_a_small_disk(gateway: Booted, size: str) -> None:
    """Move the store's data to a disk of its own."""
    gateway.run("systemctl", "stop", UNIT)
    gateway.sh(
        f"cp -a {DISK} /root/data; mount -t tmpfs -o size={size},mode=700 tmpfs {DISK}; cp -a /root/data/. {DISK}/"
    )
    gateway.run("systemctl", "start", UNIT)
    gateway.until(lambda: works(gateway))


def test_a_full_disk(gateway: Booted, shop: Shop, tell: Callable[[str], None]) -> None:
    on_a_small_disk(gateway, "48m")
    pid = gateway.shows(UNIT, "MainPID")
    gateway.sh(f"dd if=/dev/zero of={DISK}/ballast bs=64k status=none || true")
    gateway.until(lambda: health(gateway) == "failing")
    assert works(gateway), "readers and broker go on"
    assert monitor(gateway, "ready")[0] == 200
    before = reads(gateway)
    gateway.until(lambda: reads(gateway) > before + 100)
    gateway.sh(f"rm {DISK}/ballast")
    gateway.until(lambda: health(gateway) == "ok")
    gateway.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
    gateway.until(lambda: shop.recognised() == TAGS)
    assert gateway.shows(UNIT, "MainPID") == pid, "the same process all the time"
    gateway.run("systemctl", "stop", UNIT)
    assert shop.gaps() == []
    lines = [line for line in gateway.journal().splitlines() if "database" in line]
    assert len(lines) < 12, lines
    tell(f"{len(lines)} lines of journal about it")


def test_a_disk_that_can_only_be_read(gateway: Booted, shop: Shop) -> None:
    """As after a file system's error: it is said, tried again, and works once the disk does."""
    on_a_small_disk(gateway, "48m")
    gateway.run("systemctl", "stop", UNIT)
    gateway.sh(f"mount -o remount,ro {DISK}")
    gateway.run("systemctl", "start", UNIT, check=False)
    gateway.until(lambda: int(gateway.shows(UNIT, "NRestarts")) >= 1)
    gateway.sh(f"mount -o remount,rw {DISK}")
    gateway.until(lambda: works(gateway))
    gateway.run("systemctl", "stop", UNIT)
    assert shop.gaps() == []


def test_a_clock_that_is_set(gateway: Booted, shop: Shop, packages: Path) -> None:
    """By libfaketime, in a drop-in: the machine's clock is ours."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed: apt install faketime")
    (packages / "clock").write_text("+0\n")
    environment = {
        "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": "/srv/packages/clock", "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip
    lines = "\n".join(f"Environment={name}={value}" for name, value in environment.items())
    gateway.run("mkdir", "-p", f"/etc/systemd/system/{UNIT}.service.d")
    gateway.run("tee", f"/etc/systemd/system/{UNIT}.service.d/clock.conf", given=f"[Service]\n{lines}\n")
    gateway.run("systemctl", "daemon-reload")
    started(gateway)
    gateway.until(lambda: works(gateway))
    pid = gateway.shows(UNIT, "MainPID")
    for offset in ("+40", "-20", "+0"):
        (packages / "clock").write_text(f"{offset}\n")
        before = reads(gateway)
        gateway.until(lambda before=before: reads(gateway) > before + 100)
    assert "\ntagtrail_clock_steps_total 3.0" in monitor(gateway, "metrics")[1]
    gateway.until(lambda: health(gateway) == "ok")
    assert gateway.shows(UNIT, "MainPID") == pid
    gateway.run("systemctl", "stop", UNIT)
    assert shop.gaps() == []


def test_a_power_cut_while_it_is_upgraded(gateway: Booted, shop: Shop, packages: Path) -> None:
    from later_release import later

    later(packages / "first.deb", "7.4.0", packages)
    upgrading = gateway.beside(
        "nsenter", "-t", str(gateway.pid), "-m", "-p", "-r", "-w", "dpkg", "-i", "/srv/packages/7.4.0.deb"
    )
    releases = gateway.files / "opt/tagtrail/releases"
    gateway.until(lambda: (releases / "7.4.0").exists() or upgrading.poll() is not None)
    gateway.cut_power()
    gateway.boot()
    shop.open()
    gateway.until(lambda: works(gateway))
    gateway.run("dpkg", "--configure", "-a")
    install(gateway, "7.4.0.deb")
    gateway.until(lambda: works(gateway))
    assert gateway.sh("basename $(readlink /opt/tagtrail/current)") == "7.4.0"


def test_other_distributions_install_it_from_wheels(
    machine: Booted, shop: Shop, packages: Path, tell: Callable[[str], None]
) -> None:
    """systemd/install with the wheelhouse, on a machine with a Python of its own."""
    wheelhouse = ROOT / "wheelhouse"
    if not list(wheelhouse.glob("tagtrail-*.whl")):
        pytest.skip("no wheelhouse: make wheelhouse")
    source = packages / "source"
    source.mkdir()
    shutil.copytree(wheelhouse, source / "wheelhouse")
    shutil.copytree(ROOT / "systemd", source / "systemd")
    for file in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / file, source / file)
    shop.open()
    machine.give_python()
    began = time.monotonic()
    machine.run("/srv/packages/source/systemd/install", "--wheelhouse", "/srv/packages/source/wheelhouse")
    tell(f"installed from wheels in {time.monotonic() - began:.0f} s, with its kernels compiled")
    set_up(machine, packages)
    began = time.monotonic()
    machine.run("systemctl", "enable", "--now", UNIT)
    tell(f"first start ready after {time.monotonic() - began:.1f} s")
    machine.until(lambda: works(machine))
    machine.run("/srv/packages/source/systemd/install", "--uninstall")
    assert not (machine.files / "opt/tagtrail").exists()
    assert machine.run("ls", f"{STATE}/tagtrail.db").stdout
