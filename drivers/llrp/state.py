"""What an LLRP session goes by: how patient it is, where a connection stands, what it remembers of its reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto


@dataclass(frozen=True)
class Timing:
    """Wall seconds."""

    connect_s: float = 5.0
    greeting_s: float = 10.0
    answer_s: float = 20.0
    """Readers that have just started take their time."""
    keepalive_s: float = 10.0
    """The reader is asked for a sign of life this often, and given up after two periods of silence."""
    gather_s: float = 0.1
    """After reads have come, the next are left to gather until the loop's time is a multiple of it."""
    drained_s: float = 2.0
    """Without an old read for so long, the reader has handed over all that it kept."""
    overflow_s: float = 10.0
    """Without any read for so long after an overflow, the loss has ended."""
    quiet_s: float = 5.0
    """Without a read for so long, the reader is asked whether the inventory still runs …"""
    look_s: float = 15.0
    """… and again each time after so long."""
    close_s: float = 1.0
    """At the end, what the reader is just sending is waited for no longer than this."""
    retry_first_s: float = 0.5
    retry_cap_s: float = 60.0
    steady_s: float = 60.0
    """A link that has been up for so long is steady: the next attempt comes soon again, when it is lost."""


class Phase(Enum):
    """Where a connection stands; it moves down this list, and a step back when the reader loses the inventory."""

    OPENING = auto()  # TCP connect under way
    GREETING = auto()  # open; nothing may be sent before the reader's ConnectionAttemptEvent (20.1.1)
    CONFIGURING = auto()  # accepted; our requests go out one by one
    INVENTORY = auto()  # our ROSpec runs: silence means no tag, as long as keepalives come


@dataclass
class Memory:
    """What a session knows of its reader, from one connection to the next."""

    identity: str | None = None
    """MAC or EPC as the reader tells it, in capital hex digits."""
    keeps: bool = True
    """Does the reader keep its reads while we are away; not known at the start: it may."""
    state_value: int | None = None
    """LLRPConfigurationStateValue as we left it: another one means that somebody changed the reader."""
    newest_us: int = 0
    """Store time of the newest read that came."""
    detail: dict[str, str] = field(default_factory=dict)
    """What the reader says of itself."""
    inputs: frozenset[int] = frozenset()
    """Those that are watched."""
    outputs: dict[int, bool] = field(default_factory=dict)
    """What they shall show."""
    noticed: dict[str, float] = field(default_factory=dict)
    """What has been passed on to health, and when (loop time): a loose plug must not fill it."""
