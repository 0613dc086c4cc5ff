"""Polygons of zones, positions of antennas and places of floors' pictures in a store file, read, changed and written
back with its comments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import tomlkit
from pydantic import BaseModel, ConfigDict, Field

from config import StoreConfig, floor_image
from config.basis import Metres, Point
from config.check import Problem, check, load_text
from config.floor_image import Picture
from config.model import Names
from edge.store import file_edit
from edge.store.errors import Trouble

DIGITS = 2
"""Positions are kept to the centimetre."""


Positive = Annotated[Metres, Field(gt=0)]
PLACE = ("left", "bottom", "width", "height")


class Moved(BaseModel):
    """What has been moved: corners by zone, positions by reader and port, as `reader:port`, and pictures by floor, as
    left, bottom, width and height."""

    model_config = ConfigDict(extra="forbid")

    stamp: str
    zones: dict[str, list[Point]] = Field(default_factory=dict, max_length=1000)
    antennas: dict[str, Point] = Field(default_factory=dict, max_length=5000)
    images: dict[str, tuple[Metres, Metres, Positive, Positive]] = Field(default_factory=dict, max_length=1000)


class Changed(Exception):
    """Raised if the file is no longer as it was when the editor read it."""


@dataclass(frozen=True)
class Saved:
    """The file after a change: its stamp, and warnings."""

    stamp: str
    warnings: tuple[Problem, ...]


def read(file: Path) -> tuple[StoreConfig, str]:
    """Read a valid store file; return it with the stamp of its content. ConfigError, Trouble."""
    text = file_edit.read(file)
    return load_text(text, file.name, file.absolute().parent), stamp(text)


def stamp(text: str) -> str:
    """Return what tells one content of a file from another."""
    return sha256(text.encode()).hexdigest()[:16]


def drawing(config: StoreConfig) -> dict[str, Any]:
    """Return floors, zones and antennas for the editor; lengths in metres."""
    floor_of = {zone.id: zone.floor for zone in config.zones}
    return {
        "store": _names(config.store.name),
        "floors": [
            {"id": floor.id, "name": _names(floor.name),
             "image": floor.image and floor.image.model_dump(include=set(PLACE))}
            for floor in config.floors
        ],
        "zones": [
            {"id": zone.id, "name": _names(zone.name), "kind": zone.kind.value, "floor": zone.floor,
             "polygon": zone.polygon}
            for zone in config.zones
        ],
        "antennas": [
            {"id": f"{reader.id}:{antenna.port}", "reader": reader.id, "port": antenna.port, "zone": antenna.zone,
             "floor": floor_of[antenna.zone], "position": antenna.position}
            for reader in config.readers
            for antenna in reader.antennas
        ],
    }  # fmt: skip


def pictures(config: StoreConfig) -> dict[str, Picture]:
    """Read the pictures of floors; Trouble for one that can't be shown."""
    return {floor.id: picture(floor.image.file) for floor in config.floors if floor.image is not None}


def picture(file: Path) -> Picture:
    """Read a picture; Trouble if it can't be shown."""
    try:
        return floor_image.read(file)
    except OSError as error:
        raise Trouble(f"can't read {file}: {error.strerror}") from error
    except floor_image.Unusable as unusable:
        raise Trouble(f"{file} {unusable}") from unusable


def save(file: Path, moved: Moved, pictures: Mapping[str, Path] | None = None) -> Saved:
    """Write what has been moved into the file, all else as it was. `pictures`: floor → file of a new picture.

    Raises Changed if another program has changed the file, ConfigError if it would not be valid, Trouble if it can't be
    written; then the file stays as it is.
    """
    before = file_edit.read(file)
    if stamp(before) != moved.stamp:
        raise Changed
    folder = file.absolute().parent
    after = apply(before, moved, {floor: _beside(path, folder) for floor, path in (pictures or {}).items()})
    load_text(after, file.name, folder)
    if after != before:
        file_edit.replace(file, after)
    return Saved(stamp(after), tuple(problem for problem in check(file) if problem.warning))


def apply(text: str, moved: Moved, pictures: Mapping[str, str] | None = None) -> str:
    """Return a store file with zones, antennas and pictures moved. Those that it doesn't have are ignored.

    `pictures`: floor → file of a new picture, as it is to be written.
    """
    document = file_edit.parsed(text)
    content: Mapping[str, Any] = document
    for floor in content.get("floors", ()):
        if (place := moved.images.get(floor["id"])) is not None:
            _place(floor, place, (pictures or {}).get(floor["id"]))
    for zone in content.get("zones", ()):
        if (polygon := moved.zones.get(zone["id"])) is not None:
            _move(zone, "polygon", polygon)
    for reader in content.get("readers", ()):
        for antenna in reader["antennas"]:
            if (position := moved.antennas.get(f"{reader['id']}:{antenna['port']}")) is not None:
                _move(antenna, "position", position)
    return tomlkit.dumps(document)


def _place(floor: Any, place: Sequence[float], file: str | None) -> None:
    """Change the place of a floor's picture, or add a picture."""
    there = floor.get("image")
    if there is None:
        if file is None:
            return
        there = tomlkit.inline_table()
        there["file"] = file
        floor["image"] = there
    elif file is not None and there["file"] != file:
        there["file"] = file
    for key, value in zip(PLACE, _plain(place), strict=True):
        if there.get(key) != value:
            there[key] = value


def _beside(path: Path, folder: Path) -> str:
    """Return the path of a file as it is written in a store file: relative if it is in the same folder or below."""
    absolute = path.absolute()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def _move(table: Any, key: str, to: Sequence[Any]) -> None:
    """Change numbers where they stand, so that line breaks and comments between them stay."""
    target = _plain(to)
    there = table[key]
    if len(there) != len(target):
        table[key] = target
        return
    for index, value in enumerate(target):
        if isinstance(value, list):
            _move(there, index, value)  # type: ignore[arg-type]
        elif there[index] != value:
            there[index] = value


def _plain(value: Any) -> Any:
    """Return lists of numbers rounded to the centimetre, whole ones without a point."""
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    rounded = round(float(value), DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


def _names(name: str | Names) -> str:
    return name if isinstance(name, str) else f"{name.en} · {name.zh}"
