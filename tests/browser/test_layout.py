"""The layout editor in a real browser: by mouse and by keys."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from config.check import load
from edge.setup.editor import Editor

DEMO = Path(__file__).parents[2] / "config" / "demo.toml"
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="250"><rect width="400" height="250"/></svg>'


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """The editor's page, without a complaint of the browser, and the store file."""
    file = tmp_path / "s.toml"
    file.write_bytes(DEMO.read_bytes())
    (tmp_path / "plan.svg").write_text(PICTURE)
    editor = Editor(file, {"F1": tmp_path / "plan.svg"})
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(editor.app, log_level="warning"))
    serving = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    serving.start()
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/?key={editor.key}")
    page.wait_for_selector("polygon.zone")
    page.wait_for_selector("image")
    yield page, file
    page.close()
    server.should_exit = True
    serving.join()
    listening.close()
    assert not complaints


def test_by_mouse_and_by_keys_it_ends_in_the_file(opened: tuple[Any, Path]) -> None:
    page, file = opened
    assert "key=" not in page.url
    scale = page.evaluate("document.querySelector('#plan g').getScreenCTM().a")
    box = page.locator('polygon[aria-label^="zone watches,"]').bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 1.02 * scale, y + 0.03 * scale, steps=4)
    page.mouse.up()
    page.locator('circle[aria-label^="corner 1 of watches"]').focus()
    page.keyboard.press("+")
    page.keyboard.press("Delete")
    page.locator('circle[aria-label^="antenna f1-doors:1"]').focus()
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").endswith("at 1.75, 13.5")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+s")
    page.wait_for_selector("#said:has-text('Saved in')")
    store = load(file, files=False)
    assert store.readers[0].antennas[0].position == (1.75, 13.5)
    polygon_of = {zone.id: list(zone.polygon) for zone in store.zones}
    assert polygon_of["watches"] == [(27, 15), (33, 15), (33, 20), (27, 20)]
    assert "# outside the gate, to distinguish people" in file.read_text("utf-8")
    image = store.floors[0].image  # as wide as the zones, in its own proportions
    assert image is not None
    assert (image.file.name, image.left, image.height) == ("plan.svg", 0, image.width * 250 / 400)


def test_a_picture_is_placed(opened: tuple[Any, Path]) -> None:
    page, file = opened
    page.fill("#width", "36.4")
    page.fill("#left", "-2")
    assert page.get_attribute("image", "width") == "36.4"
    page.click("#save")
    page.wait_for_selector("#said:has-text('Saved in')")
    image = load(file, files=False).floors[0].image
    assert image is not None
    assert (image.left, image.width, image.height) == (-2, 36.4, 22.75)


def test_a_walk_is_noted(opened: tuple[Any, Path]) -> None:
    page, file = opened
    for zone in ("shoes", "bags"):
        page.select_option("#here", zone)
        page.click("#enter")
    page.click("#keep")
    page.wait_for_selector("#said:has-text('Walk saved')")
    rows = file.with_suffix(".walk.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["zone", "shoes", "bags"]
    assert str(file) in page.inner_text("#next")
