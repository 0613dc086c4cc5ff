"""Tools that only npm has, by their lock files; installed once a checkout, into `.node`."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


def installed(locked: Path, within_s: float = 200) -> Path:
    """A copy of folder `locked` with the node_modules of its lock file; skips where they can't be had.

    Test processes wait for each other here, so that only one installs.
    """
    npm, folder = shutil.which("npm"), TESTS.parent / ".node" / locked.name
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{locked.name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        lock, done = (locked / "package-lock.json").read_bytes(), folder / "done"
        if not done.exists() or done.read_bytes() != lock:
            done.unlink(missing_ok=True)
            shutil.copytree(locked, folder, dirs_exist_ok=True)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                got = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=within_s)
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm did not get {locked.name} in time")
            if got.returncode:
                pytest.skip(f"npm cannot get {locked.name}: {got.stderr.strip().splitlines()[-1:]}")
            done.write_bytes(lock)
        for script in locked.glob("*.mjs"):
            shutil.copy(script, folder)
    return folder


class NodeTools:
    """The scripts of tests/node in a folder where what they import is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, script: str, *arguments: str, given: Any = None) -> subprocess.CompletedProcess[str]:
        """Run a script with `given` as JSON on its standard input."""
        return subprocess.run(
            ["node", script, *arguments],
            cwd=self.folder,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=100,
        )

    def tell(self, script: str, *arguments: str, given: Any = None) -> str:
        """What it writes; it must not fail."""
        done = self.run(script, *arguments, given=given)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="session")
def node_tools() -> NodeTools:
    """The scripts of tests/node, ready to run."""
    return NodeTools(installed(TESTS / "node"))
