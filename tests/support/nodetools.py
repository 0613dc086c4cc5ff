"""Tools that only npm has, for a second opinion on the contract's documents; installed once a run of the tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "node"


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
def node_tools(tmp_path_factory: pytest.TempPathFactory) -> NodeTools:
    """Skips where npm, or what it would fetch, can't be had."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    for file in [*SOURCE.glob("*.mjs"), *SOURCE.glob("package*.json")]:
        shutil.copy(file, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        got = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not get the tools in time")
    if got.returncode:
        pytest.skip(f"npm cannot get the tools: {got.stderr.strip().splitlines()[-1:]}")
    return NodeTools(folder)
