"""A PostgreSQL of the tests' own."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from simulators.headquarters.postgres import Postgres as Postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL on a free port; skips where there is none."""
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="tagtrail-pg-"))
    try:
        server = Postgres(folder)
        try:
            server.create()
        except RuntimeError as error:
            pytest.skip(str(error))
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
