"""What drivers say of readers: the sentences of their code, to be looked for in docs and translations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DRIVERS = Path(__file__).parents[2] / "drivers"
SAYING = {
    *("LinkFailure", "ReaderError", "TransportError", "Gap", "Notice", "notice", "_notice"),
    *("tell", "_tell", "say", "_say", "idle", "lost", "strange", "drop", "turned_away", "_refuse"),
}
"""Calls whose arguments people read."""
NAMES = {"reason", "text", "waits"}
"""Variables that hold what is said later."""
TABLES = re.compile(r"_?(CODES|ERRORS|STATUS|STATUSES|FAILURES|REASONS|START_REFUSED|ATTEMPT_REFUSED|ENDED|GONE)")
WHY = re.compile(r"_?why\w*|insecure|other_pin|hung_up")
"""Functions that return a sentence."""
OURS = {"closed by us", "too many callers", "nobody waits for this caller"}
"""Said of connections that nobody hears of."""
MARK = "{}"
"""Stands for a value in a sentence."""


class Saying(NamedTuple):
    where: str
    text: str


def sayings() -> list[Saying]:
    """Every sentence of three words or more, with MARK for its values; each once."""
    found: dict[str, Saying] = {}
    for file in sorted(DRIVERS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            for line, text in _said(node):
                if len(re.findall(r"[A-Za-z']{2,}", text)) > 2 and text not in OURS:
                    found.setdefault(text, Saying(f"{file.relative_to(DRIVERS.parent)}:{line}", text))
    return list(found.values())


def _said(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in SAYING:
            for each in node.args:
                yield from _texts(each)
        for keyword in node.keywords:
            if keyword.arg == "failure":
                yield from _texts(keyword.value)
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {getattr(target, "id", getattr(target, "attr", "")) for target in targets}
        if names & NAMES or any(map(TABLES.fullmatch, names)):
            yield from _texts(node.value)
    elif isinstance(node, ast.FunctionDef) and WHY.fullmatch(node.name):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield from _texts(inner.value)


def _texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts in an expression; those inside another text are a part of it. Keys and subscripts aren't said."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.lineno, node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else MARK for part in node.values)
        yield node.lineno, "".join(map(str, parts))
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _texts(value)
    elif not isinstance(node, ast.Subscript | ast.Call | ast.Compare):
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)
