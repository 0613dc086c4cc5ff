"""Learns a store's radio in a process of its own, when nothing else wants the machine: a pickle in, a pickle out."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys


def main() -> None:
    """Learn from (layout, reads, known field or None) on standard input; Learnt or None on standard output. Reads it
    before the seconds that importing takes, since the service keeps it until then.
    """
    given = sys.stdin.buffer.read()
    os.nice(19)
    with contextlib.suppress(OSError, AttributeError):  # another system than Linux, or not allowed
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    from dwell.markov.learner import look

    layout, reads, known = pickle.loads(given)
    del given
    sys.stdout.buffer.write(pickle.dumps(look(layout, reads, known)))


if __name__ == "__main__":
    main()
