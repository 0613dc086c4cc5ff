"""The first start of a store: no kernel is compiled, and a watchdog waits."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from gateways import Gateway

UNIT = Path(__file__).parents[2] / "systemd" / "tagtrail@.service"


def test_a_start_without_compiled_kernels_keeps_the_watchdog_quiet(tmp_path: Path) -> None:
    found = re.search(r"^WatchdogSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    watchdog_s = int(found[1])
    gateway = Gateway(tmp_path)
    gateway.configure()
    gaps = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(watchdog_s)
        paths = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--no-web", "--config", str(gateway.file)],
            env=os.environ | paths,
            stdin=subprocess.DEVNULL,
        )
        try:
            # As systemd does: the watchdog is armed by the first message.
            manager.settimeout(None)
            message = manager.recv(4096)
            manager.settimeout(watchdog_s)
            last_s = time.monotonic()
            while b"READY=1" not in message:
                message = manager.recv(4096)
                gaps.append(time.monotonic() - last_s)
                last_s = time.monotonic()
        finally:
            process.terminate()
            process.wait(30)
    assert list((tmp_path / "numba").rglob("*.nbi")), "nothing was compiled"
    print(f"ready after {sum(gaps):.0f} s; the longest silence was {max(gaps):.1f} s of {watchdog_s} s")
