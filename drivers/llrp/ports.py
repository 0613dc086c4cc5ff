"""Contacts (GPI) and outputs (GPO) of an LLRP reader over one connection. What it refuses is told, and nothing more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from drivers.llrp import codec
from drivers.llrp.codec import Message
from drivers.llrp.wire import LinkFailure

Ask = Callable[..., Awaitable[Message]]
"""LlrpConnection's: name and fields of a request to its answer; LinkFailure if none comes."""
Tell = Callable[[str], None]

GPI_EVENT = "GPIEvent"
"""sllurp's name of the notification."""


async def watch(ask: Ask, tell: Tell, inputs: Iterable[int], events: bool) -> frozenset[int]:
    """Switch inputs on (17.2.6.9); those that will be told of. `events`: whether the reader tells of any."""
    watched = set()
    for port in inputs:
        refused: str | None = "it does not tell of changes"
        if events:
            state = {"GPIPortNum": port, "GPIConfig": True}
            refused = codec.refusal(await ask("SET_READER_CONFIG", GPIPortCurrentState=[state]))
        if refused is None:
            watched.add(port)
        else:
            tell(f"the reader refuses to watch its input {port} ({refused}): nothing is counted there")
    return frozenset(watched)


class Outputs:
    """What the outputs of a connection show; `wanted`, which others change, says what they should."""

    def __init__(self, ports: Iterable[int], wanted: dict[int, bool]) -> None:
        self._ports, self._wanted = tuple(ports), wanted
        self._shown: dict[int, bool] = {}

    @property
    def due(self) -> bool:
        """Is there something to write."""
        return any(self._shown.get(port) is not self._wanted.get(port, False) for port in self._ports)

    async def write(self, ask: Ask, tell: Tell) -> None:
        """Bring all outputs to what is wanted (17.2.6.3); one that is refused is not tried again until it changes."""
        for port in self._ports:
            high = self._wanted.get(port, False)
            if self._shown.get(port) is high:
                continue
            self._shown[port] = high
            try:
                refused = codec.refusal(await ask("SET_READER_CONFIG", **off_or_on(port, high)))
            except LinkFailure as failure:
                refused = str(failure)
            if refused is not None:
                tell(f"the reader refuses to switch its output {port} ({refused})")

    def lit(self) -> list[int]:
        """Ports that are on."""
        return [port for port, high in self._shown.items() if high]


def off_or_on(port: int, high: bool) -> dict[str, Any]:
    """Fields of a SET_READER_CONFIG that switches one output."""
    return {"GPOWriteData": [{"GPOPortNumber": port, "GPOData": high}]}
