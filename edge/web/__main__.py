"""Entry point of the page's process, started by the service as `python -m edge.web`.

The command line is not used because its packages would take 5 MiB of memory permanently.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

from edge.web import memory


def main() -> None:
    """Serve until SIGTERM, or until the service exits."""
    parser = argparse.ArgumentParser(prog="python -m edge.web")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--fd", type=int, help="listening socket inherited from the service")
    parser.add_argument("--parent", type=int, help="exit when this process exits")
    parser.add_argument("--clock-speed", type=float, default=1.0)
    parser.add_argument("--clock-origin-us", type=int, default=0)
    given = parser.parse_args()
    if given.parent is not None:
        _die_with(given.parent)
    memory.begin()
    from config.check import ConfigError, load
    from edge.crm.configuration import Overlay
    from edge.store.clock import Clock
    from edge.store.errors import Trouble
    from edge.store.journal import set_up
    from edge.web.serve import serve

    set_up()
    try:
        store = Overlay(load(given.config, files=False), given.config).config()
        serve(store, fd=given.fd, clock=Clock(given.clock_speed, given.clock_origin_us))
    except (ConfigError, Trouble) as error:
        sys.exit(f"tagtrail: {error}")


def _die_with(parent: int) -> None:
    """Exit together with the service, which would otherwise find its port in use when it restarts (prctl(2), Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the service has exited")


if __name__ == "__main__":
    main()
