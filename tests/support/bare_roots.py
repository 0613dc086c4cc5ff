"""A bare Debian, into which a test installs what documents name: its root, and packages for its apt and pip."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dist/bare"
"""Kept, since it takes two minutes to make; `make clean` removes it."""
AROUND = """
# Without a network: apt takes what was fetched before, and so does pip.
echo 'APT::Get::Assume-Yes "true";' >etc/apt/apt.conf.d/90-asks-nobody
printf '[global]\\nno-index = true\\nfind-links = /srv/packages\\n' >etc/pip.conf
"""


def why_not() -> str | None:
    """Return why no such root can be made here; None if it can be tried."""
    if shutil.which("debootstrap") is None:
        return "needs debootstrap (Debian)"
    return None


def debian(packages: Sequence[str]) -> Path:
    """The root of a bare Debian of this machine's release, with these packages and what they need in apt's cache. Skips
    the test where they can't be had."""
    root, done = FOLDER / "root", FOLDER / "done"
    wanted = " ".join(sorted(packages))
    if done.exists() and done.read_text() == wanted:
        return root
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    include = "--include=systemd-sysv,iproute2,ca-certificates"
    _fetched("debootstrap", "--variant=minbase", include, release, str(root))
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    in_it = ("chroot", str(root), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y")
    _fetched(*in_it, "update")
    _fetched(*in_it, "clean")
    _fetched(*in_it, "install", "--download-only", *packages)
    done.write_text(wanted)
    return root


def wheels(folder: Path, *requirements: str) -> None:
    """Put wheels of these requirements, and of what they need, into a folder."""
    only = ("--only-binary", ":all:", "--find-links", str(folder))
    _fetched(
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        *only,
        "-d",
        str(folder),
        *requirements,
    )


def _fetched(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if ran.returncode:
        pytest.skip(f"{' '.join(command[:3])} …: {(ran.stdout + ran.stderr)[-500:].strip()}")
