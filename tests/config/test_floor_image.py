"""Pictures of floors: what may be shown, and what is refused and why."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures_made import SVG, jpeg, png
from thorough import examples

from config.check import check, load
from config.floor_image import MAX_BYTES, Unusable, judged

NO_PLACE = 'name = { zh = "一楼", en = "Ground floor" }\n'


@pytest.mark.parametrize(
    ("content", "kind", "size"),
    [
        (png(40, 25), "image/png", (40, 25)),
        (jpeg(1600, 1000), "image/jpeg", (1600, 1000)),
        (SVG.format("").encode(), "image/svg+xml", (150, 90)),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n' + SVG.format("").encode(), "image/svg+xml", (150, 90)),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="297mm" height="2.1e2mm"/>', "image/svg+xml", (297, 210)),
    ],
)
def test_kind_and_size_come_from_the_content(content: bytes, kind: str, size: tuple[float, float]) -> None:
    picture = judged(content)
    assert (picture.type, (picture.width, picture.height), picture.content) == (kind, size, content)


DRAWN = """<!-- of a drawing program --><defs><linearGradient id="g" xmlns:ink="urn:ink" ink:collect="always">
<stop offset="0" style="stop-color:#000"/></linearGradient><style>.wall { stroke: url( '#g') }</style></defs>
<g class="wall" fill="url(#g)"><path d="M0 0h9"/><text>门 &amp; door</text><use xmlns:xlink="http://www.w3.org/1999/xlink"
xlink:href="#g"/><image href="data:image/png;base64,AAAA"/></g><view xmlns="urn:ink" zoom="2"/>"""


def test_what_only_draws_may_be_shown() -> None:
    assert judged(SVG.format(DRAWN).encode()).type == "image/svg+xml"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<script>alert(1)</script>", "contains <script>"),
        ('<g onclick="alert(1)"/>', "contains the script onclick"),
        ('<g ONCLICK="alert(1)"/>', "contains the script onclick"),
        ('<a href="#x"><text>x</text></a>', "contains <a>"),
        ('<foreignObject><b xmlns="http://www.w3.org/1999/xhtml"/></foreignObject>', "contains <foreignObject>"),
        ('<b xmlns="http://www.w3.org/1999/xhtml"/>', "contains <b>"),
        ('<set attributeName="href" to="javascript:alert(1)"/>', "contains <set>"),
        ('<image href="https://elsewhere.example/a.png"/>', "refers to 'https://elsewhere.example/a.png'"),
        ('<image href="data:image/svg+xml;base64,AAAA"/>', "outside the picture"),
        ('<use xmlns:x="http://www.w3.org/1999/xlink" x:href="other.svg#a"/>', "refers to 'other.svg#a'"),
        ('<rect fill="url(//elsewhere.example/a#b)"/>', "has fill="),
        ("<rect style=\"background: URL( 'http://elsewhere.example/')\"/>", "has style="),
        (r'<rect style="background: \75rl(http://elsewhere.example/)"/>', "has style="),
        ("<style>@import 'other.css';</style>", "has a style with '@import'"),
        ("<style>a { b: ur<!-- -->l(http://elsewhere.example/) }</style>", "has a style with 'url('"),
        ('<view xmlns="urn:ink" onload="x"/>', "contains the script onload"),
    ],
)
def test_what_does_more_is_refused_with_its_line(content: str, said: str) -> None:
    with pytest.raises(Unusable) as refused:
        judged(SVG.format(f"<g>\n{content}</g>").encode())
    assert said in str(refused.value)
    assert str(refused.value).startswith("line 2 ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a PNG, JPEG or SVG"),
        (b"GIF89a", "is not a PNG, JPEG or SVG"),
        (b"<html><script>alert(1)</script></html>", "its root is <html>"),
        (b"<svg><rect/></svg>", "is not SVG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "is not valid SVG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "neither a viewBox nor width"),
        (b'<!DOCTYPE svg [<!ENTITY a "aaaa">]>' + SVG.format("&a;").encode(), "declares entities"),
        (b'<?xml-stylesheet href="a.css"?>' + SVG.format("").encode(), "instruction <?xml-stylesheet?>"),
        (png(40, 25)[:-1] + b"!" * MAX_BYTES, "is larger than 2 MB"),
        (png(40, 25)[:-14], "damaged or incomplete PNG"),
        (jpeg(40, 25)[:24], "damaged or incomplete JPEG"),
        (png(40, 25).replace(b"\0\0\0\x28\0\0\0\x19", b"\0\0\xff\xff\0\0\xff\xff", 1), "expected: at most 16 million"),
        (jpeg(0, 25), "has no size"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(Unusable) as refused:
        judged(content)
    assert said in str(refused.value)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from((png(3, 2), jpeg(3, 2), SVG.format(DRAWN).encode())),
    st.data(),
)
def test_damage_is_refused_and_nothing_else_happens(content: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.binary(max_size=3)) + content[data.draw(st.integers(at, len(content))) :]
    with suppress(Unusable):
        assert judged(content).content == content


def with_image(tmp_path: Path, demo_text: str, image: str) -> Path:
    file = tmp_path / "s.toml"
    file.write_text(demo_text.replace(NO_PLACE, f"{NO_PLACE}image = {{ {image} }}\n", 1), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        (png(400, 250), "left = 0, bottom = 0, width = 40, height = 25", None),
        (jpeg(250, 400), "width = 40, height = 25", None),
        (png(400, 250), "width = 40, height = 40", "is 400 × 250, but 40 × 40 m on the floor: it is distorted"),
        (b"GIF89a", "width = 40, height = 25", "is not a PNG, JPEG or SVG picture; the plan is shown without it"),
        (png(800, 500) + b"\0" * 600_000, "width = 40, height = 25", "has 0.6 MB, which takes long on a phone"),
        (None, "width = 40, height = 25", "No such file or directory; the plan is shown without it"),
    ],
)
def test_a_bad_picture_is_told_and_stops_nothing(
    tmp_path: Path, demo_text: str, content: bytes | None, place: str, said: str | None
) -> None:
    if content is not None:
        (tmp_path / "plan.png").write_bytes(content)
    file = with_image(tmp_path, demo_text, f'file = "plan.png", {place}')
    found = [problem for problem in check(file) if problem.key.startswith("floors[0].image")]
    assert [said in problem.text and problem.warning for problem in found if said] == [True] * bool(said)
    assert len(found) == bool(said)
    image = load(file).floors[0].image
    assert image is not None
    assert image.file == tmp_path / "plan.png"


@pytest.mark.parametrize(
    ("image", "key", "said"),
    [
        ('file = "a.png", width = 0, height = 3', "floors[0].image.width", "0 is too small; expected: more than 0"),
        ('file = "a.png", width = 4', "floors[0].image.height", "is missing; expected: a height in metres"),
        ('file = "", width = 4, height = 3', "floors[0].image.file", "expected: the path of a file"),
        ('file = "a.png", width = 4, height = 3, x = 1', "floors[0].image.x", "unknown key"),
    ],
)
def test_a_bad_place_is_an_error(tmp_path: Path, demo_text: str, image: str, key: str, said: str) -> None:
    problems = [one for one in check(with_image(tmp_path, demo_text, image)) if not one.warning]
    assert [(one.key, said in one.text) for one in problems] == [(key, True)]


@pytest.mark.parametrize("name", ["~/plan.png", "$HOME/plan.png", "${CREDENTIALS_DIRECTORY}/plan.png"])
def test_variables_are_not_replaced(tmp_path: Path, demo_text: str, name: str) -> None:
    assert "CREDENTIALS_DIRECTORY" not in os.environ
    file = with_image(tmp_path, demo_text, f'file = "{name}", width = 40, height = 25')
    assert any("are not replaced here" in one.text and one.key == "floors[0].image.file" for one in check(file))
