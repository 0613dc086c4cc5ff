"""State of an LLRP session: timeouts, phases of a connection, and what is remembered about the reader."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from drivers.links import Noticed
from drivers.session import Tables


@dataclass(frozen=True)
class Timing:
    """Timeouts and intervals in wall seconds."""

    connect_s: float = 5.0
    greeting_s: float = 10.0
    answer_s: float = 20.0
    """Readers that have just started take their time."""
    keepalive_s: float = 10.0
    """Keepalive interval; the connection is given up after two intervals of silence."""
    gather_s: float = 0.1
    """Receiving pauses after each arrival until the loop's time is a multiple of this."""
    drained_s: float = 2.0
    """The backlog has drained after this long without a buffered read."""
    overflow_s: float = 10.0
    """A loss ends after this long without reads after an overflow."""
    quiet_s: float = 5.0
    """After this long without reads, the reader is asked whether the inventory still runs …"""
    look_s: float = 15.0
    """… and again each time after so long."""
    blind_s: float = 60.0
    """A reader that doesn't say which ROSpecs it has is offered ours again after this long without reads."""
    close_s: float = 1.0
    """Longest wait, at the end, for what the reader is just sending."""
    retry_first_s: float = 0.5
    retry_cap_s: float = 60.0
    steady_s: float = 60.0
    """A connection up for this long resets the backoff."""

    def patient(self, factor: float) -> Timing:
        """Return the timing for a reader that needs so much longer; retries and limits of our own stay."""
        longer = ("connect_s", "greeting_s", "answer_s", "keepalive_s", "drained_s", "quiet_s", "look_s", "blind_s")
        return replace(self, **{name: factor * getattr(self, name) for name in longer})


class Phase(Enum):
    """Phase of a connection; moves down this list, and a step back when the reader loses the inventory."""

    OPENING = auto()  # TCP connect under way
    GREETING = auto()  # open; nothing may be sent before the reader's ConnectionAttemptEvent (20.1.1)
    CONFIGURING = auto()  # accepted; our requests go out one by one
    INVENTORY = auto()  # our ROSpec runs: silence means no tag, as long as keepalives come


@dataclass
class Memory:
    """State of a reader that a session keeps from one connection to the next."""

    identity: str | None = None
    """MAC or EPC as the reader reports it, in capital hex digits."""
    keeps: bool = True
    """True if the reader buffers reads while disconnected; assumed at the start."""
    state_value: int | None = None
    """LLRPConfigurationStateValue as we left it: another value means that somebody changed the reader's
    configuration."""
    newest_us: int = 0
    """Store time of the newest read received."""
    detail: dict[str, str] = field(default_factory=dict)
    """Details that the reader reports about itself."""
    tables: Tables = field(default_factory=Tables)
    inputs: frozenset[int] = frozenset()
    """Inputs that the reader reports."""
    outputs: dict[int, bool] = field(default_factory=dict)
    """Wanted states of outputs."""
    noticed: Noticed = field(default_factory=Noticed)
    """Messages passed on to health: a loose plug must not flood it."""
