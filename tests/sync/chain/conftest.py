"""A chain's database, with its tables, and sinks in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from databases import Postgres

from sync.chain import schema, sink
from sync.chain.ledger import connect
from sync.chain.sink import Sink, SinkSettings
from sync.mqtt import MqttSettings


@pytest.fixture(scope="session")
def _chain_template(postgres_server: Postgres) -> str:
    """Name of a database with the tables: a copy takes a tenth of the time to set them up."""
    with connect(postgres_server.url) as conn:
        conn.execute("CREATE DATABASE chain_template")
    url = postgres_server.url.replace("/postgres", "/chain_template")
    with connect(url) as conn:
        schema.set_up(conn)
    return "chain_template"


@pytest.fixture
def chain(postgres_server: Postgres, _chain_template: str) -> str:
    """The URL of a chain's database of this test's own."""
    from uuid import uuid4

    name = f"crm_{uuid4().hex}"
    with connect(postgres_server.url) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {_chain_template}")
    return postgres_server.url.replace("/postgres", f"/{name}")


@pytest.fixture
def conn(chain: str) -> Iterator[Any]:
    with connect(chain) as made:
        yield made


StartSink = Callable[..., tuple[Sink, "asyncio.Task[None]"]]


@pytest.fixture
async def start(chain: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartSink]:
    """Start a sink of a lane on a broker; cancel its task to stop it."""
    for name, value in (
        ("RENEW_S", 0.1),
        ("LINGER_S", 0.3),
        ("SWEEP_S", 0.2),
        ("FLUSH_S", 0.1),
        ("DATABASE_RETRY_S", 0.2),
    ):
        monkeypatch.setattr(sink, name, value)
    running: list[asyncio.Task[None]] = []

    def make(url: str, lane: str = "bulk", mqtt: str = "3.1.1", **others: Any) -> tuple[Sink, asyncio.Task[None]]:
        made = Sink(SinkSettings(MqttSettings.from_url(url, "", version=mqtt), chain, lane, version="1", **others))
        task = asyncio.create_task(made.run())
        running.append(task)
        return made, task

    yield make
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
