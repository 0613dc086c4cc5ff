"""The nodes of a chain's log are cut off from one another, and from everybody, while 100 stores send: nothing stops as
long as two of three hear each other, and the chain commits on when none does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from brokers import MosquittoBroker, Until
from chains import in_the_log
from databases import Postgres
from nats.errors import Error as NatsError
from networks import Network, address
from parts import Chain, herds

from simulators.headquarters.log import LogNode
from sync.chain import schema
from sync.chain.ledger import connect
from sync.chain.log import LogSettings, stream_of
from sync.chain.log import connect as connect_to_log
from sync.contract import EventClass

STORES = 100
EVENTS: dict[EventClass, tuple[int, int]] = {"member": (240, 1), "agg": (960, 4), "health": (480, 5)}
"""Events of each store and class, and how many in a batch."""
SENDING_S = 240
NODES = (1, 2, 3)
WITHIN_S = 60.0


class FarNode(LogNode):
    """A node of the log in a network namespace of its own."""

    def __init__(self, network: Network, folder: Path, number: int) -> None:
        self._space = network.space()
        routes = tuple(f"{address(node)}:6222" for node in NODES)
        super().__init__(folder, number, routes, network.plug(self._space, number))

    def command(self) -> list[str]:
        """See LogNode."""
        return ["nsenter", "-t", str(self._space), "-n", *super().command()]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network, network.inside():
        yield network


@pytest.fixture
async def chain(
    postgres_server: Postgres, postgres: str, network: Network, cell: MosquittoBroker, tmp_path: Path
) -> AsyncIterator[Chain]:
    """With a log on the network, and everything else on its switch."""
    database = postgres_server.by_socket(postgres)
    with connect(database) as conn:
        schema.set_up(conn)
    nodes = [FarNode(network, tmp_path / "log", number) for number in NODES]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))
        made = Chain(tmp_path, database, cell.url, ",".join(node.url for node in nodes))
        made.start()
        stack.callback(made.close)
        yield made


class Watch:
    """How far the chain and its log have come."""

    def __init__(self, chain: Chain, conn: Any, until: Until) -> None:
        self._chain, self._conn, self._until = chain, conn, until

    def committed(self) -> int:
        (n,) = self._conn.execute("SELECT coalesce(sum(received), 0)::bigint FROM chain.series").fetchone()
        return int(n)

    async def commits(self, events: int) -> None:
        """Wait until some more events are committed."""
        wanted = self.committed() + events
        await self._until(lambda: self.committed() >= wanted, within_s=WITHIN_S)

    async def log_follows(self) -> float:
        """Wait until the log has, and its reader reads beyond, what is committed by now; seconds that it takes."""
        began = time.monotonic()
        (last,) = self._conn.execute("SELECT last_value FROM chain.fanout_id_seq").fetchone()
        left = "SELECT count(*) FROM chain.fanout WHERE id <= %s"
        await self._until(lambda: self._conn.execute(left, (last,)).fetchone() == (0,), within_s=WITHIN_S)
        took_s = time.monotonic() - began
        read = self._chain.messages_read()
        await self._until(lambda: self._chain.messages_read() > read, within_s=WITHIN_S)
        return took_s

    async def log_is_whole(self) -> None:
        """Wait until each stream has a leader, and two more nodes that are up to date."""
        client = await connect_to_log(LogSettings(self._chain.servers), "watch")

        async def whole() -> bool:
            with contextlib.suppress(NatsError, TimeoutError):
                for class_ in EVENTS:
                    cluster = (await client.jetstream(timeout=2).stream_info(stream_of(class_))).cluster
                    others = [one for one in cluster.replicas or [] if one.current and not one.offline]
                    if not cluster.leader or len(others) != len(NODES) - 1:
                        return False
                return True
            return False

        try:
            await self._until(whole, within_s=WITHIN_S)
        finally:
            await client.close()


async def test_the_logs_nodes_are_cut_off(
    chain: Chain, network: Network, until: Until, tell: Callable[[str], None]
) -> None:
    sending = asyncio.gather(*(herd.run() for herd in herds(chain.cell, STORES, EVENTS, SENDING_S)))
    one_cut_off: list[tuple[str, Callable[[], None]]] = []
    for node in NODES:
        others = [other for other in NODES if other != node]
        one_cut_off.append(("one of everybody", partial(network.pull, node)))
        one_cut_off.append(("one of the other two", partial(network.part, [node], others)))
    all_cut_off: list[tuple[str, Callable[[], None]]] = [
        ("all of everybody", partial(network.pull, *NODES)),
        ("all of one another", partial(network.part, NODES, NODES)),
    ]
    lag_s: dict[str, list[float]] = {}
    with connect(chain.database) as conn:
        watch = Watch(chain, conn, until)
        for name, cut in one_cut_off:
            await watch.log_is_whole()
            cut()
            await watch.commits(STORES)
            lag_s.setdefault(name, []).append(await watch.log_follows())
            network.mend()
        for name, cut in all_cut_off:
            await watch.log_is_whole()
            cut()
            await watch.commits(150 * STORES)  # until nodes and clients take their connections for dead
            assert not in_the_log(conn)
            network.mend()
            lag_s.setdefault(name, []).append(await watch.log_follows())
    assert not sending.done()
    async with asyncio.timeout(2 * SENDING_S):
        await sending
    told = await chain.everything_is_there_once(STORES, EVENTS, until)
    cuts = "; ".join(f"{name} {', '.join(f'{one:.0f}' for one in some)} s" for name, some in lag_s.items())
    tell(f"{STORES} stores, log cut off (until it has what was committed): {cuts}: {told}")
