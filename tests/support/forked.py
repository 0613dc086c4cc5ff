"""Run `tagtrail` in a process forked from one that has imported everything and loaded the kernels.

A cold start takes a second and a half of CPU, and the tests start it some hundred times. There is one fork server
(fork_server.py) for all workers of pytest, started with the first process that is wanted. Tests of start-up itself run
`sys.executable -m edge`, or use `Gateway.start(cold=True)`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, ClassVar

ADDRESS = "TAGTRAIL_FORK_SERVER"
"""Environment variable with the path of its socket, for the workers."""
SERVER = Path(__file__).with_name("fork_server.py")


class Forked:
    """One run, with the part of `subprocess.Popen` that tests need. Streams are files, by default the null device."""

    running: ClassVar[set[int]] = set()
    ended_s = 0.0
    """Process ids of this process's runs, and the CPU time of those that have ended."""

    def __init__(
        self,
        *arguments: object,
        stdin: IO[Any] | None = None,
        out: IO[Any] | None = None,
        err: IO[Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment`: more variables than this process has; not those that Python or its libraries look at first."""
        self._code: int | None = None
        self._reading = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server())
        its = {**os.environ, **(environment or {})}
        wanted = {"arguments": [str(one) for one in arguments], "environment": its, "folder": os.getcwd()}
        with open(os.devnull, "r+b", buffering=0) as nowhere:
            socket.send_fds(self._server, [b"\n"], [(file or nowhere).fileno() for file in (stdin, out, err)])
        self._server.sendall(json.dumps(wanted).encode() + b"\n")
        self._told = self._server.makefile("r")
        self.pid: int = self._next()["pid"]
        self.running.add(self.pid)

    def poll(self) -> int | None:
        """Return the exit code, the negative signal number, or None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; TimeoutExpired."""
        if (code := self._look(timeout)) is None:
            raise subprocess.TimeoutExpired("tagtrail", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, if it still runs, and wait for it."""
        if self.poll() is None:
            os.kill(self.pid, 9)
            self.wait()

    def _look(self, within_s: float | None) -> int | None:
        if self._code is None and select.select([self._server], [], [], within_s)[0]:
            with self._reading:
                if self._code is None:  # else another thread was faster
                    ended = self._next()
                    self._code = ended["code"]
                    self.running.discard(self.pid)
                    Forked.ended_s += ended["cpu_s"]
                    self._told.close()
        return self._code

    def _next(self) -> Any:
        line = self._told.readline()
        if not line:
            raise RuntimeError("the fork server has ended; what it said is in pytest's standard error")
        return json.loads(line)

    def __del__(self) -> None:
        self._server.close()  # the server kills whom nobody waits for


def run(*arguments: object, given: bytes = b"", within_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; kills it and raises TimeoutExpired if it takes longer."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(given)
        stdin.seek(0)
        process = Forked(*arguments, stdin=stdin, out=out, err=err)
        try:
            code = process.wait(within_s)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(
            [str(argument) for argument in arguments], code, out.read().decode(), err.read().decode()
        )


def server() -> str:
    """The fork server's socket: pytest's, or one of this process's own. The server starts with the first connection."""
    return os.environ.get(ADDRESS) or _listen()


@cache
def _listen() -> str:
    folder = tempfile.mkdtemp(prefix="tagtrail-forks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[ADDRESS] = path = f"{folder}/socket"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(100)
    threading.Thread(target=_serve, args=(listening,), daemon=True).start()
    return path


def _serve(listening: socket.socket) -> None:
    select.select([listening], [], [])
    with listening:  # after the server's end, connections are refused
        server = subprocess.Popen(
            [sys.executable, SERVER, str(listening.fileno())],
            stdin=subprocess.PIPE,  # closed when this process ends, which ends the server
            pass_fds=[listening.fileno()],
            start_new_session=True,  # Ctrl-C is for pytest
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        server.wait()
