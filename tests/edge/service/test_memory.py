"""What large arrays leave goes back to the system, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edge.store.resident import unwritten

SCRIPT = """
import sys
import numpy as np
if sys.argv[1] == "settled":
    from edge.service.memory import settle
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


COMPILER = """
from edge.service.memory import COMPILER
from edge.service.warmup import warm_up
from edge.store.resident import let_go_of

def resident_mib():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssFile"))
    return int(line.split()[1]) / 1024

warm_up()
before = resident_mib()
let_go_of(COMPILER)
print(before - resident_mib())
warm_up()

from numba import njit
assert njit(lambda n: n + 1)(1) == 2  # compiled anew: its code comes back from the file
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells of mappings")
def test_the_compiler_is_let_go_of_and_comes_back_when_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILER], capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) > 20


BITCODE = """
from edge.service.memory import let_go_of_bitcode, settle
settle()
from edge.service.warmup import warm_up

def resident_mib():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024

warm_up()
before = resident_mib()
let_go_of_bitcode()
print(before - resident_mib())
warm_up()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to trim")
def test_loaded_kernels_work_without_their_bitcode() -> None:
    done = subprocess.run([sys.executable, "-c", BITCODE], capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) > 6


SMAPS = """\
7f0000000000-7f0000004000 r-xp 00000000 08:01 42                         /venv/lib/libcompiler.so
Rss:                  16 kB
Anonymous:             0 kB
Swap:                  0 kB
SwapPss:               0 kB
VmFlags: rd ex mr mw me
7f0000004000-7f0000006000 r--p 00004000 08:01 42                         /venv/lib/libcompiler.so
Rss:                   8 kB
Anonymous:             8 kB
Swap:                  0 kB
7f0000006000-7f0000008000 r--p 00006000 08:01 42                         /venv/lib/libcompiler.so
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  8 kB
7f0000008000-7f000000a000 rw-p 00008000 08:01 42                         /venv/lib/libcompiler.so
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  0 kB
7f000000a000-7f000000b000 r-xp 00000000 08:01 43                         /venv/lib/other.so
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
7f000000b000-7f000000c000 r-xp 00000000 00:00 0
"""


def test_only_pages_that_nobody_wrote_are_let_go_of_be_they_in_memory_or_swapped_out() -> None:
    assert list(unwritten(SMAPS, "libcompiler.so")) == [(0x7F0000000000, 0x4000)]
