"""Detect two gateways with the same identity: the one that started later stays silent, and both report it. If one has a
higher term, because it has taken over from the other, the other stops, whichever started later."""

from __future__ import annotations

from pydantic import ValidationError

from sync.contract import State
from sync.mqtt import BrokerError


class TwinError(BrokerError):
    """Another gateway, started before this one, publishes as this store."""


class SupersededError(BrokerError):
    """Another gateway publishes as this store, with the higher term `term`."""

    def __init__(self, term: int) -> None:
        super().__init__("another gateway has taken over the store's service: this one keeps away")
        self.term = term


class Twins:
    """Tells another gateway's state from our own, which comes back to us, and from that of an earlier process."""

    def __init__(self, instance: str, started_us: int, term: int = 0) -> None:
        self._instance = instance
        self._term = term
        self.overwritten = False
        """True if the last state looked at is of a lower term: the broker has it in place of ours."""
        self._started_us = started_us
        self._sessions = 0
        self._own_state_seen = False
        self.echoed = False
        """True once the broker has delivered our own state on this connection."""
        self._former: set[str] = set()

    def connected(self) -> None:
        """Note a new connection."""
        self._sessions += 1
        self.echoed = False

    def look(self, payload: bytes, retained: bool = False) -> str | None:
        """Return the message about a state that another gateway published as this store; TwinError if we must stay
        away, SupersededError if for good. `retained`: the broker had it when we subscribed."""
        self.overwritten = False
        try:
            state = State.model_validate_json(payload)
        except ValidationError:
            return None
        if state.term > self._term:
            raise SupersededError(state.term)
        if state.term < self._term:
            self.overwritten = True
            return None
        if state.instance == self._instance:
            self._own_state_seen = self.echoed = True
        elif state.instance and (not self._own_state_seen or (retained and self._sessions == 1)):
            # A broker may deliver what it had retained after what was published since.
            self._former.add(state.instance)
        elif state.instance and (state.online or self._sessions > 1 or state.instance not in self._former):
            reason = f"another gateway publishes as this store (started {state.started_us}, epoch {state.epoch})"
            if (state.started_us, state.instance) < (self._started_us, self._instance):
                self._own_state_seen = False
                self._former = {state.instance} if not state.online else set()
                raise TwinError(f"{reason}: this one, which started later, keeps away")
            return reason
        return None
