"""The layout of a store as a drawing: every floor with its zones and antennas, in metres."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any

from config.floor_image import Picture

MARGIN_M = 1.5
TITLE_M = 2.0
FILLS = {
    "entrance": "#d7efe0",
    "exit": "#f6e0da",
    "counter": "#dfeaf4",
    "aisle": "#f1f1ec",
    "fitting_room": "#efe2f1",
    "checkout": "#fbeecb",
    "service": "#d6eeee",
    "back_room": "#e2e2e2",
}


def svg(drawing: dict[str, Any], pictures: Mapping[str, Picture] | None = None) -> str:
    """Draw a layout, as edge.setup.layout_file.drawing returns it: floors one below the other, north up.

    `pictures`: floor → its picture, which is put into the drawing.
    """
    parts, top, width = [], 0.0, 1.0
    for floor in drawing["floors"]:
        zones = [zone for zone in drawing["zones"] if zone["floor"] == floor["id"]]
        antennas = [antenna for antenna in drawing["antennas"] if antenna["floor"] == floor["id"]]
        points = [*(point for zone in zones for point in zone["polygon"]), *(each["position"] for each in antennas)]
        if not points:
            continue
        left, right = min(x for x, _ in points) - MARGIN_M, max(x for x, _ in points) + MARGIN_M
        low, high = min(y for _, y in points) - MARGIN_M, max(y for _, y in points) + MARGIN_M
        # y grows upwards in the store file, downwards in SVG.
        parts.append(f'<g transform="translate({-left:g} {top + TITLE_M + high:g}) scale(1 -1)">')
        if floor["image"] is not None and (picture := (pictures or {}).get(floor["id"])) is not None:
            parts.append(_picture(floor["image"], picture))
        parts += [_zone(zone) for zone in zones] + [_antenna(antenna) for antenna in antennas]
        parts.append("</g>")
        parts.append(f'<text x="{MARGIN_M}" y="{top + 1.4:g}" class="floor">{escape(floor["name"])}</text>')
        top, width = top + TITLE_M + high - low, max(width, right - left)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" width="{width * 24:g}"'
        f' height="{top * 24:g}" font-family="sans-serif"><title>{escape(drawing["store"])}</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


STYLE = (
    "image{opacity:.4}image~polygon{fill-opacity:.6}polygon{stroke:#5b6663;stroke-width:.06}text{font-size:.6px;text-anchor:middle;fill:#1c2321}"
    ".floor{font-size:1px;text-anchor:start}.port{font-size:.5px}circle{fill:#b42318;stroke:#fff;stroke-width:.06}"
)


def _picture(place: dict[str, float], picture: Picture) -> str:
    size = " ".join(f'{name}="{place[name]:g}"' for name in ("width", "height"))
    return (
        f'<image transform="translate({place["left"]:g} {place["bottom"] + place["height"]:g}) scale(1 -1)" {size}'
        f' preserveAspectRatio="none" href="data:{picture.type};base64,{b64encode(picture.content).decode()}"/>'
    )


def _zone(zone: dict[str, Any]) -> str:
    points = " ".join(f"{x:g},{y:g}" for x, y in zone["polygon"])
    x = sum(x for x, _ in zone["polygon"]) / len(zone["polygon"])
    y = max(y for _, y in zone["polygon"]) - 0.9
    return f'<polygon points="{points}" fill="{FILLS[zone["kind"]]}"/>{_text(x, y, zone["id"], "")}'


def _antenna(antenna: dict[str, Any]) -> str:
    x, y = antenna["position"]
    return f'<circle cx="{x:g}" cy="{y:g}" r=".22"/>{_text(x, y - 0.8, antenna["id"], "port")}'


def _text(x: float, y: float, text: str, class_: str) -> str:
    return f'<text transform="translate({x:g} {y:g}) scale(1 -1)" class="{class_}">{escape(text)}</text>'
