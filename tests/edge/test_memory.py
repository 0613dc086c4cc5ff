"""What large arrays leave goes back to the system, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
if sys.argv[1] == "settled":
    from edge.memory import settle
    settle()

def resident_mib():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

np.ones(30 << 17)  # 30 MiB, after which glibc takes such sizes from the heap
before = resident_mib()
large, small = [], []
for _ in range(80):
    large.append(np.ones(1 << 17))
    small.append(bytearray(2000))
del large
print(resident_mib() - before)
"""


def left_mib(how: str) -> float:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_what_large_arrays_leave_goes_back() -> None:
    assert left_mib("settled") < 10 < 60 < left_mib("as it is")
