"""The machine: Python, room on the disk, wear of the flash, clock, compiled kernels."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from edge.doctor.findings import Finding, error, ok, unknown, warning
from edge.store import timekeeping
from edge.store.timekeeping import Kept

RELEASES = Path("/opt/tagtrail/releases")
CACHES = Path("/var/cache/tagtrail")
RELEASE_MB = 700
"""A release while it is installed: the package's files, or wheels and the environment made of them."""
BLOCK_DEVICES = Path("/sys/block")
WORN = 0x08
"""JEDEC eMMC life time estimate, in steps of 10 %: 70 to 80 % used."""
WORN_OUT = 0x0B
WRITES_AFTER_S = 3600.0
MUCH_WRITTEN_MB = 10_000
"""A day. Consumer flash of 32 GB, good for some hundred times its size, lasts a year then."""


def examine(version: str, config_file: Path, *, live_version: str | None) -> Iterator[Finding]:
    """Yield findings. `live_version`: of the running service, None without one."""
    yield _program(version, live_version)
    yield from _room()
    yield from flash(BLOCK_DEVICES)
    yield _kernels(version, config_file)


def _program(version: str, live_version: str | None) -> Finding:
    python = platform.python_version()
    if struct.calcsize("P") < 8 or sys.version_info < (3, 11):
        return error("program", f"Python {python} on {platform.machine()} is not supported", NEEDS_PYTHON)
    if live_version is not None and live_version != version:
        return warning(
            "program", f"the service runs {live_version}, but {version} is installed", "Restart the service."
        )
    return ok("program", f"Tagtrail {version}, Python {python}, {platform.machine()}")


NEEDS_PYTHON = "Use a 64-bit system with Python 3.11 or newer."


def _room() -> Iterator[Finding]:
    if not RELEASES.is_dir():
        return
    free_mb = shutil.disk_usage(RELEASES).free // 2**20
    if free_mb < RELEASE_MB:
        yield warning(
            "room for a release",
            f"{free_mb} MB are free in {RELEASES}; the next release needs {RELEASE_MB} MB",
            "Free some space before the next upgrade.",
        )
    else:
        yield ok("room for a release", f"{free_mb} MB are free in {RELEASES}")


def flash(devices: Path) -> Iterator[Finding]:
    """Yield what eMMC devices say about their wear (JEDEC JESD84-B51, EXT_CSD 267 to 269)."""
    for file in sorted(devices.glob("mmcblk*/device/life_time")):
        name = file.parents[1].name
        try:
            used = max(int(part, 16) for part in file.read_text().split())
            state = int(file.with_name("pre_eol_info").read_text(), 16)
        except (OSError, ValueError):
            yield unknown("flash", f"{name} doesn't say how worn it is")
            continue
        if used >= WORN_OUT or state == 3:
            yield error("flash", f"{name} has reached its rated life", "Replace the device now; make a backup first.")
        elif used >= WORN or state == 2:
            yield warning("flash", f"{name} has used {10 * used} % of its rated life", "Plan to replace the device.")
        elif used:
            yield ok("flash", f"{name} has used at most {10 * used} % of its rated life")


def mb_a_day(up_s: float, written_bytes: int | None) -> float | None:
    """Return the MB that the service writes to disk in a day; None if it has not run for long enough to tell."""
    if written_bytes is None or up_s < WRITES_AFTER_S:
        return None
    return written_bytes / up_s * 86_400 / 1e6


def written(up_s: float, written_bytes: int | None) -> Iterator[Finding]:
    """Judge how much the service writes to disk, once that can be told."""
    a_day_mb = mb_a_day(up_s, written_bytes)
    if a_day_mb is None:
        return
    if a_day_mb > MUCH_WRITTEN_MB:
        yield warning(
            "writing",
            f"the service writes {a_day_mb:.0f} MB a day: flash wears out",
            "Raise [database] checkpoint_s; look for floods of tags.",
        )
    else:
        yield ok("writing", f"the service writes {a_day_mb:.0f} MB a day")


def _kernels(version: str, config_file: Path) -> Finding:
    where = os.environ.get("NUMBA_CACHE_DIR")
    if where is None and (CACHES / config_file.stem).is_dir():
        where = str(CACHES / config_file.stem / f"numba-{version}")
    if where is None:
        return unknown("kernels", "no folder for compiled kernels is set (NUMBA_CACHE_DIR)")
    count = sum(1 for _ in Path(where).rglob("*.nbc"))
    if not count:
        return warning("kernels", f"no compiled kernels in {where}: the next start takes minutes", WARM_UP)
    return ok("kernels", f"{count} compiled kernels in {where}")


WARM_UP = "Run tagtrail warmup with NUMBA_CACHE_DIR set to that folder, or wait for the next start to end."


def clock(trust: str | None, reason: str) -> Finding:
    """Judge the clock. `trust`, `reason`: what the service thinks of it; None without a service."""
    todo = "Have a time service running: timedatectl set-ntp true, and let the gateway reach an NTP server."
    if trust == "untrusted":
        return error("clock", f"the clock can't be trusted: {reason}", todo)
    if reason:
        return warning("clock", f"the clock may be wrong: {reason}", todo)
    if timekeeping.is_kept() is Kept.KEPT or trust == "trusted":
        return ok("clock", "the clock is kept right")
    return warning("clock", "no time service keeps the clock right", todo)
