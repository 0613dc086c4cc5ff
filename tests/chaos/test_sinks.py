"""A chain's sinks, its broker, PostgreSQL, the log's nodes and its reader are killed at random while 300 stores send;
in the end every event is in PostgreSQL once, and once at the reader of the log."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import MosquittoBroker, Until
from databases import Postgres
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from parts import Chain, herds

from simulators.headquarters.log import Log, LogNode
from sync.chain import schema
from sync.chain.ledger import connect
from sync.chain.log import LogSettings, stream_of
from sync.chain.log import connect as connect_to_log
from sync.contract import EventClass

STORES = 300
EVENTS: dict[EventClass, tuple[int, int]] = {"member": (40, 1), "journey": (60, 2), "agg": (130, 6), "health": (120, 5)}
"""Events of each store and class, and how many in a batch."""
SENDING_S = 60
FAULTS = 70
EVERY_S = (0.2, 1.2)


class Faults(Chain):
    """What happens to a chain's parts, the database and the log."""

    def __init__(self, folder: Path, database: str, server: Postgres, cell: MosquittoBroker, log: Log) -> None:
        super().__init__(folder, database, cell.url, log.servers)
        self.server, self.broker, self.log = server, cell, log
        self.did: Counter[str] = Counter()
        self.lost_from_the_log = False
        self._gone: dict[LogNode, asyncio.Task[None]] = {}

    async def fault(self, dice: random.Random) -> None:
        """Let something happen."""
        faults: list[tuple[int, Callable[[random.Random], Any]]] = [
            (6, self.kill_a_sink),
            (4, self.let_a_sink_die),
            (1, self.let_a_sink_ignore_leases),
            (2, self.kill_the_broker),
            (5, self.kill_a_log_node),
            (1, self.kill_the_log),
            (2, self.stop_the_database),
            (3, self.kill_the_reader),
            (1, self.delete_from_the_log),
        ]
        chosen = dice.choices([fault for _, fault in faults], [weight for weight, _ in faults])[0]
        self.did[chosen.__name__.replace("_", " ")] += 1
        await chosen(dice)
        for part in (*self.sinks, self.reader):
            if not part.alive():
                part.start()

    async def kill_a_sink(self, dice: random.Random) -> None:
        dice.choice(self.sinks).kill()

    async def let_a_sink_die(self, dice: random.Random) -> None:
        """Between its commit and what follows, soon."""
        self._odd(dice, "dying")

    async def let_a_sink_ignore_leases(self, dice: random.Random) -> None:
        self._odd(dice, "rogue")

    def _odd(self, dice: random.Random, kind: str) -> None:
        number = dice.randrange(len(self.sinks))
        lane = "member" if number < 2 else "bulk"
        self.sinks[number].start("tests/support/odd_sinks.py", kind, *self.arguments, "--lane", lane)

    async def kill_the_broker(self, dice: random.Random) -> None:
        await self.broker.kill()
        await asyncio.sleep(dice.uniform(0, 1))
        await self.broker.start()

    async def kill_a_log_node(self, dice: random.Random) -> None:
        await self._away(dice.choice(self.log.nodes), dice.uniform(0.5, 3))

    async def kill_the_log(self, dice: random.Random) -> None:
        for node in self.log.nodes:
            await self._away(node, dice.uniform(1, 4))

    async def stop_the_database(self, dice: random.Random) -> None:
        how = dice.choice((signal.SIGQUIT, signal.SIGINT))
        await asyncio.to_thread(self.server.end, how)
        await asyncio.to_thread(self.server.start)

    async def kill_the_reader(self, _: random.Random) -> None:
        self.reader.kill()

    async def delete_from_the_log(self, dice: random.Random) -> None:
        """A stream, or some messages of one."""
        self.lost_from_the_log = True
        with contextlib.suppress(NatsError, JetStreamError, TimeoutError, OSError):
            async with asyncio.timeout(5):
                client = await connect_to_log(LogSettings(self.log.servers), "operator")
                try:
                    jetstream = client.jetstream()
                    stream = stream_of(dice.choice(list(EVENTS)))
                    if dice.random() < 0.5:
                        await jetstream.delete_stream(stream)
                        return
                    state = (await jetstream.stream_info(stream)).state
                    for _ in range(20):
                        await jetstream.delete_msg(stream, dice.randrange(state.first_seq, state.last_seq + 1))
                finally:
                    await client.close()

    async def _away(self, node: LogNode, seconds: float) -> None:
        """Kill a node that is there, and start it again after some seconds."""
        if node in self._gone:
            return
        await node.kill()

        async def come_back() -> None:
            await asyncio.sleep(seconds)
            await node.start()
            del self._gone[node]

        self._gone[node] = asyncio.create_task(come_back())

    async def mend(self) -> None:
        """Have everything work again."""
        await asyncio.gather(*self._gone.values())
        for sink in self.sinks:
            sink.start()


@pytest.fixture
async def chain(
    tmp_path: Path, postgres_server: Postgres, postgres: str, cell: MosquittoBroker
) -> AsyncIterator[Faults]:
    with connect(postgres) as conn:
        schema.set_up(conn)
    async with Log(tmp_path / "log") as log:
        made = Faults(tmp_path, postgres, postgres_server, cell, log)
        try:
            yield made
        finally:
            made.close()


async def test_everything_is_killed_at_random(chain: Faults, until: Until, tell: Callable[[str], None]) -> None:
    seed = time.time_ns()
    dice = random.Random(seed)
    print("seed", seed)
    chain.start()
    began = time.monotonic()
    sending = asyncio.gather(*(herd.run() for herd in herds(chain.cell, STORES, EVENTS, SENDING_S)))
    for _ in range(FAULTS):
        await asyncio.sleep(dice.uniform(*EVERY_S))
        await chain.fault(dice)
    await chain.mend()
    async with asyncio.timeout(300):
        await sending
    print(chain.did)
    told = await chain.everything_is_there_once(STORES, EVENTS, until, chain.lost_from_the_log)
    did = ", ".join(f"{n} × {name}" for name, n in chain.did.most_common())
    tell(f"{STORES} stores, {FAULTS} faults in {time.monotonic() - began:.0f} s ({did}): {told}")
