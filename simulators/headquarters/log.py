"""The log of a chain as processes: NATS servers with JetStream, one or a cluster of three, for the demo and tests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from simulators.headquarters.broker import Broker, binary, free_port

_NODE = """
server_name: log-{number}
listen: "{host}:{port}"
log_file: "{folder}/log-{number}.log"
jetstream {{ store_dir: "{folder}/log-{number}", max_memory_store: 64MB, max_file_store: 40GB }}
"""
_CLUSTER = """
cluster {{ name: tagtrail, listen: "{route}", routes: [{routes}] }}
"""


class LogNode(Broker):
    """One node; `routes` are the addresses at which the nodes of a cluster listen for each other, this one's by
    `number`."""

    def __init__(self, folder: Path, number: int = 1, routes: tuple[str, ...] = (), host: str = Broker.host) -> None:
        super().__init__(folder)
        self._number, self._routes, self.host = number, routes, host

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    def command(self) -> list[str]:
        """See Broker."""
        text = _NODE.format(number=self._number, host=self.host, port=self.port, folder=self._folder.resolve())
        if self._routes:
            routes = ", ".join(f'"nats://{route}"' for route in self._routes)
            text += _CLUSTER.format(route=self._routes[self._number - 1], routes=routes)
        config = self._folder / f"log-{self._number}.conf"
        config.write_text(text)
        return [binary(), "-c", str(config)]


class Log:
    """A log of one node, or a cluster of three."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        routes = tuple(f"{Broker.host}:{free_port()}" for _ in range(nodes)) if nodes > 1 else ()
        self.nodes = [LogNode(folder, number, routes) for number in range(1, nodes + 1)]

    @property
    def servers(self) -> str:
        """Addresses of all nodes, for `--log`."""
        return ",".join(node.url for node in self.nodes)

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(node.start() for node in self.nodes))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))
