"""A machine of the test's own: systemd booted as PID 1 in private namespaces, over an overlay of this machine's root or
of another one.

What it changes on its disk is forgotten with the test's folder. It has a network of its own, with loopback only, in
which programs of this machine can run beside it: readers, broker, CRM.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from networks import DIES_WITH_US

SYSTEMD = Path("/lib/systemd/systemd")
WITHIN_S = 120.0
VERSIONED = os.path.basename(os.path.realpath("/usr/bin/python3"))
BARE = f"""
# A bare machine: no Python, nothing of a store, no services but systemd's own.
rm -rf etc/systemd/system/*.wants etc/tagtrail var/lib/tagtrail opt/tagtrail root usr/local/bin
mkdir -p away/bin away/lib
mv usr/bin/python3* away/bin
mv usr/lib/{VERSIONED} away/lib
mkdir root
for unit in systemd-udevd systemd-logind mosquitto postgresql; do
  ln -sf /dev/null etc/systemd/system/$unit.service
done
"""
BOOT = """
set -e
disk=$1 packages=$2 lower=$3 first=$4
root=$disk/root
mkdir -p "$disk/upper" "$disk/work" "$root"
mount -t overlay overlay -o lowerdir="$lower",upperdir="$disk/upper",workdir="$disk/work" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys     # settings of the kernel are this machine's, too
for folder in run dev work tmp; do mkdir -p $folder; mount -t tmpfs -o mode=755 tmpfs $folder; done
chmod 1777 tmp
echo mounted
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir -p dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
if [ ! -e etc/first ]; then
  : >etc/machine-id
  mkdir -p srv/packages
  eval "$first"
  touch etc/first
fi
mount --bind "$packages" srv/packages
ip link set lo up
mkdir -p oldroot
pivot_root . oldroot
umount -l /oldroot
mount --make-rshared /                # otherwise systemd can't hand over credentials
exec env -i container=private PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
  /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=no </dev/null
"""

Ran = subprocess.CompletedProcess[str]


def why_not() -> str | None:
    """Return why no machine can be booted here; None if it can be tried."""
    if os.geteuid() != 0:
        return "needs root to boot systemd in namespaces of its own"
    if not SYSTEMD.exists() or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "needs systemd, unshare, nsenter and setpriv (Debian)"
    return None


class Booted:
    """The machine, whose root is `lower` with changes. `packages` is /srv/packages in it; `first` is done in its root
    before it boots for the first time."""

    def __init__(self, folder: Path, packages: Path, lower: Path = Path("/"), first: str = BARE) -> None:
        self._disk = folder / "disk"
        self._root = str(lower), first
        self._packages = packages
        self._log = folder / "boot.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._beside: list[subprocess.Popen[bytes]] = []
        self.pid = 0
        """Number of its first process here."""
        self._disk.mkdir()

    @property
    def files(self) -> Path:
        """Its root directory, as seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def boot(self) -> None:
        """Boot it; skips the test where namespaces or mounts aren't allowed."""
        command = [
            *DIES_WITH_US,
            "unshare",
            "--pid",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--cgroup",
            "--fork",
            "--kill-child",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "bash", "-c", BOOT, "boot", str(self._disk), str(self._packages), *self._root],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        until_s = time.monotonic() + WITHIN_S
        while time.monotonic() < until_s and self._process.poll() is None:
            ids = children.read_text().split()
            self.pid = int(ids[0]) if ids else 0
            if self.pid and Path(f"/proc/{self.pid}/comm").read_text() == "systemd\n":
                said = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
                if said in ("running", "degraded"):
                    return
            time.sleep(0.1)
        said = self._log.read_text()
        if "mounted\n" in said:
            pytest.fail(f"systemd did not boot: {said[-1000:]}")
        pytest.skip(f"no machine can be booted in namespaces here: {said[-300:].strip()}")

    def give_python(self) -> None:
        """Give it the Python of this machine, as other distributions have one."""
        self.sh("mv /away/bin/* /usr/bin; mv /away/lib/* /usr/lib")

    def cut_power(self) -> None:
        """End everything at once, programs beside it too."""
        for process in self._beside:
            process.kill()
            process.wait()
        self._beside.clear()
        if self._process is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def run(self, *command: str, check: bool = True, given: str = "", **environment: str) -> Ran:
        """Run a command as root in it; with `check` it must succeed."""
        inherited = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
        ran = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-u", "-i", "-C", "-r", "-w", *command],
            env=inherited | {"DEBIAN_FRONTEND": "noninteractive"} | environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if check:
            assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}{ran.stderr}{self.journal()}"
        return ran

    def sh(self, script: str, check: bool = True) -> str:
        """Run a shell script in it; return what it says."""
        return self.run("bash", "-ec", script, check=check).stdout.strip()

    def beside(self, *command: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program of this machine in the other's network."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*DIES_WITH_US, "nsenter", "-t", str(self.pid), "-n", *map(str, command)],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._beside.append(process)
        return process

    def journal(self, unit: str = "tagtrail@*", *options: str) -> str:
        """Return the messages of a unit."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, *options, check=False).stdout

    def shows(self, unit: str, property_: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "-P", property_, unit).stdout.strip()

    def until(self, condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Wait for a condition; fails with the journal."""
        until_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > until_s:
                pytest.fail(f"not within {within_s} s\n{self.journal()[-3000:]}")
            time.sleep(0.2)


def newest(packages: Sequence[Path]) -> Path | None:
    """Return the package that was built last."""
    return max(packages, key=lambda file: file.stat().st_mtime, default=None)
