"""Inputs (GPI) and outputs (GPO) of an LLRP reader over one connection. Refusals are only reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from drivers.links import LinkFailure
from drivers.llrp import codec
from drivers.llrp.codec import Message

Ask = Callable[..., Awaitable[Message]]
"""Request by name and fields, returning the response; LinkFailure if none arrives. Provided by LlrpConnection."""
Tell = Callable[[str], None]

GPI_EVENT = "GPIEvent"
"""sllurp's name of the notification."""


async def watch(ask: Ask, tell: Tell, inputs: Iterable[int], events: bool) -> frozenset[int]:
    """Enable inputs (17.2.6.9); returns those that will be reported. `events`: whether the reader reports any."""
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
    """Outputs of a connection; `wanted`, changed by others, is the target state."""

    def __init__(self, ports: Iterable[int], wanted: dict[int, bool]) -> None:
        self._ports, self._wanted = tuple(ports), wanted
        self._shown: dict[int, bool] = {}

    @property
    def due(self) -> bool:
        """True if an output must be written."""
        return any(self._shown.get(port) is not self._wanted.get(port, False) for port in self._ports)

    async def write(self, ask: Ask, tell: Tell) -> None:
        """Write all outputs to their wanted state (17.2.6.3); a refused one isn't tried again until it changes."""
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
        """Return the ports that are on."""
        return [port for port, high in self._shown.items() if high]


def off_or_on(port: int, high: bool) -> dict[str, Any]:
    """Return the fields of a SET_READER_CONFIG that switches one output."""
    return {"GPOWriteData": [{"GPOPortNumber": port, "GPOData": high}]}
