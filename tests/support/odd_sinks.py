"""Sinks that misbehave: `odd_sinks.py dying|rogue ARGUMENTS…`, as `tagtrail chain sink` otherwise.

dying: kills itself after a commit, before anybody is told, one commit in DIES. rogue: listens to all shards, whoever
holds their leases.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any

from sync.chain import leases, sink

DIES = 15


def main() -> None:
    kind = sys.argv.pop(1)
    if kind == "dying":
        after = sink.Sink._after

        def die(self: Any, messages: Any, *others: Any) -> None:
            if messages and random.randrange(DIES) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            after(self, messages, *others)

        sink.Sink._after = die  # type: ignore[method-assign, assignment]
    else:
        renew = leases.Leases.renew

        def all_of_them(self: Any, counters: Any = None) -> tuple[set[int], set[int]]:
            renew(self, counters)
            self.held = set(range(64))
            return set(), set()

        leases.Leases.renew = all_of_them  # type: ignore[method-assign]
    from edge.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
