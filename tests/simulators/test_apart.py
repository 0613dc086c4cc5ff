"""The simulated radio and the engine's beliefs know nothing of each other: neither by import nor by copy.

An engine that is judged in a world of its own figures is right there and nowhere else.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIMULATORS, ENGINE = ROOT / "simulators", ROOT / "dwell"
QUANTITIES = {
    "level": ("level_1m", "level_3m", "level_dbm", "loud_dbm"),
    "slope": ("slope",),
    "sensitivity": ("half_dbm", "half_rate", "sensitivity", "hear_min", "deaf_dbm"),
    "height": ("height_m", "antenna_height"),
    "beam": ("beam_deg",),
    "spread": ("shadow_db", "spread_db", "fast_db", "fast_still", "fast_moving", "slow_moving", "slow_db"),
    "offset": ("offset_db", "between_db"),
    "card": ("body_db", "bias_db", "bias_start", "bias_spread", "person_db"),
    "block": ("block_db", "hidden_db", "blocked_db", "block_rate", "clear_median", "clear_s", "block_short"),
    "slab": ("floor_db", "slab_db", "storey_db"),
    "link": ("rate_width", "logistic", "width_db"),
}
"""What the air does, and pieces of the names that it goes by on either side."""


def named_figures(folder: Path) -> dict[str, set[float]]:
    """Quantity → figures that code of a folder gives it as literals: constants, defaults, arguments by name.

    Ranges that are drawn from count with neither end: only what is fixed can be shared.
    """
    found: dict[str, set[float]] = defaultdict(set)

    def note(name: str, value: ast.expr | None) -> None:
        figure = literal(value)
        if figure is not None:
            for quantity, pieces in QUANTITIES.items():
                if any(piece in name.lower() for piece in pieces):
                    found[quantity].add(abs(figure))

    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        note(target.id, node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                note(node.target.id, node.value)
            elif isinstance(node, ast.keyword) and node.arg:
                note(node.arg, node.value)
            elif isinstance(node, ast.arguments):
                named = [*node.posonlyargs, *node.args]
                for argument, default in zip(named[len(named) - len(node.defaults) :], node.defaults, strict=True):
                    note(argument.arg, default)
                for argument, given in zip(node.kwonlyargs, node.kw_defaults, strict=True):
                    note(argument.arg, given)
    return found


def literal(value: ast.expr | None) -> float | None:
    """A number other than 0 and ±1, which say that something is off, or left as it is."""
    try:
        number = ast.literal_eval(value) if value is not None else None
    except ValueError:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or abs(number) in (0, 1):
        return None
    return float(number)


def imports(folder: Path) -> set[str]:
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return found


def test_neither_imports_the_other() -> None:
    assert not [name for name in imports(SIMULATORS) if name.split(".")[0] in ("dwell", "edge")]
    assert not [name for name in imports(ENGINE) if name.split(".")[0] == "simulators"]


def test_neither_reads_the_other_s_files() -> None:
    for folder, other in ((SIMULATORS, "dwell"), (ENGINE, "simulators")):
        for file in folder.rglob("*.py"):
            text = file.read_text("utf-8")
            assert f"{other}/" not in text, file
            assert f"import_module({other!r}" not in text, file


def test_figures_are_found_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "SLOPE_DB = 23.0\n"
        "class A:\n    level_1m_dbm: float = -41.5\n    wide: float = 3.0\n"
        "def f(a, half_dbm=-70.5, *, floor_db=13.0): ...\n"
        "f(1, half_dbm=-71, shadow_db=rng.uniform(1, 5), offset_db=0.0)\n"
    )
    assert named_figures(tmp_path) == {
        "slope": {23.0},
        "level": {41.5},
        "sensitivity": {70.5, 71.0},
        "slab": {13.0},
    }


def test_both_sides_have_figures_to_compare() -> None:
    assert named_figures(SIMULATORS).keys() >= {"level", "slope", "sensitivity", "spread", "offset", "block", "slab"}
    assert len(named_figures(ENGINE)) >= 3


def test_no_figure_of_the_radio_stands_on_both_sides() -> None:
    world, engine = named_figures(SIMULATORS), named_figures(ENGINE)
    shared = {name: sorted(world[name] & engine[name]) for name in world.keys() & engine.keys()}
    assert not {name: figures for name, figures in shared.items() if figures}
