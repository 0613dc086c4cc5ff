"""Run `tagtrail` in a process forked from one that has imported everything and loaded the kernels.

A cold start takes a second and a half of CPU, and the tests start it some hundred times. Tests of start-up itself run
`sys.executable -m edge`, or use `Gateway.start(cold=True)`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from typing import IO, Any

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["edge.service.service", "edge.cli.main", "simulators.cli", "simulators.headquarters.crm", "forked_from"]
)


class Forked:
    """One run, with the part of `subprocess.Popen` that tests need. Streams are files, by default the null device."""

    def __init__(
        self, *arguments: object, stdin: IO[Any] | None = None, out: IO[Any] | None = None, err: IO[Any] | None = None
    ) -> None:
        _ready()
        texts = [str(argument) for argument in arguments]
        with open(os.devnull, "r+b", buffering=0) as nowhere:
            streams = [_Stream((file or nowhere).fileno()) for file in (stdin, out, err)]
            self._process = _forks.Process(target=_run, args=(texts, streams, dict(os.environ)), daemon=True)
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, the negative signal number, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("tagtrail", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


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


@cache
def _ready() -> None:
    """Start the fork server with this process's sys.path, which it gets by itself only from Python 3.14 on."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


class _Stream:
    """File descriptor that is passed to the other process, where it becomes a number."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (DupFd(self._descriptor),)


def _arrived(duplicate: Any) -> int:
    return int(duplicate.detach())


def _run(arguments: list[str], streams: list[int], environment: dict[str, str]) -> None:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["tagtrail", *arguments]
    sys.orig_argv = [sys.executable, "-m", "edge", *arguments]
    from edge.cli.main import main

    main()
