"""`tagtrail takeover`: what a takeover would do, in words, and doing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from config import StoreConfig
from edge.cues.orders import ask
from edge.database.lock import hold
from edge.standby import roles
from edge.standby.mirror import Mirror, copy_of
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path
from edge.store.timekeeping import APART_US, duration

WITHIN_S = 60.0
SERVING_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What is to be done. `state`: of the standby's process; None if none runs."""

    config: StoreConfig
    id: str | None
    state: dict[str, Any] | None

    @classmethod
    async def of(cls, config: StoreConfig, id_: str | None) -> Plan:
        """Find out how things are on this gateway. Raises Trouble if it can't take over."""
        if config.standby is None:
            raise Trouble(roles.NONE_IN_FILE)
        path = config.database.path
        state = await ask(socket_path(config, "standby"), {"do": "tell"})
        if "whole" in state:
            if not state["whole"]:
                raise Trouble(f"the copy is not whole yet: {state['reason'] or 'it is being made'}")
            if state["unfit"]:
                raise Trouble(f"this gateway can't take over: {state['unfit']}")
            return cls(config, id_, state)
        if roles.serves(path):
            raise Trouble("this gateway has taken over already")
        if not copy_of(path).exists():
            raise Trouble("this gateway is not the standby: run this on the one that runs tagtrail standby")
        return cls(config, id_, None)

    @property
    def text(self) -> str:
        """What would happen, for the person who decides."""
        return "\n".join(self._lines())

    async def carry_out(self) -> str:
        """Take over, and wait until this gateway serves; returns how it went. Raises Trouble."""
        if self.state is None:
            term = await asyncio.to_thread(self._by_hand)
            return f"This gateway has the service now, with term {term}: start tagtrail standby here, which serves."
        done = await ask(socket_path(self.config, "standby"), {"do": "take over"}, WITHIN_S)
        if done["refused"] == "offline":
            raise Trouble("the standby's process has not answered: see its log before you try again")
        if done["refused"] is not None:
            raise Trouble(f"this gateway can't take over: {done['refused']}")
        how = "The other gateway has handed over" if done["handed_over"] else "The other gateway has not handed over"
        how += "" if done["witness_told"] else ", and the witness could not be told"
        until_s = time.monotonic() + SERVING_S
        while time.monotonic() < until_s:
            if await read_once(socket_path(self.config)) is not None:
                return f"{how}; this gateway runs the service, with term {done['term']}."
            await asyncio.sleep(0.25)
        return f"{how}; this gateway is starting the service, with term {done['term']}: see its log."

    def _by_hand(self) -> int:
        here = roles.gateway_of(self.config, self.id)
        with hold(self.config.database.path):
            return roles.take_over(self.config, Mirror(self.config.database.path), exact=False, name=here.name)

    def _lines(self) -> Iterator[str]:
        state = self.state
        direct = ", ".join(reader.id for reader in self.config.readers if reader.via is None)
        if state is not None and state["connected"]:
            yield "The service is connected. It stops, sends the rest, and this gateway runs the service from then on."
            yield "Nothing is lost. If it should not answer within a few seconds, this gateway takes over without it."
            if direct:
                yield f"Until the readers without via are connected from here, their zones are unknown: {direct}."
        else:
            if state is None:
                yield "The standby's process does not run here: nobody asks the service to hand over."
            elif state["heard_us"] is None:
                yield f"The service has not been heard since the standby was started: {state['reason']}."
            else:
                ago = duration(max(0, state["now_us"] - state["heard_us"]))
                yield f"The service was last heard {ago} ago: {state['reason']}."
            yield "If it still runs somewhere, it stops as soon as it hears of the takeover. What may be missing here:"
            yield "- what the service has counted, and told the CRM, since it went on without the standby;"
            if direct:
                yield f"- reads of the readers without via, until they are connected from here: {direct};"
                yield "  their zones are unknown for that time, and do not count as empty."
        if state is not None and state["keyless"]:
            yield "The service's tag key is not here: nobody is recognised until the directory comes again."
        apart_us = abs(state["clock_offset_us"] or 0) if state is not None else 0
        if apart_us > APART_US:
            yield f"The clocks of the two gateways are {duration(apart_us)} apart: zones are unknown for as long."
        serial = [reader.id for reader in self.config.readers if reader.via is None and reader.address.startswith("/")]
        if serial:
            yield f"Readers on a serial line of the other gateway stay unknown: {', '.join(serial)}."
