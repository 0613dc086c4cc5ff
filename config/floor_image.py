"""Pictures of floors: what kind a file is, how large, and whether it may be shown to managers.

The page sends a picture as it is, so a file is judged as a whole and refused rather than changed: an SVG with scripts,
links, styles or references to elsewhere, files of other kinds, and pictures that would fill a phone's memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.parsers import expat

MAX_BYTES = 2 << 20
SLOW_BYTES = 500_000
"""Larger pictures take over ten seconds at 400 kbit/s."""
MAX_PIXELS = 16_000_000
"""A browser takes four bytes for each."""
SKEWED = 0.05
"""Tolerated difference between the proportions of a picture and of its place on the floor."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""Content-Security-Policy with which a picture is sent: even opened by itself, it can do nothing but be drawn."""
ImageType = Literal["image/png", "image/jpeg", "image/svg+xml"]


class Unusable(ValueError):
    """A file that is no picture for a floor plan; the text gives the reason."""


@dataclass(frozen=True)
class Picture:
    """A picture that may be shown; its size in pixels, or in the SVG's own units."""

    content: bytes
    type: ImageType
    width: float
    height: float


def read(path: Path) -> Picture:
    """Read and judge a file. Raises OSError, and Unusable with the reason."""
    with path.open("rb") as file:
        return judged(file.read(MAX_BYTES + 1))


def judged(content: bytes) -> Picture:
    """Judge the content of a file; Unusable with the reason."""
    if len(content) > MAX_BYTES:
        raise Unusable(f"is larger than {MAX_BYTES >> 20} MB; save it smaller")
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        kind, size = _png(content)
    elif content.startswith(b"\xff\xd8\xff"):
        kind, size = _jpeg(content)
    elif re.match(rb"(\xef\xbb\xbf)?\s*<", content):
        kind, size = _svg(content)
    else:
        raise Unusable("is not a PNG, JPEG or SVG picture")
    if min(size) <= 0:
        raise Unusable("has no size")
    if kind != "image/svg+xml" and size[0] * size[1] > MAX_PIXELS:
        raise Unusable(f"has {size[0]:g} × {size[1]:g} pixels; expected: at most {MAX_PIXELS // 1_000_000} million")
    return Picture(content, kind, *size)


def is_skewed(picture: Picture, width_m: float, height_m: float) -> bool:
    """Return whether a picture would look distorted on an area of this size.

    A JPEG may be turned by a quarter by what the camera noted.
    """
    wanted, given = width_m / height_m, picture.width / picture.height
    ways = (given, 1 / given) if picture.type == "image/jpeg" else (given,)
    return all(abs(way / wanted - 1) > SKEWED for way in ways)


def _png(content: bytes) -> tuple[ImageType, tuple[float, float]]:
    """Portable Network Graphics, ISO/IEC 15948: chunks of length, name, content and checksum, IHDR first, IEND last."""
    at = 8
    while (name := content[at + 4 : at + 8]) != b"IEND":
        if len(name) < 4 or (at == 8 and name != b"IHDR"):
            raise Unusable("is a damaged or incomplete PNG picture")
        at += 12 + int.from_bytes(content[at : at + 4])
    return "image/png", (int.from_bytes(content[16:20]), int.from_bytes(content[20:24]))


def _jpeg(content: bytes) -> tuple[ImageType, tuple[float, float]]:
    """JPEG, ITU-T T.81: segments of marker and length; that of a frame has height and width in pixels."""
    at = 2
    while content[at : at + 1] == b"\xff":
        marker, length = content[at + 1 : at + 2], int.from_bytes(content[at + 2 : at + 4])
        if marker and 0xC0 <= marker[0] <= 0xCF and marker[0] not in (0xC4, 0xC8, 0xCC):
            frame = content[at + 5 : at + 9]
            return "image/jpeg", (int.from_bytes(frame[2:]), int.from_bytes(frame[:2]))
        at += 2 + length if marker != b"\xff" else 1
    raise Unusable("is a damaged or incomplete JPEG picture")


SVG = "http://www.w3.org/2000/svg"
XHTML = "http://www.w3.org/1999/xhtml"
DRAWING = frozenset(
    (
        *("svg", "g", "defs", "symbol", "use", "title", "desc", "metadata", "style", "switch", "image"),
        *("path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "textPath"),
        *("linearGradient", "radialGradient", "stop", "pattern", "clipPath", "mask", "marker"),
        *("filter", "feBlend", "feColorMatrix", "feComposite", "feFlood", "feGaussianBlur", "feMerge", "feMergeNode"),
        *("feOffset",),
    )
)
"""Elements that only draw. Links, scripts, animations and foreign objects are none of them."""
_ELSEWHERE = re.compile(r"url\((?>\s*['\"]?\s*)(?!#)|@import|javascript:|expression\(|\\", re.IGNORECASE)
"""In styles and attributes: whatever is fetched or run. A backslash could write the same in another way."""
_WITHIN = re.compile(r"#|data:image/(png|jpeg);base64,")


def _svg(content: bytes) -> tuple[ImageType, tuple[float, float]]:
    looking = _Svg()
    try:
        looking.parser.Parse(content, True)
    except expat.ExpatError as error:
        raise Unusable(f"is not valid SVG: {error}") from error
    return "image/svg+xml", looking.size()


class _Svg:
    """Look at all elements, attributes and styles of an SVG; raises Unusable from the parser's handlers."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = lambda *_: self._refuse("declares entities")
        self.parser.ProcessingInstructionHandler = lambda name, _: self._refuse(f"has an instruction <?{name}?>")
        self._root: dict[str, str] | None = None
        self._style: list[str] | None = None

    def size(self) -> tuple[float, float]:
        """Return the size by the root's viewBox, or by its width and height."""
        root = self._root or {}
        box = re.split(r"[\s,]+", root.get("viewBox", "").strip())
        texts = box[2:] if len(box) == 4 else [root.get("width", ""), root.get("height", "")]
        found = [re.fullmatch(r"(\d*\.?\d+(?:e[+-]?\d+)?)[a-z]*", text.strip(), re.IGNORECASE) for text in texts]
        sizes = [float(one[1]) for one in found if one]
        if len(sizes) != 2:
            raise Unusable("has neither a viewBox nor width and height, so its size is unknown")
        return sizes[0], sizes[1]

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, element = name.rpartition(" ")
        if self._root is None:
            if (namespace, element) != (SVG, "svg"):
                self._refuse(f"is not SVG: its root is <{element}>")
            self._root = attributes
        # Drawing programs keep notes in namespaces of their own, which browsers don't draw.
        if namespace == XHTML or (namespace == SVG and element not in DRAWING):
            self._refuse(f"contains <{element}>, which does more than draw")
        for key, value in attributes.items():
            attribute = key.rpartition(" ")[2].lower()
            if attribute.startswith("on"):
                self._refuse(f"contains the script {attribute}")
            if attribute in ("href", "src") and not _WITHIN.match(value):
                self._refuse(f"refers to {value[:60]!r}, outside the picture")
            if namespace == SVG and attribute not in ("href", "src") and _ELSEWHERE.search(value):
                self._refuse(f"has {attribute}={value[:60]!r}, which may load something from elsewhere")
        if (namespace, element) == (SVG, "style"):
            self._style = []

    def _end(self, name: str) -> None:
        if name == f"{SVG} style" and self._style is not None:
            if found := _ELSEWHERE.search("".join(self._style)):
                self._refuse(f"has a style with {found[0]!r}, which may load something from elsewhere")
            self._style = None

    def _text(self, text: str) -> None:
        if self._style is not None:
            self._style.append(text)

    def _refuse(self, why: str) -> Any:
        raise Unusable(f"line {self.parser.CurrentLineNumber} {why}; save the drawing as plain SVG, or as PNG")
