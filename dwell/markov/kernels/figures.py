"""Sizes, times and numbers that the kernels share. No figure or table of a store: those come as arguments."""

from __future__ import annotations

import numpy as np

CELLS = 320
"""Active cells that a tag may have."""
EVENTS = 80
"""Undecided events that a tag may have."""
BLOCK = 32
"""Active cells are kept in blocks of so many."""
BLOCKS = CELLS // BLOCK
CHUNK, CHUNKS = 2048, 4
"""The pool of all tags' events is used in pieces of so many words, and so many pieces a tag are reserved."""
SPANS = 3
"""A silent event lasts 1, 4 or 16 ticks."""
WAYS = 8
"""Ways from a cell are a multiple of this many; those that don't exist lead back to it, and nobody takes them."""
RECENT = 6
"""Decided ticks that a tag remembers."""
HEARD = 24
"""Antennas that may hear a tag in a tick; more say nothing new."""
HALF, WIDE, PAD = 384, 512, 128
"""Tables by level differences have 2 · HALF columns, those by levels WIDE, beginning PAD steps below the lowest."""
QUIET = 65536
"""Log likelihoods of silence are summed as integers, so that an antenna can be taken out and put back exactly."""
BIAS_TICKS = 10
"""A tag's bias is followed each so many ticks."""
LOST_TICKS = 8
"""Whether a tag is somewhere else altogether is asked so often, and each tick once that seems possible."""
KNOWN_TICKS = 60
"""Events with reads after which a tag's bias and rate say something of others of its class."""
FAINT = 10.0
"""Walkers less likely than this, in multiples of what is dropped, aren't followed any farther."""
WATCH_TICKS = 4
"""So is what each antenna should have heard."""
MUTE_HITS, MUTE_TAGS = 25_000, 3
"""An antenna is taken for mute after so many expected hits (in thousandths) of so many tags."""
HEARD_AGAIN = 2
"""Of an antenna that was taken for mute."""
LONE_TICKS, FROZEN_TICKS = 10, 4
"""Reads with so many ticks of silence around them are lone; identical levels so far apart look frozen."""
STUCK_STATE = 7
"""lifecycle.State.STUCK."""
MOVED = 5
"""Events elsewhere after which a stuck tag isn't stuck any more."""
DOWNS = 8
"""Times of being unknown that a zone remembers."""
NONE = -1
"""In no zone."""
NEVER = np.iinfo(np.int64).max
SPARE, NOW, SEEK = 0, 1, 2
"""Tags.heads: how many blocks are spare, the present tick, and the first chunk that may be free."""
PLANE = 33_000
"""Room.work is cut into planes of so many numbers, one a cell. Their distance is known to the compiler, which could not
tell otherwise that they don't overlap, and would not use vectors. No multiple of 4 KiB: the caches hold few such."""
STANDS, STANDS_BLOCKED, WALKS, WALKS_BLOCKED = 0, PLANE, 2 * PLANE, 3 * PLANE
"""Probabilities of the support, in the order of its cells."""
CLEAR, BLOCKED = 4 * PLANE, 5 * PLANE
"""Emissions there."""
OTHER_CLEAR, OTHER_BLOCKED = 6 * PLANE, 7 * PLANE
"""Emissions for another class of bias or rate, or in cells aside; in predicting, walkers before they moved."""
WHOLE, LEAVE, STOP = 8 * PLANE, 9 * PLANE, 10 * PLANE
PLANES = 11

OPENED, CLOSED, ENDED, STUCK = 1, 2, 3, 4
READ, PLACED, CONFIRMED, STAYED, FADED, VISIT_CLOSED, JOURNEY_ENDED, RESTED = 0, 1, 2, 3, 4, 5, 6, 7
"""lifecycle.Event."""

READS, MERCHANDISE, DUPLICATES, TAGS, STRAYS, FROZEN = 0, 1, 2, 3, 4, 5
COUNTERS = 6
ONE_BITS, BIT_SHIFT = 0x3F800000, 20
"""Bits of 1.0 as float32, and how many of a number's last bits the pool leaves out: steps of an eighth of an octave."""
