"""Fork server: imports everything and loads the kernels, then forks for whoever connects.

A client connects to the socket whose descriptor is the argument, sends the three standard streams, and a line of JSON
with what `become` takes. It gets a line with the process's id, and another one with the exit code and the CPU time when
it has ended. If it closes the connection, its process is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("config", "drivers", "dwell", "edge", "simulators", "sync")
OTHERS = ("pytest", "jsonschema", "typer.testing")
"""No plugin of pytest and none of our helpers: pytest rewrites their assertions when it imports them."""


def preload() -> None:
    """Do what each run would do for itself."""
    ours = (found.name for name in PACKAGES for found in walk_packages([str(ROOT / name)], f"{name}."))
    for module in (*(name for name in ours if not name.endswith("__main__")), *OTHERS):
        import_module(module)
    import_module("edge.service.warmup").warm_up()
    compile_templates()
    build_commands()
    gc.collect()
    gc.freeze()  # collections in the forked would copy all pages


def compile_templates() -> None:
    """Each test's page would compile those that it shows."""
    demo = import_module("config.check").load(ROOT / "config" / "demo.toml", files=False)
    environment = import_module("edge.web.site").Site(demo, None, None, None).templates["en"]
    for name in environment.list_templates():
        environment.get_template(name)


def build_commands() -> None:
    """Typer would build all commands anew for each run, and for each call by its test runner."""
    typer: Any = import_module("typer.main")
    runner: Any = import_module("typer.testing")
    app = import_module("edge.cli.main").app
    runner._get_command = cache(typer.get_command)
    typer.get_command = cache(typer.get_command)
    ours = [(registered, list(registered)) for registered in (app.registered_groups, app.registered_commands)]
    import_module("simulators.cli").register(app)
    typer.get_command(app)
    for registered, before in ours:  # each run registers the simulators, and the test runner knows none
        registered[:] = before


class Server:
    """Serves until standard input ends."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._clients: dict[int, socket.socket] = {}
        self._ended, self._wake = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source, call in ((self._listening, self._start), (self._ended, self._reap), (sys.stdin, self._end)):
            self._selector.register(source, selectors.EVENT_READ, call)
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _start(self) -> None:
        client, _ = self._listening.accept()
        _, streams, *_ = socket.recv_fds(client, 1, 3)
        with client.makefile("r") as lines:
            wanted = json.loads(lines.readline())
        if not (pid := os.fork()):
            self._selector.close()
            for other in (client, self._listening, self._ended, self._wake, *self._clients.values()):
                other.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become(streams, **wanted)
        for stream in streams:
            os.close(stream)
        self._clients[pid] = client
        self._tell(pid, pid=pid)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._hung_up(pid))

    def _hung_up(self, pid: int) -> None:
        if pid in self._clients:  # it may just have been reaped
            self._selector.unregister(self._clients[pid])
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        self._ended.recv(4096)
        with contextlib.suppress(ChildProcessError):
            while (found := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, used = found
                self._tell(pid, code=os.waitstatus_to_exitcode(status), cpu_s=used.ru_utime + used.ru_stime)
                with contextlib.suppress(KeyError):  # it has hung up
                    self._selector.unregister(self._clients[pid])
                self._clients.pop(pid).close()

    def _tell(self, pid: int, /, **told: Any) -> None:
        with contextlib.suppress(OSError):
            self._clients[pid].sendall(json.dumps(told).encode() + b"\n")

    def _end(self) -> None:
        for pid in self._clients:
            os.kill(pid, signal.SIGKILL)
        sys.exit()


def become(
    streams: list[int], arguments: list[str], environment: dict[str, str], folder: str, code: str | None = None
) -> None:
    """Run `tagtrail`, or code with options of Python; doesn't return."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    status = 0
    try:
        if code is not None:
            sys.dont_write_bytecode = "-B" in arguments
            exec(code, {"__name__": "__main__"})
        else:
            sys.argv = ["tagtrail", *arguments]
            sys.orig_argv = [sys.executable, "-m", "edge", *arguments]
            import_module("edge.cli.main").main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    # As Python ends, but without giving back piece by piece what the system takes back at once.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    preload()
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()
