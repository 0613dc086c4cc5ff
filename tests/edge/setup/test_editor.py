"""The layout editor's server: for this machine, with the key, and nothing else is written."""

from __future__ import annotations

import asyncio
import csv
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pictures_made import png

from config.check import load
from config.floor_image import POLICY
from edge.setup.editor import Editor, pictures
from edge.store.errors import Trouble

DEMO = Path(__file__).parents[3] / "config" / "demo.toml"
STAY = {"zone": "shoes", "begin": "2026-11-29T10:00:00.000Z", "end": "2026-11-29T10:01:00.000Z"}


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    file = tmp_path / "s.toml"
    file.write_bytes(DEMO.read_bytes())
    (tmp_path / "plan.png").write_bytes(png(40, 25))
    return Editor(file, {"F1": tmp_path / "plan.png"})


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Client:
    """A browser, as far as the editor minds."""

    port: int
    cookies: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, content: bytes | None = None, /, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {"Cookie": "; ".join(self.cookies)} if self.cookies else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, content, given)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, told: object) -> Answer:
        return self.send(path, json.dumps(told).encode())

    def send(self, path: str, content: bytes, kind: str = "application/json") -> Answer:
        return self.ask("POST", path, content, Content_Type=kind)


@pytest.fixture
def client(editor: Editor) -> Iterator[Client]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(editor.app, log_level="warning"))
    serving = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    serving.start()
    yield Client(listening.getsockname()[1])
    server.should_exit = True
    serving.join()
    listening.close()


@pytest.fixture
def opened(editor: Editor, client: Client) -> Client:
    answer = client.get(f"/?key={editor.key}")
    assert answer.status == 200
    cookie = answer.headers["Set-Cookie"]
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in cookie.split(";")}
    client.cookies.append(cookie.partition(";")[0])
    return client


PATHS: tuple[tuple[str, str], ...] = (
    ("GET", "/"), ("GET", "/layout"), ("POST", "/layout"), ("GET", "/reads"), ("POST", "/walk"), ("GET", "/image/F1")
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_the_key_nothing_is_told_or_written(client: Client, method: str, path: str) -> None:
    assert client.ask(method, path).status == 403
    assert client.ask(method, f"{path}?key=guess").status == 403
    client.cookies.append("tagtrail-layout=guess")
    assert client.ask(method, path).status == 403


def test_it_answers_to_this_machine_only(editor: Editor, opened: Client) -> None:
    assert opened.get("/layout", Host="evil.example").status == 400


def test_forms_of_other_sites_change_nothing(opened: Client) -> None:
    assert opened.send("/layout", b"stamp=x", "application/x-www-form-urlencoded").status == 415
    assert opened.send("/walk", b"{}", "text/plain").status == 415


def test_scripts_come_from_here_only(editor: Editor, opened: Client) -> None:
    answer = opened.get("/")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert b"<script>" not in answer.content
    assert opened.get("/layout.js").status == 200
    assert opened.get("/..%2flayout_file.py").status == 404


def test_what_is_moved_is_saved(editor: Editor, opened: Client) -> None:
    told: dict[str, Any] = opened.get("/layout").json()
    assert (len(told["zones"]), len(told["antennas"]), told["images"]) == (24, 34, ["F1"])
    moved = {"stamp": told["stamp"], "antennas": {"f1-doors:1": [3, 12.5]}}
    saved = opened.post("/layout", moved).json()
    assert saved["stamp"] != told["stamp"]
    assert load(editor._file, files=False).readers[0].antennas[0].position == (3, 12.5)
    stale = opened.post("/layout", moved)
    assert stale.status == 409
    assert "changed by another program" in stale.json()["error"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422), (b"[]", 422), (b'{"stamp": "", "zones": {"shoes": "x"}}', 422), (b"\xff", 422),
        (b'{"stamp": "", "antennas": {"f1-doors:1": [1e999, 0]}}', 422), (b" " * (1 << 21), 400),
    ],
)  # fmt: skip
def test_garbage_is_refused(editor: Editor, opened: Client, content: bytes, status: int) -> None:
    answer = opened.send("/layout", content)
    assert answer.status == status
    assert answer.json()["error"]
    assert editor._file.read_bytes() == DEMO.read_bytes()


def test_a_zone_that_crosses_itself_is_told(editor: Editor, opened: Client) -> None:
    stamp = opened.get("/layout").json()["stamp"]
    bow = [[7, 15], [15, 22], [15, 15], [7, 22]]
    answer = opened.post("/layout", {"stamp": stamp, "zones": {"cosmetics": bow}})
    assert (answer.status, "crosses" in answer.json()["error"]) == (422, True)


def test_a_walk_is_what_calibrate_reads(editor: Editor, opened: Client) -> None:
    from edge.readers.calibrate import _time
    from edge.store.compose import compose

    answer = opened.post("/walk", {"epc": "30aa", "stays": [STAY]})
    assert answer.json() == {"file": str(editor.walk_file)}
    (row,) = csv.DictReader(editor.walk_file.read_text().splitlines())
    assert (row["zone"], row["epc"]) == ("shoes", "30aa")
    shop = compose(load(editor._file, files=False))
    assert _time(shop, row["to"], "") - _time(shop, row["from"], "") == 60_000_000
    assert opened.post("/walk", {"stays": [STAY | {"begin": "=cmd|x"}]}).status == 422


def test_pictures_are_of_floors(tmp_path: Path, editor: Editor) -> None:
    config = load(editor._file, files=False)
    plan = tmp_path / "plan.png"
    assert pictures([str(plan), f"F2={plan}"], config) == {"F1": plan, "F2": plan}
    for wrong in (f"F9={plan}", "F1=/etc/passwd", str(tmp_path / "none.png")):
        with pytest.raises(Trouble):
            pictures([wrong], config)


def test_the_picture_is_shown(opened: Client) -> None:
    answer = opened.get("/image/F1")
    assert (answer.content, answer.headers["Content-Type"]) == (png(40, 25), "image/png")
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert opened.get("/image/F2").status == 404


def test_a_given_picture_is_saved_with_its_place(editor: Editor, opened: Client) -> None:
    told = opened.get("/layout").json()
    assert (told["new"], told["floors"][0]["image"]) == (["F1"], None)
    assert opened.post("/layout", {"stamp": told["stamp"], "images": {"F1": [0, -1, 40, 25]}}).status == 200
    image = load(editor._file, files=False).floors[0].image
    assert image is not None
    assert (image.file.name, image.bottom, image.height) == ("plan.png", -1, 25)


def test_a_picture_of_the_store_file_that_cannot_be_shown_is_told(editor: Editor, opened: Client) -> None:
    text = editor._file.read_text("utf-8")
    place = 'image = { file = "none.svg", width = 1, height = 1 }'
    editor._file.write_text(text.replace('id = "F2"\n', f'id = "F2"\n{place}\n', 1), encoding="utf-8")
    assert opened.get("/layout").json()["images"] == ["F1", "F2"]
    answer = opened.get("/image/F2")
    assert (answer.status, "No such file" in answer.json()["error"]) == (400, True)
