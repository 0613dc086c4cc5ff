"""The unit as systemd's own tools judge it, and the installer as far as it goes without changing the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.database.keys import CREDENTIALS

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "systemd" / "tagtrail@.service"
INSTALL = ROOT / "systemd" / "install"
ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (apt install systemd)")
needs_python = pytest.mark.skipif(
    subprocess.run(
        ["/usr/bin/env", "/usr/bin/python3", "-c", "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"],
        capture_output=True,
        check=False,
    ).returncode
    != 0,
    reason="/usr/bin/python3 is not Python 3.11 with venv (apt install python3-venv)",
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as `install` writes it, with a program in its place."""
    program = tmp_path / "tagtrail"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/tagtrail/releases/@VERSION@/bin/tagtrail", str(program))
    written = tmp_path / UNIT.name
    written.write_text(text.replace("@VERSION@", "1.2.3"))
    return written


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ANALYZE), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def install(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(INSTALL), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


def pretend(folder: Path, program: str, says: str) -> str:
    """A PATH on which `program` says that."""
    fake = folder / program
    fake.write_text(f"#!/bin/sh\necho {says}\n")
    fake.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@needs_systemd
def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    judged = analyze("verify", "--man=no", unit)
    assert (judged.returncode, judged.stderr) == (0, "")


@needs_systemd
def test_an_unknown_line_would_be_noticed(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHomes="))
    assert "ProtectHomes" in analyze("verify", "--man=no", unit).stderr


@needs_systemd
def test_the_service_is_locked_up_well(unit: Path) -> None:
    judged = analyze("security", "--offline=true", "--threshold=15", unit)
    assert judged.returncode == 0, judged.stdout.splitlines()[-1:]


def test_the_service_writes_only_where_systemd_gave_it_room() -> None:
    text = UNIT.read_text()
    assert "ReadWritePaths" not in text
    for folder in ("State", "Cache", "Runtime"):
        assert f"\n{folder}Directory=tagtrail/%i\n" in text
    # One folder for each release: a kernel compiled from other sources must not be taken.
    assert re.search(r"^Environment=NUMBA_CACHE_DIR=%C/tagtrail/%i/\S*@VERSION@$", text, re.MULTILINE)


def test_a_first_start_finds_the_kernels_of_the_release() -> None:
    text = UNIT.read_text()
    (place,) = re.findall(r"^Environment=NUMBA_CACHE_DIR=(.*)$", text, re.MULTILINE)
    assert f"\nExecStartPre=-/bin/cp -rnT /opt/tagtrail/releases/@VERSION@/numba {place}\n" in text
    asked = set(re.findall(r"NUMBA_CPU_\w+=\w*", text))
    assert len(asked) == 2
    for script in (INSTALL, ROOT / "systemd/debian/build"):
        assert asked <= set(re.findall(r"NUMBA_CPU_\w+=\w*", script.read_text())), script


def test_every_secret_that_the_example_names_is_handed_over() -> None:
    example = (ROOT / "config" / "demo.toml").read_text("utf-8")
    named = set(re.findall(r"\$\{CREDENTIALS_DIRECTORY\}/([\w-]+)", example))
    assert {"mqtt-password", "mqtt-key", "page-key"} <= named
    handed = set(
        re.findall(r"^LoadCredential(?:Encrypted)?=([\w-]+):tagtrail\.%i\.\1$", UNIT.read_text(), re.MULTILINE)
    )
    assert handed == named | set(CREDENTIALS)


def test_code_can_be_compiled_at_run_time() -> None:
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not any("MemoryDenyWriteExecute" in line for line in settings)


def test_it_starts_a_release_and_not_the_link_that_moves() -> None:
    assert "\nExecStart=/opt/tagtrail/releases/@VERSION@/bin/tagtrail run --config /etc/tagtrail/%i.toml\n" in (
        UNIT.read_text()
    )


@needs_systemd
@needs_python
def test_a_dry_run_shows_every_step_and_needs_no_root() -> None:
    shown = install("--dry-run")
    assert shown.returncode == 0, shown.stderr
    steps = [
        "-m venv",
        "--require-hashes",
        "systemd/requirements.lock",
        "site-packages/narwhals",
        "warmup",
        "write /etc/systemd/system/tagtrail@.service",
        "/opt/tagtrail/current",
    ]
    places = [shown.stdout.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


@needs_systemd
def test_uninstalling_keeps_files_and_data_of_stores() -> None:
    shown = install("--uninstall", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    removed = [word for line in shown.stdout.splitlines() if line.startswith("rm ") for word in line.split()[2:]]
    assert {"/opt/tagtrail", "/etc/systemd/system/tagtrail@.service", "/usr/local/bin/tagtrail"} <= set(removed)
    assert not [path for path in removed if path.startswith(("/etc/tagtrail", "/var/lib", "/etc/credstore"))]
    assert "kept: /etc/tagtrail" in shown.stdout


@needs_systemd
def test_without_root_it_refuses_before_doing_anything(tmp_path: Path) -> None:
    # An interpreter of no use stops it in any case: a test must not install anything.
    refused = install(PATH=pretend(tmp_path, "id", "1000"), PYTHON="/bin/false")
    assert refused.returncode == 1
    assert refused.stderr.startswith("install: needs root")
    assert refused.stdout == ""


@needs_systemd
@needs_python
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--wheelhouse", "/no/such/folder"], "has no wheel for tagtrail"),
        (["--switch", "9.9.9"], "release 9.9.9 is not installed"),
        (["--switch", "../../etc"], "is not a version"),
        (["--switch"], "needs a value"),
        (["--frobnicate"], "unknown option --frobnicate"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(arguments: list[str], sentence: str) -> None:
    refused = install("--dry-run", *arguments)
    assert refused.returncode == 1
    assert sentence in refused.stderr


@needs_systemd
def test_an_old_python_is_told_what_is_needed() -> None:
    refused = install("--dry-run", PYTHON="/bin/false")
    assert refused.returncode == 1
    assert "needs Python 3.11 or newer" in refused.stderr


@needs_systemd
def test_an_interpreter_in_a_home_folder_is_refused(tmp_path: Path) -> None:
    refused = install(
        "--dry-run", PATH=pretend(tmp_path, "readlink", "/home/someone/bin/python3"), PYTHON=sys.executable
    )
    assert refused.returncode == 1
    assert "is in a home directory" in refused.stderr


def test_serial_drivers_are_loaded_before_the_unit_names_their_devices() -> None:
    modules = (ROOT / "systemd" / "modules-load.conf").read_text().split()
    assert {"usbserial", "ftdi_sio", "cp210x", "ch341", "cdc_acm"} <= set(modules)


def test_the_udev_example_names_readers_by_their_serial_number() -> None:
    rules = [
        line
        for line in (ROOT / "systemd" / "70-tagtrail-serial.rules.example").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules
    for rule in rules:
        assert re.fullmatch(
            r'SUBSYSTEM=="tty", ENV\{ID_VENDOR_ID\}=="[0-9a-f]{4}", ENV\{ID_SERIAL_SHORT\}=="[^"]+", '
            r'SYMLINK\+="rfid/[^"]+", TAG\+="systemd"',
            rule,
        )


def test_the_unit_waits_for_the_time_and_has_files_for_all_connections() -> None:
    from edge.web.patience import ALL_CONNECTIONS
    from edge.web.serve import BACKLOG

    lines = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line)
    assert "time-sync.target" in lines["Wants"].split()
    assert "time-sync.target" in lines["After"].split()
    assert int(lines["LimitNOFILE"]) >= 2 * (ALL_CONNECTIONS + BACKLOG)
