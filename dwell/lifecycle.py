"""A tag's life: its states, what may happen to it, and the one table of transitions.

1. A tag is CANDIDATE from its first read on; strays never get further and are soon forgotten.
2. Only a *decided* zone makes a tag PRESENT; reads alone don't.
3. PRESENT becomes DWELLING when the visit has lasted as long as a visit must (Settings.visit_us).
4. A visit under way outlives silence: a body hides a tag for minutes. LEAVING says that its end is likely, no more.
5. A visit ends by reads elsewhere, by silence longer than bodies cause, or with the recording; never because a
   reader is down.
6. Nobody rests in one zone for half a day: such a tag is STUCK (a card in a drawer, goods of somebody else's) and
   counts for nothing until it moves.
7. Between visits a tag is ABSENT: its journey goes on until it ends; then it is GONE and its place is free.

The kernels get the table as an argument: a cached kernel would keep an old one.
"""

from __future__ import annotations

import sys
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class State(IntEnum):
    """Where a tag is in its life."""

    UNSEEN = 0
    """No place in the engine's tables."""
    CANDIDATE = 1
    """Read, but never yet decided to be in a zone."""
    PRESENT = 2
    """In a zone."""
    DWELLING = 3
    """In a zone for at least as long as a visit must last."""
    LEAVING = 4
    """Its visit is open, but it has been silent, or in no zone, for longer than usual."""
    ABSENT = 5
    """Its journey goes on, but it is in no zone."""
    GONE = 6
    """Its journey has ended; the next read begins another life."""
    STUCK = 7
    """Has rested in its zone for longer than anybody does."""


class Event(IntEnum):
    """What may happen to a tag."""

    READ = 0
    """An antenna hears a tag without a place."""
    PLACED = 1
    """A visit begins: the tag was decided to be in a zone in which it wasn't."""
    CONFIRMED = 2
    """Decided to be in the zone of its open visit, which is still short."""
    STAYED = 3
    """The same, and the visit has lasted as long as a visit must."""
    FADED = 4
    """Silent, or decided to be in no zone, for the join gap."""
    CLOSED = 5
    """Its visit has ended and no other has begun."""
    ENDED = 6
    """Journey over; or, without a journey, silent for long enough to be forgotten."""
    RESTED = 7
    """Its visit has lasted for longer than Settings allows its class."""


TABLE: dict[State, dict[Event, State]] = {
    State.UNSEEN: {
        Event.READ: State.CANDIDATE,
    },
    State.CANDIDATE: {
        Event.PLACED: State.PRESENT,
        Event.ENDED: State.GONE,  # a stray
    },
    State.PRESENT: {
        Event.PLACED: State.PRESENT,  # straight into the next zone
        Event.CONFIRMED: State.PRESENT,
        Event.STAYED: State.DWELLING,
        Event.FADED: State.LEAVING,
        Event.CLOSED: State.ABSENT,
    },
    State.DWELLING: {
        Event.PLACED: State.PRESENT,
        Event.CONFIRMED: State.DWELLING,
        Event.STAYED: State.DWELLING,
        Event.FADED: State.LEAVING,
        Event.CLOSED: State.ABSENT,
        Event.RESTED: State.STUCK,
    },
    State.LEAVING: {
        Event.PLACED: State.PRESENT,
        Event.CONFIRMED: State.PRESENT,  # it was only hidden
        Event.STAYED: State.DWELLING,
        Event.FADED: State.LEAVING,
        Event.CLOSED: State.ABSENT,
    },
    State.ABSENT: {
        Event.PLACED: State.PRESENT,
        Event.ENDED: State.GONE,
    },
    State.STUCK: {
        Event.PLACED: State.PRESENT,  # it has moved
        Event.ENDED: State.GONE,
    },
    State.GONE: {
        Event.READ: State.CANDIDATE,
    },
}
"""Events that a state doesn't list can't happen in it."""

IMPOSSIBLE = 255


def transitions() -> NDArray[np.uint8]:
    """(states, events) next state, or IMPOSSIBLE: TABLE as the kernels take it."""
    table = np.full((len(State), len(Event)), IMPOSSIBLE, np.uint8)
    for state, row in TABLE.items():
        for event, after in row.items():
            table[state, event] = after
    return table


def diagram() -> str:
    """TABLE as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.UNSEEN.name}"]
    for state, row in TABLE.items():
        arrows: dict[State, list[str]] = {}
        for event, after in row.items():
            arrows.setdefault(after, []).append(event.name.lower())
        lines += [f"    {state.name} --> {after.name}: {', '.join(events)}" for after, events in arrows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(diagram())
