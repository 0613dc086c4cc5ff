"""A PostgreSQL of the tests' own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from simulators.headquarters.broker import free_port


def _tool(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


class Postgres:
    """A server on a free port of the loopback, with its data in `folder`."""

    def __init__(self, folder: Path, who: dict[str, Any]) -> None:
        self._port = free_port()
        self._folder, self._who = folder, who
        self.url = f"postgresql://crm@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = ["-D", self._folder / "data", "-p", str(self._port), "-k", self._folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_tool("postgres")), *map(str, options), "-c", "listen_addresses=127.0.0.1"],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                **self._who,
            )
        import psycopg

        for _ in range(600):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url).close()
                return
            threading.Event().wait(0.1)
        raise AssertionError((self._folder / "log").read_text())

    def end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait(30)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL on a free port; skips where there is none."""
    pytest.importorskip("psycopg")
    initdb = _tool("initdb")
    if initdb is None or _tool("postgres") is None:
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    # It refuses to run as root.
    who: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="tagtrail-pg-"))
    try:
        if who:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        made = subprocess.run([initdb, "-D", data, "-A", "trust", "-U", "crm"], cwd=folder, capture_output=True, **who)
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot be set up here: {made.stderr.decode()[-200:]}")
        server = Postgres(folder, who)
        server.start()
        yield server
        server.end(signal.SIGQUIT)  # its files are deleted, so it need not write them out
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """The URL of a database of this test's own."""
    import psycopg

    name = f"crm_{uuid4().hex}"
    with psycopg.connect(postgres_server.url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    return postgres_server.url.replace("/postgres", f"/{name}")
