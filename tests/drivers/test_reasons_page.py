"""docs/readers.md tells what to do about everything that a session says of its reader."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAYING = {"LinkFailure", "ReaderError", "TransportError", "drop", "_notice", "_tell", "_say", "Gap", "tell", "Notice"}
OURS = {"closed by us", "too many callers", "nobody waits for this caller"}
"""Said of connections that nobody hears of."""


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def pieces(node: ast.AST) -> list[str]:
    """Literal texts of a string or f-string; what is filled in splits them."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return [part.value for part in node.values if isinstance(part, ast.Constant)]
    return []


def sayings() -> list[tuple[str, list[str]]]:
    found = []
    for file in sorted((ROOT / "drivers").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                texts = [pieces(each) for each in node.args] if name in SAYING else []
            elif isinstance(node, ast.Return) and node.value is not None and file.name in ("wire.py", "transport.py"):
                texts = [pieces(node.value)]
            else:
                continue
            found += [
                (f"{file.relative_to(ROOT)}:{node.lineno}", text) for text in texts if len(words(" ".join(text))) > 2
            ]
    return found


def test_every_reason_is_on_the_page() -> None:
    page = " ".join(words((ROOT / "docs/readers.md").read_text("utf-8")))
    found = [(where, texts) for where, texts in sayings() if not set(texts) & OURS]
    assert len(found) > 40
    missing = []
    for where, texts in found:
        runs = [" ".join(run[i : i + 3]) for run in map(words, texts) for i in range(max(1, len(run) - 2))]
        if not any(run in page for run in runs if len(run.split()) > 1):
            missing.append(f"{where} says {texts}, which docs/readers.md does not have")
    assert missing == []
