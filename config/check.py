"""Load a store file and report all its problems: file, line, key, what is wrong and how to fix it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from config import places, relations, safety
from config.files import (
    FILES,
    FLOOR_FILES,
    FORWARDER_FILES,
    FORWARDING_FILES,
    MAIL_FILES,
    READER_FILES,
    STANDBY_FILES,
    database,
    pictures,
    resolve,
    variables,
)
from config.files import problems as problems_of_files
from config.lines import Place, key_lines, line_of
from config.messages import explain, is_echo, on_one_line
from config.model import StoreConfig
from config.punctuation import culprit

M = TypeVar("M", bound=BaseModel)
OWN_FILE = "the store's own file"
"""Name of the store file in problems of a text that contains only some sections."""


@dataclass(frozen=True, order=True)
class Problem:
    """A problem in a store file; `line` 0: the whole file, `key` empty: no particular key."""

    file: str
    line: int
    key: str
    text: str
    warning: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {'warning: ' * self.warning}{self.key}{': ' * bool(self.key)}{self.text}"


class ConfigError(Exception):
    """Raised for an invalid store file; the text lists all problems, one per line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: str | Path, *, files: bool = True) -> StoreConfig:
    """Load the store, with absolute paths (relative ones are relative to the file); ConfigError with all problems.

    `files`: password, certificates and key must exist and be readable, as required by the service.
    """
    config, problems = _check(Path(path), files=files)
    errors = tuple(problem for problem in problems if not problem.warning)
    if config is None or errors:
        raise ConfigError(errors)
    return config


def load_text(
    text: str,
    name: str,
    folder: Path,
    own: Mapping[str, Any] | None = None,
    complete: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = lambda given, own: {**own, **given},
) -> StoreConfig:
    """Load the store from a text, called `name` in problems; relative paths are relative to `folder`.

    `own`: sections of the store file. `complete` combines them with the text's sections; by default a section of the
    text replaces the store file's.
    """
    config, problems = _judge(name, text, folder / name, own=own or {}, complete=complete)
    errors = tuple(problem for problem in problems if not problem.warning)
    if config is None or errors:
        raise ConfigError(errors)
    return config


def check(path: str | Path) -> tuple[Problem, ...]:
    """Return all problems of a file in the order of its lines; the file is valid if there are only warnings."""
    return _check(Path(path), files=True, doubts=True)[1]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the store file, for editors."""
    made = StoreConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "Tagtrail store file"}


def key_name(place: Place) -> str:
    """Format a place as `zones[3].polygon`."""
    name = ""
    for step in place:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            quoted = step if re.fullmatch(r"[\w-]+", step) else f'"{on_one_line(step)}"'
            name += f".{quoted}" if name else quoted
    return name


def _check(path: Path, *, files: bool, doubts: bool = False) -> tuple[StoreConfig | None, tuple[Problem, ...]]:
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        return None, (Problem(file, 0, "", f"can't be read: {error.strerror}"),)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return None, (Problem(file, line, "", f"byte {error.object[error.start]:#04x} is not UTF-8; save it as UTF-8"),)
    return _judge(file, text, Path(os.path.abspath(path)), files=files, doubts=doubts)


def _judge(
    file: str,
    text: str,
    path: Path,
    *,
    files: bool = False,
    doubts: bool = False,
    own: Mapping[str, Any] = MappingProxyType({}),
    complete: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = lambda given, _: dict(given),
) -> tuple[StoreConfig | None, tuple[Problem, ...]]:
    """Validate a text. `path`: the file, or the file it would be. `doubts`: also look for likely mistakes."""
    try:
        given = tomllib.loads(text)
        raw = complete(given, own)
    except (ValueError, RecursionError) as error:
        return None, (_syntax(file, text, error),)

    found: list[tuple[Place, str, bool]] = []
    config = None
    try:
        config = StoreConfig.model_validate(raw)
    except ValidationError as invalid:
        found += [(*explain(error), False) for error in invalid.errors(include_url=False) if not is_echo(error)]
    found += relations.problems(raw)
    found += variables(raw)
    if files:
        found += problems_of_files(raw, path, service=not doubts)
    if doubts:
        found += [*places.doubts(raw), *safety.doubts(raw), *database(raw, path), *pictures(raw, path)]
    lines = key_lines(text)
    # A set, because a value can be invalid by itself and in relation to others.
    problems = {
        Problem(OWN_FILE, 0, key_name(at), on_one_line(what), soft)
        if at and at[0] in own and at[0] not in given
        else Problem(file, line_of(lines, at), key_name(at), on_one_line(what), soft)
        for at, what, soft in found
    }
    return config and _absolute(config, path.parent), tuple(sorted(problems))


def _syntax(file: str, text: str, error: Exception) -> Problem:
    if isinstance(error, RecursionError):
        return Problem(file, 0, "", "not readable: lists or tables are nested too deeply")
    lines = text.split("\n")
    at = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
    # A string opened by a wrong character is reported only at the end of the document.
    for line in (int(at[1]),) if at else range(1, len(lines) + 1):
        if found := culprit(lines[line - 1]):
            return Problem(file, line, "", f"invalid TOML: {found[1]} (column {found[0]})")
    if at:
        said = str(error)[: at.start()].replace("Cannot overwrite a value", "this key stands twice")
        said = _plainer(lines[int(at[1]) - 1]) or said
        return Problem(file, int(at[1]), "", f"invalid TOML: {said} (column {at[2]})")
    return Problem(file, len(lines), "", f"invalid TOML: {error}")


def _plainer(line: str) -> str | None:
    """Return what is most often wrong with a line of TOML, in plainer words than the parser's."""
    found = re.fullmatch(r"\s*([\w-]+)\s*=\s*([^\s\"'\[{#][^#]*?)\s*(#.*)?", line)
    if found is None or re.fullmatch(r"true|false|[+-]?(0|[1-9]\d*)(\.\d+)?", found[2]):
        return None
    if found[2].lower() in ("true", "false", "yes", "no", "on", "off", "是", "否"):
        return f"{found[1]} is {found[2]}; expected: true or false"
    return f'{found[1]} is {found[2]}; text is written in quotes: "{found[2].strip(chr(34))}"'


def _absolute(config: StoreConfig, folder: Path) -> StoreConfig:
    def resolved(table: str, names: Iterable[str]) -> BaseModel:
        model: BaseModel = getattr(config, table)
        return _with_paths(model, names, folder)

    tables = {**FILES, "database": ("path",)}
    listed: dict[str, Any] = {
        "readers": tuple(_with_paths(reader, READER_FILES, folder) for reader in config.readers),
        "forwarders": tuple(_with_paths(one, FORWARDER_FILES, folder) for one in config.forwarders),
    }
    listed["floors"] = tuple(
        floor
        if floor.image is None
        else floor.model_copy(update={"image": _with_paths(floor.image, FLOOR_FILES, folder)})
        for floor in config.floors
    )
    if config.mail is not None:
        listed["mail"] = _with_paths(config.mail, MAIL_FILES, folder)
    if config.forwarding is not None:
        listed["forwarding"] = _with_paths(config.forwarding, FORWARDING_FILES, folder)
    if config.standby is not None:
        listed["standby"] = _with_paths(config.standby, STANDBY_FILES, folder)
    return config.model_copy(update=listed | {table: resolved(table, names) for table, names in tables.items()})


def _with_paths(model: M, names: Iterable[str], folder: Path) -> M:
    given = {name: value for name in names if (value := getattr(model, name)) is not None}
    return model.model_copy(update={name: resolve(str(value), folder) for name, value in given.items()})
