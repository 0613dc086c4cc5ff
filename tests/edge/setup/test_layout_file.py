"""Zones and antennas are moved in a store file, and not a byte besides."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures_made import png
from thorough import examples

from config.check import ConfigError, load
from edge.setup.layout_file import Changed, Moved, apply, drawing, pictures, read, save
from edge.setup.plan_svg import svg
from edge.store.errors import Trouble

DEMO = Path(__file__).parents[3] / "config" / "demo.toml"
TEXT = DEMO.read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "s.toml"
    file.write_text(TEXT, encoding="utf-8")
    return file


def changed_lines(after: str) -> list[str]:
    lines = difflib.unified_diff(TEXT.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


def test_only_what_was_moved_changes_and_comments_stay(file: Path) -> None:
    _, stamp = read(file)
    home = [[8, 15], [17, 15], [17, 19.5], [13, 19.5], [13, 22], [8, 22]]
    saved = save(
        file, Moved.model_validate({"stamp": stamp, "zones": {"home": home}, "antennas": {"f1-doors:1": [2.25, 12]}})
    )
    lines = changed_lines(file.read_text("utf-8"))
    assert [line.partition("#")[0].rstrip() for line in lines] == [
        "-polygon = [[8, 15], [17, 15], [17, 19], [13, 19], [13, 22], [8, 22]]",
        "+polygon = [[8, 15], [17, 15], [17, 19.5], [13, 19.5], [13, 22], [8, 22]]",
        '-    { port = 1, zone = "f1-entrance", position = [2, 12.5] },',
        '+    { port = 1, zone = "f1-entrance", position = [2.25, 12] },',
    ]
    comments = [line.partition("#")[2] for line in lines]
    assert comments[::2] == comments[1::2]
    assert all(comments)
    assert saved.stamp == read(file)[1] != stamp
    store = load(file, files=False)
    assert store.readers[0].antennas[0].position == (2.25, 12)


def test_corners_come_and_go() -> None:
    polygon = [[7, 15], [15, 15], [15, 22], [11, 23], [7, 22]]
    after = apply(TEXT, Moved.model_validate({"stamp": "", "zones": {"cosmetics": polygon}}))
    assert changed_lines(after) == [
        "-polygon = [[7, 15], [15, 15], [15, 22], [7, 22]]",
        "+polygon = [[7, 15], [15, 15], [15, 22], [11, 23], [7, 22]]",
    ]


def test_lists_over_many_lines_keep_theirs() -> None:
    text = """[[zones]]
id = "a"
polygon = [
  [0, 0],   # by the door
  [4, 0],
  [4, 3],
]
[[readers]]
id = "r"
[[readers.antennas]]
port = 2
position = [1, 1]   # on the pillar
"""
    moved = Moved.model_validate({"stamp": "", "zones": {"a": [[0, 0], [5, 0.5], [4, 3]]}, "antennas": {"r:2": [2, 1]}})
    assert apply(text, moved) == text.replace("[4, 0]", "[5, 0.5]").replace("[1, 1]", "[2, 1]")


@settings(max_examples=examples(60))
@given(st.lists(st.floats(-99, 99), min_size=2, max_size=2))
def test_nothing_moves_by_more_than_half_a_centimetre(position: list[float]) -> None:
    after = apply(TEXT, Moved.model_validate({"stamp": "", "antennas": {"f3-east:4": position}}))
    import tomllib

    (east,) = (reader for reader in tomllib.loads(after)["readers"] if reader["id"] == "f3-east")
    assert east["antennas"][3]["position"] == pytest.approx(position, abs=0.00501)


def test_saving_nothing_leaves_every_byte(file: Path) -> None:
    config, stamp = read(file)
    told = drawing(config)
    before = file.stat()
    moved = {"zones": {zone["id"]: zone["polygon"] for zone in told["zones"]},
             "antennas": {each["id"]: each["position"] for each in told["antennas"]}}  # fmt: skip
    save(file, Moved.model_validate({"stamp": stamp} | moved))
    assert (file.read_text("utf-8"), file.stat().st_ino) == (TEXT, before.st_ino)


def test_a_file_that_another_program_changed_is_left_alone(file: Path) -> None:
    _, stamp = read(file)
    file.write_text(TEXT + "\n# edited\n", encoding="utf-8")
    with pytest.raises(Changed):
        save(file, Moved.model_validate({"stamp": stamp, "antennas": {"f1-doors:1": [1, 1]}}))
    assert file.read_text("utf-8").endswith("# edited\n")


def test_what_would_not_be_valid_is_not_saved(file: Path) -> None:
    _, stamp = read(file)
    bow = [[7, 15], [15, 22], [15, 15], [7, 22]]
    with pytest.raises(ConfigError, match="crosses"):
        save(file, Moved.model_validate({"stamp": stamp, "zones": {"cosmetics": bow}}))
    assert file.read_text("utf-8") == TEXT
    assert os.listdir(file.parent) == ["s.toml"]


def test_owner_permissions_and_links_stay(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    _, stamp = read(link)
    save(link, Moved.model_validate({"stamp": stamp, "antennas": {"f1-doors:1": [1, 10]}}))
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert "position = [1, 10]" in file.read_text("utf-8")


def test_a_file_that_can_not_be_written_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    _, stamp = read(file)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Trouble, match="No space left"):
        save(file, Moved.model_validate({"stamp": stamp, "antennas": {"f1-doors:1": [1, 10]}}))
    assert file.read_text("utf-8") == TEXT
    assert os.listdir(file.parent) == ["s.toml"]


def test_the_drawing_has_every_zone_and_antenna_within_it() -> None:
    import re
    from xml.etree import ElementTree

    told = drawing(load(DEMO, files=False))
    drawn = ElementTree.fromstring(svg(told))
    name = "{http://www.w3.org/2000/svg}"
    assert len(list(drawn.iter(f"{name}polygon"))) == len(told["zones"]) == 24
    assert len(list(drawn.iter(f"{name}circle"))) == len(told["antennas"]) == 34
    width, height = map(float, drawn.attrib["viewBox"].split()[2:])
    for group in drawn.iter(f"{name}g"):
        dx, dy = map(float, re.findall(r"-?[\d.]+", group.attrib["transform"])[:2])
        for shape in group.iter(f"{name}polygon"):
            for x, y in (map(float, point.split(",")) for point in shape.attrib["points"].split()):
                assert 0 <= x + dx <= width
                assert 0 <= dy - y <= height


def test_names_are_text_in_the_drawing() -> None:
    told = drawing(load(DEMO, files=False)) | {"store": "<script>&"}
    assert "<script>" not in svg(told)


PLACED = 'image = { file = "f1.png", left = 0, bottom = 0, width = 40, height = 25 }'


def test_a_new_picture_is_written_beside_its_floor(file: Path) -> None:
    _, stamp = read(file)
    picture = file.with_name("plans") / "f1.svg"
    moved = Moved.model_validate({"stamp": stamp, "images": {"F1": [-1, 0.5, 40, 25.126], "nowhere": [0, 0, 1, 1]}})
    save(file, moved, {"F1": picture, "F2": picture})
    assert changed_lines(file.read_text("utf-8")) == [
        '+image = {file = "plans/f1.svg", left = -1, bottom = 0.5, width = 40, height = 25.13}'
    ]
    image = load(file, files=False).floors[0].image
    assert image is not None
    assert image.file == picture
    assert drawing(load(file, files=False))["floors"][0]["image"] == {
        "left": -1, "bottom": 0.5, "width": 40, "height": 25.13
    }  # fmt: skip


def test_a_picture_moves_and_is_replaced() -> None:
    text = f'[[floors]]\nid = "F1"\n{PLACED}   # of 2019\n'
    moved = Moved.model_validate({"stamp": "", "images": {"F1": [1, 0, 40, 25]}})
    assert apply(text, moved) == text.replace("left = 0", "left = 1")
    assert apply(text, moved, {"F1": "/srv/new.png"}) == text.replace("left = 0", "left = 1").replace(
        "f1.png", "/srv/new.png"
    )
    assert apply(text.replace(PLACED, ""), moved) == text.replace(PLACED, "")


def test_a_picture_has_a_size(file: Path) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Moved.model_validate({"stamp": "", "images": {"F1": [0, 0, 0, 25]}})


def test_the_drawing_contains_the_pictures(file: Path) -> None:
    file.with_name("f1.png").write_bytes(png(40, 25))
    file.write_text(TEXT.replace('id = "F1"\n', f'id = "F1"\n{PLACED}\n', 1), encoding="utf-8")
    config = load(file, files=False)
    drawn = svg(drawing(config), pictures(config))
    assert drawn.count('href="data:image/png;base64,') == 1
    assert '<image transform="translate(0 25) scale(1 -1)" width="40" height="25"' in drawn
    file.with_name("f1.png").write_bytes(b"GIF89a")
    with pytest.raises(Trouble, match="is not a PNG, JPEG or SVG picture"):
        pictures(config)
