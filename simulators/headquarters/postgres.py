"""A PostgreSQL server as a process with its files in a folder, for the demo and tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from simulators.headquarters.broker import free_port

READY_S = 60.0


def tool(name: str) -> str | None:
    """Return the path of a program of PostgreSQL's, of the newest version that is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(versions[-1]) if versions else shutil.which(name)


class Postgres:
    """Server on a free loopback port, which it keeps over restarts, with its data in `folder`. Started by root it runs
    as `postgres`, who must be able to reach the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._who: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://crm@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int:
        """Number of its first process; RuntimeError if it isn't running."""
        if self._process is None:
            raise RuntimeError("PostgreSQL is not running")
        return self._process.pid

    def by_socket(self, url: str) -> str:
        """Return another address of one of its databases: its Unix socket, which is reached from any network."""
        return f"{url.replace(f'127.0.0.1:{self._port}', '')}?host={self._folder}&port={self._port}"

    def create(self) -> None:
        """Create the data directory; RuntimeError if that is impossible here."""
        initdb = tool("initdb")
        if initdb is None or tool("postgres") is None:
            raise RuntimeError("PostgreSQL is not installed: apt install postgresql")
        if self._who:
            shutil.chown(self._folder, "postgres", "postgres")
        command = [initdb, "-D", str(self._folder / "data"), "-A", "trust", "-U", "crm"]
        made = subprocess.run(command, cwd=self._folder, capture_output=True, check=False, **self._who)
        if made.returncode:
            raise RuntimeError(f"PostgreSQL cannot be set up here: {made.stderr.decode()[-200:]}")

    def start(self) -> None:
        """Start, or restart; returns when it accepts connections."""
        options = ["-D", self._folder / "data", "-p", str(self._port), "-k", self._folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(tool("postgres")), *map(str, options), "-c", "listen_addresses=127.0.0.1"],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                **self._who,
            )
        import psycopg

        for _ in range(int(READY_S / 0.1)):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url).close()
                return
            threading.Event().wait(0.1)
        raise RuntimeError((self._folder / "log").read_text())

    def end(self, number: int) -> None:
        """Send it a signal, and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
