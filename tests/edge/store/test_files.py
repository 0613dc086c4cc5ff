"""Every file that the service makes beside its database is in the list by which an erasure goes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.store.calibration_file import kept_at
from edge.store.files import Erasure, beside, copies, of

ROOT = Path(__file__).parents[3]
NAMES = {"database", "path", "_path", "file", "name"}
"""What a path beside the database is made of, by its last part in the code."""
OTHERS = {".npy", ".sql", ".po"}
"""Parts of archives and packages."""


def suffixes() -> Iterator[tuple[str, str]]:
    """Where the code makes a name out of another and a suffix, and the suffix."""
    for source in sorted((ROOT / "edge").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if not isinstance(node, ast.JoinedStr) or len(node.values) < 2:
                continue
            base, *rest = node.values
            made = "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in rest)
            if not isinstance(base, ast.FormattedValue) or not made.startswith(".") or " " in made or "*" in made:
                continue
            if ast.unparse(base.value).rpartition(".")[2] in NAMES and made not in OTHERS:
                yield f"{source.relative_to(ROOT)}:{node.lineno}", made


def test_every_suffix_in_the_code_is_of_a_listed_kind(tmp_path: Path) -> None:
    """One that isn't would be taken for somebody's copy, and no erasure would ever be complete."""
    database = tmp_path / "store.db"
    found = list(suffixes())
    assert {".radio.json", ".life", ".erased", ".tag-key", ".directory-1.part"} <= {suffix for _, suffix in found}
    for where, suffix in found:
        if suffix == ".1":
            continue  # sockets, by the name they are asked for
        names = (f"store.db{suffix}", f"store.web.db{suffix}", f"store.db{suffix}.json", f"store.db.erased{suffix}")
        made = [tmp_path / name for name in (*names, f"store.db.radio.json{suffix}", f"store.db.life{suffix}")]
        for file in made:
            file.touch()
        assert set(made) - set(copies(database)), f"{where} makes a file that ends in {suffix}"
        for file in made:
            file.unlink()


@pytest.mark.parametrize("name", ["", ".part"])
def test_what_was_learnt_of_the_radio_does_not_hold_an_erasure_up(tmp_path: Path, name: str) -> None:
    database = tmp_path / "store.db"
    file = Path(f"{kept_at(database)}{name}")
    file.touch()
    assert copies(database) == []
    assert [(there, kind and kind.erasure) for there, kind in beside(database)] == [(file, Erasure.NOTHING)]
    assert of(database, Erasure.DELETED) == []
