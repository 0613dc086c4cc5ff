"""Tools from npm, by their locks, fetched once a checkout into `.node`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fetched(locked: Path, within_s: float = 200) -> Path:
    """A folder with the node_modules of `locked`'s package-lock.json; skips where npm can't get them."""
    npm, folder = shutil.which("npm"), ROOT / ".node" / locked.name
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    lock, done = locked / "package-lock.json", folder / "done"
    if not done.exists() or done.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(locked, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            got = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=within_s)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not get {locked.name} in time")
        if got.returncode:
            pytest.skip(f"npm cannot get {locked.name}: {got.stderr.strip().splitlines()[-1:]}")
        shutil.copy(lock, done)
    return folder
