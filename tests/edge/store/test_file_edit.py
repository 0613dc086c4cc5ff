"""Keys set in the text of a store file, and all the rest left as it was written."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.check import load
from edge.store.errors import Trouble
from edge.store.file_edit import edit, with_keys

INLINE = """# a store
[[readers]]
id = "gate"   # the door
driver = "llrp"
session = 2 # as the vendor said
antennas = [{ port = 1, zone = "a", power = 30 }, { port = 12, zone = "b" }]

[[readers]]
id = "shoes"
antennas = [
  { port = 1, zone = "a" },  # left
  { port = 2, zone = "b" },
]
"""
TABLES = """[[readers]]
id = "gate"
driver = "llrp"

  [[readers.antennas]]
  port = 1
  power = 30.5

  [[readers.antennas]]
  port = 2
"""


def changed(before: str, after: str) -> list[tuple[str, str]]:
    old, new = before.split("\n"), after.split("\n")
    return [
        (line, "") for line in old if line not in new
    ] + [("", line) for line in new if line not in old]  # fmt: skip


def test_a_key_is_replaced_and_its_remark_stays() -> None:
    text = with_keys(INLINE, "gate", {"session": 1}, {})
    assert changed(INLINE, text) == [
        ("session = 2 # as the vendor said", ""),
        ("", "session = 1 # as the vendor said"),
    ]


def test_keys_of_antennas_are_set_in_their_tables() -> None:
    text = with_keys(INLINE, "gate", {}, {1: {"power": 24.5}, 12: {"mode": 2, "population": 8}})
    assert '[{ port = 1, zone = "a", power = 24.5 }, { port = 12, zone = "b", mode = 2, population = 8' in text
    text = with_keys(INLINE, "shoes", {"report_tags": 4}, {2: {"power": 20}})
    assert '  { port = 2, zone = "b", power = 20' in text
    assert tomllib.loads(text)["readers"][1]["report_tags"] == 4
    assert '  { port = 1, zone = "a" },  # left' in text


def test_tables_of_antennas_are_edited_too() -> None:
    text = with_keys(TABLES, "gate", {"session": 0}, {1: {"power": 21}, 2: {"power": 18.0, "mode": 3}})
    assert [antenna.get("power") for antenna in tomllib.loads(text)["readers"][0]["antennas"]] == [21, 18]


@pytest.mark.parametrize(
    "text",
    [
        'readers = [{ id = "gate", antennas = [{ port = 1, zone = "a" }] }]',
        '[[readers]]\nid = "gate"\nantennas = [{ port = 1, zone = "{ port = 1 }" }]',
        "[[readers]]\nid = \"gate\"\nsession = '2' # two\n[[readers.antennas]]\nport = 1",
    ],
)
def test_forms_that_few_people_write_are_edited_too(text: str) -> None:
    after = tomllib.loads(with_keys(text, "gate", {"session": 1}, {1: {"power": 20}}))
    (entry,) = after["readers"]
    assert (entry["session"], entry["antennas"][0]["power"], entry["antennas"][0]["port"]) == (1, 20, 1)
    assert ("# two" in text) == ("# two" in with_keys(text, "gate", {"session": 1}, {}))


def test_a_file_that_is_no_toml_is_told() -> None:
    with pytest.raises(Trouble, match="can't be changed"):
        with_keys("[[readers", "gate", {"session": 1}, {})


def test_an_unknown_reader_is_told() -> None:
    with pytest.raises(Trouble, match="no reader 'x'"):
        with_keys(INLINE, "x", {"session": 1}, {})


@given(
    power=st.floats(-10, 40).map(lambda value: round(value, 2)),
    mode=st.integers(0, 65535),
    reader=st.sampled_from(["gate", "shoes"]),
    port=st.sampled_from([1, 2, 12]),
)
def test_whatever_is_set_is_there_and_nothing_else(power: float, mode: int, reader: str, port: int) -> None:
    text = with_keys(INLINE, reader, {"session": 3}, {port: {"power": power, "mode": mode}})
    again = with_keys(text, reader, {"session": 3}, {port: {"power": power, "mode": mode}})
    assert again == text
    entry = next(each for each in tomllib.loads(text)["readers"] if each["id"] == reader)
    assert entry["session"] == 3
    for antenna in entry["antennas"]:
        if antenna["port"] == port:
            assert (antenna["power"], antenna["mode"]) == (power, mode)


def test_a_file_behind_a_link_and_from_another_editor_is_changed(tmp_path: Path) -> None:
    """With a byte order mark and CRLF, as Notepad writes it."""
    demo = (Path(__file__).parents[3] / "config" / "demo.toml").read_text("utf-8")
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    written = b"\xef\xbb\xbf" + demo.replace("\n", "\r\n").encode()
    real.write_bytes(written)
    real.chmod(0o640)
    link.symlink_to(real)
    kept = edit(link, "f1-doors", {"report_tags": 3}, {})
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert load(real, files=False).readers[0].report_tags == 3
    assert kept.read_bytes() == written


def test_a_change_that_does_not_reach_the_disk_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    demo = (Path(__file__).parents[3] / "config" / "demo.toml").read_bytes()
    file = tmp_path / "store.toml"
    file.write_bytes(demo)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Trouble, match="No space left"):
        edit(file, "f1-doors", {"report_tags": 3}, {})
    assert file.read_bytes() == demo
