"""The Debian package in a throwaway root: an overlay over this machine's own, in which dpkg, the maintainer scripts and
the release really run. `make deb-test` builds the package first; needs root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from later_release import RELEASES, Change, later

ROOT = Path(__file__).parents[2]
PACKAGES = sorted((ROOT / "dist").glob("tagtrail_*.deb"), key=lambda file: file.stat().st_mtime)
VERSIONED = os.path.basename(os.path.realpath("/usr/bin/python3"))  # python3.11
UNIT = "usr/lib/systemd/system/tagtrail@.service"
MOUNTS = """
set -e
mount -t tmpfs -o size=6G tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$0/upper",workdir="$0/work" "$0/root"
mount -t proc proc "$0/root/proc"
mount --rbind /dev "$0/root/dev"
mount -t tmpfs tmpfs "$0/root/tmp"
mkdir "$0/root/tmp/packages"
mount --bind "$1" "$0/root/tmp/packages"
echo ready
exec sleep infinity
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a throwaway root"),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg (Debian)"),
    pytest.mark.skipif(not PACKAGES, reason="no package in dist/: make deb"),
    pytest.mark.timeout(1500),
]


class Machine:
    """A machine whose changes are forgotten."""

    def __init__(self, root: Path, pid: int) -> None:
        self.root = root
        """As seen by `run`; from here, under /proc/PID/root."""
        self._pid = pid
        self.files = Path(f"/proc/{pid}/root{root}")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the root."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            ["nsenter", "-t", str(self._pid), "-m", "-p", "chroot", str(self.root), *command],
            env={"PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HEALTH_WAIT_S": "3"}
            | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def dpkg(self, *arguments: str, interpreted: bool = True) -> subprocess.CompletedProcess[str]:
        """Run dpkg. Of a release under another name kernels would be compiled anew: they are interpreted."""
        return self.run("dpkg", *arguments, **({"NUMBA_DISABLE_JIT": "1"} if interpreted else {}))

    @contextmanager
    def started(self, *command: str) -> Iterator[None]:
        """A program that runs in the root meanwhile; it says that it is ready."""
        within = ["nsenter", "-t", str(self._pid), "-m", "-p", "chroot", str(self.root), *command]
        with subprocess.Popen(within, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield
            finally:
                process.kill()

    def status(self) -> str:
        return self.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "tagtrail").stdout

    def current(self) -> str:
        return os.readlink(self.files / "opt/tagtrail/current").rpartition("/")[2]

    def releases(self) -> set[str]:
        return {file.name for file in (self.files / RELEASES).iterdir()}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    shutil.copy(PACKAGES[-1], folder / "first.deb")
    return folder


@pytest.fixture
def machine(tmp_path: Path, packages: Path) -> Iterator[Machine]:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        MOUNTS,
        str(mounted),
        str(packages),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            pytest.skip("this machine allows no overlay mounts")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Machine(mounted / "root", int(children[0]))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def another(packages: Path) -> Callable[..., str]:
    """Return the package as another version, changed by `change`."""

    def make(version: str, change: Change = lambda release: None) -> str:
        return f"/tmp/packages/{later(packages / 'first.deb', version, packages, change).name}"

    return make


def test_install_upgrade_downgrade_purge(machine: Machine, another: Callable[..., str]) -> None:
    installed = machine.dpkg("-i", "/tmp/packages/first.deb", interpreted=False)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    first = machine.current()
    assert machine.status() == f"install ok installed {first}"
    release = machine.files / RELEASES / first
    assert f"ExecStart=/{RELEASES}/{first}/bin/tagtrail run" in (machine.files / UNIT).read_text()
    shipped = machine.files / "usr/lib/tagtrail/release/numba"
    kernels = {file.relative_to(release / "numba") for file in (release / "numba").rglob("*.nbc")}
    assert kernels
    assert kernels == {file.relative_to(shipped) for file in shipped.rglob("*.nbc")}, "nothing was compiled here"
    assert machine.run("tagtrail", "version").stdout.strip()
    assert not [line for line in machine.run("dpkg", "--verify", "tagtrail").stdout.splitlines() if line]

    # A store, with the demo's store file.
    demo = (machine.files / "usr/share/doc/tagtrail/examples/store.toml").read_text()
    (machine.files / "etc/tagtrail/s1.toml").write_text(demo)
    (machine.files / "etc/modules-load.d/tagtrail.conf").write_text("usbserial\n")

    # Python of the system is replaced.
    for thing in (f"/usr/lib/{VERSIONED}", "/usr/bin/python3", f"/usr/bin/{VERSIONED}"):
        assert machine.run("mv", thing, f"{thing}.away").returncode == 0
    assert machine.run("python3", "-V").returncode == 127
    checked = machine.run("tagtrail", "check", "/etc/tagtrail/s1.toml")
    assert checked.returncode == 0, checked.stderr

    upgraded = machine.dpkg("-i", another("0.2.0"))
    assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
    assert machine.current() == "0.2.0"
    assert machine.releases() == {first, "0.2.0"}
    assert (machine.files / "etc/modules-load.d/tagtrail.conf").read_text() == "usbserial\n"

    def break_it(release: Path) -> None:
        (warmup,) = release.glob("lib/python*/site-packages/edge/service/warmup.py")
        warmup.write_text("raise RuntimeError('broken')\n")

    broken = machine.dpkg("-i", another("0.3.0", break_it))
    assert broken.returncode != 0
    assert "not switched" in broken.stderr
    assert machine.current() == "0.2.0"
    assert f"/{RELEASES}/0.2.0/bin/tagtrail run" in (machine.files / UNIT).read_text()
    assert machine.run("tagtrail", "check", "/etc/tagtrail/s1.toml").returncode == 0

    (machine.files / "etc/tagtrail/s1.toml").write_text("[store]\nnonsense = 1\n")
    refused = machine.dpkg("-i", another("0.4.0"))
    assert refused.returncode != 0
    assert "correct what is wrong first with: /etc/tagtrail/s1.toml" in refused.stderr
    assert machine.current() == "0.2.0"
    (machine.files / "etc/tagtrail/s1.toml").write_text(demo)
    configured = machine.dpkg("--configure", "tagtrail")
    assert configured.returncode == 0, configured.stderr
    assert machine.current() == "0.4.0"
    assert machine.releases() == {"0.2.0", "0.4.0"}

    downgraded = machine.dpkg("-i", "/tmp/packages/first.deb")
    assert downgraded.returncode == 0, downgraded.stderr
    assert machine.current() == first
    assert machine.releases() == {"0.4.0", first}

    data = machine.files / "var/lib/tagtrail/s1"
    data.mkdir(parents=True)
    (data / "tagtrail.db").touch()
    removed = machine.dpkg("-r", "tagtrail")
    assert removed.returncode == 0, removed.stderr
    assert (data / "tagtrail.db").exists()
    assert (machine.files / "etc/tagtrail/s1.toml").exists()
    assert not (machine.files / "opt/tagtrail").exists()
    assert not (machine.files / UNIT).exists()

    purged = machine.dpkg("-P", "tagtrail")
    assert purged.returncode == 0, purged.stderr
    places = ("etc", "usr/bin", "usr/lib", "usr/local", "usr/share/doc", "opt", "var/lib", "var/cache")
    left = machine.run("find", *(f"/{place}" for place in places), "-xdev", "-iname", "*tagtrail*").stdout
    assert not [line for line in left.splitlines() if "/.pyenv/" not in line]


SYSTEMCTL = """#!/bin/sh
# Restarting works; release 0.3.0 migrates the database.
case "$1" in
  try-restart)
    if [ "$(readlink /opt/tagtrail/current)" = /opt/tagtrail/releases/0.3.0 ]; then
      cp /var/lib/tagtrail/s1/tagtrail.db /var/lib/tagtrail/s1/tagtrail.db.before-9999_later
      cp /tmp/packages/newer.db /var/lib/tagtrail/s1/tagtrail.db
    fi ;;
  stop) echo "$2" >>/tmp/stopped ;;
esac
"""
SERVICE = """
import asyncio, json, os, sys

async def told(reader, writer):
    release = os.readlink("/opt/tagtrail/current").rpartition("/")[2]
    readers = [{"id": "r1", "link": "down" if release == "0.3.0" else "up"}]
    state = {"version": release, "broker": {"connected": release != "0.3.0"}, "readers": readers}
    writer.write(json.dumps(state).encode() + b"\\n")
    writer.close()

async def serve():
    server = await asyncio.start_unix_server(told, "/var/lib/tagtrail/s1/tagtrail.db.live")
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(serve())
"""


def database(file: Path, *migrations: str) -> None:
    """A database of this release, or with further migrations of a later one."""
    from edge.database.writer import Database

    made = Database(file, store="demo", quota_mb=64)
    for name in migrations:
        row = ("tagtrail", name, "2030-01-01")
        made.write_now(lambda conn, row=row: conn.execute(LATER, row).fetchall())
    made.close()


LATER = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)"


def test_a_release_under_which_less_works_is_taken_back(
    machine: Machine, another: Callable[..., str], packages: Path, tmp_path: Path
) -> None:
    """With a systemctl and a service of the test's own: what is tried is the installer."""
    installed = machine.dpkg("-i", "/tmp/packages/first.deb")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    first = machine.current()
    (machine.files / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    control = machine.files / "usr/bin/systemctl"
    control.unlink()
    control.write_text(SYSTEMCTL)
    control.chmod(0o755)
    demo = (machine.files / "usr/share/doc/tagtrail/examples/store.toml").read_text()
    path = 'path = "/var/lib/tagtrail/s1/tagtrail.db"'
    (machine.files / "etc/tagtrail/s1.toml").write_text(re.sub(r'^path = ".*[.]db"', path, demo, flags=re.MULTILINE))
    data = machine.files / "var/lib/tagtrail/s1"
    data.mkdir(parents=True)
    database(tmp_path / "store.db")
    shutil.copy(tmp_path / "store.db", data / "tagtrail.db")
    database(packages / "newer.db", "9999_later")
    (machine.files / "tmp/service.py").write_text(SERVICE)

    with machine.started(f"/{RELEASES}/{first}/bin/python", "/tmp/service.py"):
        before = machine.run("tagtrail", "status", "-c", "/etc/tagtrail/s1.toml")
        assert before.stdout == f"Tagtrail {first}: broker connected, 1 of 1 readers up\n", before.stderr
        taken = machine.dpkg("-i", another("0.2.0"))
        assert taken.returncode == 0, taken.stdout + taken.stderr
        assert machine.current() == "0.2.0"
        back = machine.dpkg("-i", another("0.3.0"))

    assert back.returncode != 0
    assert "the broker is away; reader r1 is away" in back.stderr
    assert "store s1 is not as it was before with release 0.3.0; release 0.2.0 is active again" in back.stderr
    assert machine.current() == "0.2.0"
    assert f"/{RELEASES}/0.2.0/bin/tagtrail run" in (machine.files / UNIT).read_text()
    assert (machine.files / "tmp/stopped").read_text() == "tagtrail@s1\n"
    assert (data / "tagtrail.db").read_bytes() == (tmp_path / "store.db").read_bytes(), "that of before the migration"
    assert not list(data.glob("*.before-*"))
