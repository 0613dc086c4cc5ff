"""A network of the test's own: namespaces on one switch, whose cables can be pulled."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator

import pytest

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""No namespace outlives its test, however that ends."""
CLONE_NEWNET = 0x40000000
NET = "10.77.0"
SWITCH = f"{NET}.254"
READY_S = 10.0


class Network:
    """A switch, on which this test itself has the address SWITCH. Use it as a context manager; skips the test where
    namespaces aren't allowed."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []
        self._plugged: dict[int, int] = {}
        self._parted: list[tuple[int, str]] = []
        self._switch = 0

    def __enter__(self) -> Network:
        if os.geteuid() != 0:
            pytest.skip("needs root for a network of its own")
        if any(shutil.which(name) is None for name in ("unshare", "nsenter", "setpriv", "ip")):
            pytest.skip("needs unshare, nsenter, setpriv and ip (Debian: util-linux, iproute2)")
        try:
            self._switch = self.space()
            self._run(self._switch, "link", "add", "switch", "type", "bridge")
            self._run(self._switch, "addr", "add", f"{SWITCH}/24", "dev", "switch")
            self._run(self._switch, "link", "set", "switch", "up")
        except (RuntimeError, TimeoutError) as error:
            self.close()
            pytest.skip(f"no network of its own is allowed here: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self._idle:
            process.kill()
            process.wait()

    def space(self) -> int:
        """Make a namespace, with loopback only; return the number of a process in it."""
        process = subprocess.Popen([*DIES_WITH_US, "unshare", "--net", "sleep", "infinity"])
        self._idle.append(process)
        own = os.readlink("/proc/self/ns/net")
        until_s = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/net") != own:
                    self._run(process.pid, "link", "set", "lo", "up")
                    return process.pid
            time.sleep(0.01)
        raise RuntimeError(f"unshare ended with {process.poll()}")

    def plug(self, pid: int, number: int) -> str:
        """Give the namespace of a process a cable to the switch, in place of one that is gone; return its address."""
        if number in self._plugged:
            with contextlib.suppress(RuntimeError):  # it may have gone with its namespace
                self._run(self._switch, "link", "del", f"port{number}")
        self._plugged[number] = pid
        cable = ("link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._run(self._switch, *cable)
        self._run(self._switch, "link", "set", f"port{number}", "master", "switch", "up")
        self._run(pid, "addr", "add", f"{address(number)}/24", "dev", "eth0")
        self._run(pid, "link", "set", "eth0", "up")
        return address(number)

    def pull(self, *numbers: int) -> None:
        """Pull cables: nobody hears of it, nothing is answered any more."""
        for number in numbers:
            self._run(self._switch, "link", "set", f"port{number}", "down")

    def part(self, some: Iterable[int], others: Iterable[int]) -> None:
        """Let nothing pass between some namespaces and others; everybody else still reaches all of them."""
        for one, other in {tuple(sorted(pair)) for pair in itertools.product(some, others) if pair[0] != pair[1]}:
            for here, there in ((one, other), (other, one)):
                self._run(self._plugged[here], "route", "add", "blackhole", f"{address(there)}/32")
                self._parted.append((self._plugged[here], address(there)))

    def mend(self) -> None:
        """Have everything pass again."""
        for number in self._plugged:
            self._run(self._switch, "link", "set", f"port{number}", "up")
        while self._parted:
            pid, other = self._parted.pop()
            self._run(pid, "route", "del", "blackhole", f"{other}/32")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and every process that it starts meanwhile, be on the switch."""
        own, switch = (os.open(f"/proc/{of}/ns/net", os.O_RDONLY) for of in ("thread-self", self._switch))
        try:
            _enter(switch)
            yield
        finally:
            _enter(own)
            os.close(own)
            os.close(switch)

    def _run(self, pid: int, *command: str) -> None:
        ran = subprocess.run(
            ["nsenter", "-t", str(pid), "-n", "ip", *command], capture_output=True, text=True, check=False, timeout=30
        )
        if ran.returncode:
            raise RuntimeError(f"ip {' '.join(command)}: {ran.stderr.strip()}")


def address(number: int) -> str:
    """The address of a namespace on the switch."""
    return f"{NET}.{number}"


def _enter(space: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
