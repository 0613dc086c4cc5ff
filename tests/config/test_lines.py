"""The line finder, against texts whose lines are counted by hand and against tomllib's own idea of the keys."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from config.lines import Place, key_lines, line_of

TRICKY = '''\
# [comment] = 1
top = 1 # [x]
dotted . "quoted key".'literal.key' = 2
"esc\\u0041ped" = 'a # not a comment'
[plain]   # comment
text = """
[[not]]
a = "\\"" inside
"""
more = "]"
raw = \'\'\'
b = [\'\'\'
array = [
  1, # one ]
  [ 2,
    3 ],
  { x = 4, y = [
      5 ] },

  "last, ]",
]
when = 1979-05-27 07:32:00 # blank in a value
[plain.sub.deep]
k = {a.b = 1, "c d" = {e = ["}"]}}
[[many]]
id = 1
[[many.inner]]
z = 1
[[many.inner]]
z = 2
[many.inner.table]
q = 1
[[many]]
  id = 2
  [[many.inner]]
  z = 3
[ "many" . later ]
w = true
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 2),
        (("dotted", "quoted key", "literal.key"), 3),
        (("escAped",), 4),
        (("plain",), 5),
        (("plain", "text"), 6),
        (("plain", "more"), 10),
        (("plain", "raw"), 11),
        (("plain", "array"), 13),
        (("plain", "array", 0), 14),
        (("plain", "array", 1), 15),
        (("plain", "array", 1, 1), 16),
        (("plain", "array", 2, "y"), 17),
        (("plain", "array", 2, "y", 0), 18),
        (("plain", "array", 3), 20),
        (("plain", "when"), 22),
        (("plain", "sub"), 23),
        (("plain", "sub", "deep", "k", "c d", "e", 0), 24),
        (("many",), 25),
        (("many", 0, "inner", 0, "z"), 28),
        (("many", 0, "inner", 1), 29),
        (("many", 0, "inner", 1, "table", "q"), 32),
        (("many", 1), 33),
        (("many", 1, "id"), 34),
        (("many", 1, "inner", 0, "z"), 36),
        (("many", 1, "later", "w"), 38),
    ],
)
def test_line(place: Place, line: int) -> None:
    assert key_lines(TRICKY)[place] == line


def test_tricky_text_has_no_other_places() -> None:
    assert set(key_lines(TRICKY)) == set(places(tomllib.loads(TRICKY)))


def test_a_place_that_is_not_there_has_the_line_of_what_is_around_it() -> None:
    lines = key_lines("a = 1\n[[t]]\nx = 1\n[[t]]\nx = 2\n")
    assert line_of(lines, ("t", 1, "missing")) == 4
    assert line_of(lines, ("nowhere", "at", "all")) == 1


def test_windows_line_ends() -> None:
    assert key_lines("a = 1\r\n[b]\r\nc = 2 # x\r\n\r\nd = [\r\n 1,\r\n 2]\r\n")[("b", "d", 1)] == 7


def places(value: Any, at: Place = ()) -> list[Place]:
    """Every table, key and array element."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [at] if at else []
    for step, inner in steps:
        found += places(inner, (*at, step))
    return found


# Pieces that often make valid TOML when thrown together, and often mean something surprising.
_WORDS = """a b "c" 'd.e' . = 1 true "x" 'y' \"\"\" ''' " ' \\ [ ] [[ ]] { } , # 1.5e3 2020-01-01"""
_LINES = (" = ", "\n", "\r\n", " ", "[a]\n", "[[t]]\n", "[t.b]\n", "k = 1\n", "m = [1,\n2]\n")
_PIECES = st.sampled_from((*_WORDS.split(), *_LINES))


@settings(max_examples=examples(1500), deadline=None)
@given(st.lists(_PIECES, max_size=25).map("".join))
def test_places_are_those_of_tomllib(text: str) -> None:
    text = text.replace("\r\n", "\n")
    try:
        raw = tomllib.loads(text)
    except ValueError:
        return
    assert set(key_lines(text)) == set(places(raw))


_VALUES = st.recursive(
    st.sampled_from(
        ["1", "-2.5", '"a # b"', "'c ] d'", '"""x\n"y" z"""', "'''\n'p'''''", "true", "1979-05-27T07:32:00Z"]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda vs: "[" + "".join(f"\n  {v} , # ]\n" for v in vs) + "]"),
        st.lists(inner, max_size=3).map(
            lambda vs: "{" + ", ".join(f"k{i}.'v w' = {v}" for i, v in enumerate(vs)) + "}"
        ),
    ),
    max_leaves=6,
)


@given(st.lists(_VALUES, max_size=6), st.lists(st.sampled_from(["", "# c\n", "[t]\n", "[[u]]\n", "\n\n"]), max_size=6))
def test_keys_stand_where_they_were_written(values: list[str], between: list[str]) -> None:
    text, expected = "", {}
    table: tuple[str | int, ...] = ()
    tables = 0
    for i, value in enumerate(values):
        gap = between[i] if i < len(between) else ""
        if gap == "[t]\n":
            gap, table = f"[t{i}]\n", (f"t{i}",)
        elif gap == "[[u]]\n":
            table, tables = ("u", tables), tables + 1
        text += gap
        expected[(*table, f"key{i}")] = text.count("\n") + 1
        text += f"key{i} = {value}\n"
    tomllib.loads(text)
    lines = key_lines(text)
    assert {place: lines[place] for place in expected} == expected
