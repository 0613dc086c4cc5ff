"""`tagtrail layout`: a page on loopback to drag zones and antennas over a floor plan, and to note a walk test.

Only this machine can reach it, only with the key in its address, and only for as long as the command runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import hmac
import io
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from config import StoreConfig
from config.check import ConfigError
from config.floor_image import POLICY
from edge.setup import layout_file
from edge.setup.layout_file import Changed, Moved
from edge.store.errors import Trouble
from edge.store.live_socket import follow, socket_path

STATIC = Path(__file__).parent / "static"
HOSTS = ["127.0.0.1", "localhost"]
COOKIE = "tagtrail-layout"
MOST_BYTES = 1 << 20
AGAIN_S = 2.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Stay(BaseModel):
    """A stay of the walk test: zone, from when, to when (ISO 8601 in UTC)."""

    model_config = ConfigDict(extra="forbid")

    zone: str
    begin: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
    end: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]


class Walk(BaseModel):
    """A walk test; `epc`: of the tag that was carried, if known."""

    model_config = ConfigDict(extra="forbid")

    epc: Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}){0,62}$")] = ""
    stays: Annotated[list[Stay], Field(min_length=1, max_length=1000)]


class Editor:
    """The page for one store file. `images`: floor → picture of its plan, instead of that in the store file."""

    def __init__(self, file: Path, images: Mapping[str, Path]) -> None:
        self._file = file
        self._images = dict(images)
        self._antennas: dict[str, list[dict[str, Any]]] = {}
        self.walk_file = file.with_suffix(".walk.csv")
        self.key = secrets.token_urlsafe(16)
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/layout", self._layout),
                Route("/layout", self._save, methods=["POST"]),
                Route("/reads", self._reads),
                Route("/walk", self._walk, methods=["POST"]),
                Route("/image/{floor}", self._image),
                Route("/{name}", self._static),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
            exception_handlers={Trouble: _trouble, ConfigError: _invalid, ValidationError: _unreadable},
            lifespan=self._lifespan,
        )

    async def serve(self, listening: socket.socket) -> None:
        """Serve until interrupted."""
        settings = uvicorn.Config(self.app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        await uvicorn.Server(settings).serve(sockets=[listening])

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        config, _stamp = layout_file.read(self._file)
        listening = [asyncio.create_task(self._listen(config, reader.id)) for reader in config.readers]
        try:
            yield
        finally:
            for task in listening:
                task.cancel()

    async def _listen(self, config: StoreConfig, reader: str) -> None:
        """Keep the reads of a reader's antennas, while its service runs."""
        while True:
            async with contextlib.aclosing(follow(socket_path(config), reader)) as states:
                async for state in states:
                    self._antennas[reader] = state["antennas"]
            self._antennas.pop(reader, None)
            await asyncio.sleep(AGAIN_S)

    async def _page(self, request: Request) -> Response:
        given = request.query_params.get("key", "")
        if hmac.compare_digest(given.encode(), self.key.encode()):
            answer = HTMLResponse((STATIC / "layout.html").read_text("utf-8"), headers=HEADERS)
            answer.set_cookie(COOKIE, self.key, httponly=True, samesite="strict")
            return answer
        if (refused := self._refused(request)) is not None:
            return refused
        return HTMLResponse((STATIC / "layout.html").read_text("utf-8"), headers=HEADERS)

    async def _layout(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        config, stamp = layout_file.read(self._file)
        shown = sorted(floor.id for floor in config.floors if floor.image or floor.id in self._images)
        told = {"stamp": stamp, "file": str(self._file), "images": shown, "new": sorted(self._images)}
        return JSONResponse(layout_file.drawing(config) | told, headers=HEADERS)

    async def _save(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        moved = Moved.model_validate_json(await _body(request))
        try:
            saved = layout_file.save(self._file, moved, self._images)
        except Changed:
            said = f"{self._file} was changed by another program meanwhile: reload the page, and move things again"
            return JSONResponse({"error": said}, 409, headers=HEADERS)
        return JSONResponse(
            {"stamp": saved.stamp, "warnings": [problem.text for problem in saved.warnings]}, headers=HEADERS
        )

    async def _reads(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        told = {
            f"{reader}:{antenna['port']}": {"reads": antenna["reads"], "last_us": antenna["last_us"]}
            for reader, antennas in self._antennas.items()
            for antenna in antennas
        }
        return JSONResponse({"live": bool(self._antennas), "antennas": told}, headers=HEADERS)

    async def _walk(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        walk = Walk.model_validate_json(await _body(request))
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(["zone", "from", "to", "epc"] if walk.epc else ["zone", "from", "to"])
        for stay in walk.stays:
            rows.writerow([stay.zone, stay.begin, stay.end, *([walk.epc] if walk.epc else [])])
        try:
            self.walk_file.write_text(out.getvalue(), encoding="utf-8")
        except OSError as error:
            raise Trouble(f"can't write {self.walk_file}: {error.strerror}") from error
        return JSONResponse({"file": str(self.walk_file)}, headers=HEADERS)

    async def _image(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        name = request.path_params["floor"]
        config, _stamp = layout_file.read(self._file)
        kept = {floor.id: floor.image.file for floor in config.floors if floor.image is not None}
        file = (kept | self._images).get(name)
        if file is None:
            return Response(status_code=404, headers=HEADERS)
        picture = layout_file.picture(file)
        return Response(
            picture.content, media_type=picture.type, headers={**HEADERS, "Content-Security-Policy": POLICY}
        )

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ("layout.js", "layout.css"):
            return Response(status_code=404)
        return FileResponse(STATIC / name, headers=HEADERS)

    def _refused(self, request: Request) -> Response | None:
        """Refuse whoever has no key; forms of other sites have no cookie, and are no JSON."""
        given = request.cookies.get(COOKIE, "")
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            return Response("open the address that tagtrail layout has printed\n", 403, headers=HEADERS)
        if request.method == "POST" and request.headers.get("content-type") != "application/json":
            return Response("JSON only\n", 415, headers=HEADERS)
        return None


def pictures(given: list[str], config: StoreConfig) -> dict[str, Path]:
    """Return floor → picture, from `FLOOR=FILE`, or `FILE` for the first floor; Trouble if there is no such."""
    floors = [floor.id for floor in config.floors]
    found = {}
    for text in given:
        floor, equals, name = text.partition("=")
        if not equals:
            floor, name = floors[0], text
        if floor not in floors:
            raise Trouble(f"no floor {floor!r}; floors are: {', '.join(floors)}")
        layout_file.picture(Path(name))
        found[floor] = Path(name)
    return found


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise Trouble("that is more than a layout can be")
    return body


async def _trouble(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400, headers=HEADERS)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, ConfigError)
    said = "; ".join(f"{problem.key}: {problem.text}" for problem in error.problems)
    return JSONResponse({"error": f"not saved: {said}"}, 422, headers=HEADERS)


async def _unreadable(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "not saved: not a layout"}, 422, headers=HEADERS)
