"""Checks of the files named in a store file, and of the location of the database."""

from __future__ import annotations

import datetime as dt
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from config import certificates, floor_image
from config.certificates import Unusable
from config.lines import Place
from config.relations import Found, tables

CREDENTIALS = "${CREDENTIALS_DIRECTORY}"
"""Folder of the credentials that systemd passes to the service (LoadCredential=). The only variable in paths."""
FILES = {"mqtt": ("password_file", "ca", "cert", "key"), "web": ("cert", "key"), "calibration": ("file",)}
"""Keys of files that the service needs."""
FORWARDING_FILES = ("cert", "key", "ca")
"""The service needs the former two, a forwarder the last: their connection says what is missing."""
MAIL_FILES = ("password_file", "ca")
"""The service works without them, and says that it can't send mail."""
FORWARDER_FILES = ("token_file",)
FLOOR_FILES = ("file",)
"""Pictures of floors. The page does without one that it can't show."""
STANDBY_FILES = ("token_file",)
READER_FILES = ("ca", "cert", "key", "password_file")
SECRETS = ("password_file", "key", "token_file")
UNITS = Path("/etc/tagtrail")
"""Folder of the store files for the unit tagtrail@STORE."""
CREDSTORES = (Path("/etc/credstore"), Path("/etc/credstore.encrypted"))
"""Where systemd looks for credentials of the unit, as tagtrail.STORE.NAME."""
STATE = Path("/var/lib/tagtrail")
"""Folder in which the unit can write, in a subfolder named after the store."""
IN_MEMORY, ON_NETWORK = ("tmpfs", "ramfs"), ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
Raw = Mapping[str, Any]


def variables(raw: Raw) -> Iterator[Found]:
    """Yield paths with variables that are not replaced."""
    for place, given in _paths(raw, {**FILES, "mail": MAIL_FILES, "database": ("path",)}):
        if _has_variable(given, place[0] in (*FILES, "mail")):
            text = f"only {CREDENTIALS} at the beginning of a path is replaced, and only in [mqtt], [web] and [mail]"
            if given.startswith("%d/"):
                text += f"; write {CREDENTIALS}/{given[3:]}"
            yield place, text, False
        elif given.startswith("~"):
            yield place, "~ is not replaced in a store file; expected: the full path", False


def problems(raw: Raw, file: Path, service: bool) -> Iterator[Found]:
    """Yield files that are missing or unreadable; outside the service, also those with unusable content. `file`: the
    store file.

    systemd's credentials can be read only by the service. A reader's files don't prevent the service from starting.
    """
    places = [*_paths(raw, FILES)]
    if not service:
        places += [
            ((*at, key), given)
            for at, reader in tables(raw, "readers")
            for key in READER_FILES
            if isinstance(given := reader.get(key), str) and given and "\0" not in given and "via" not in reader
        ]
        places += [
            ((*at, key), given)
            for at, forwarder in tables(raw, "forwarders")
            for key in FORWARDER_FILES
            if isinstance(given := forwarder.get(key), str) and given and "\0" not in given
        ]
        places += _paths(raw, {"forwarding": FORWARDING_FILES, "standby": STANDBY_FILES, "mail": MAIL_FILES})
    readable: dict[Place, Path] = {}
    for place, given in places:
        path = resolve(given, file.parent)
        if _has_variable(given, credentials=True) or given.startswith("~"):
            continue
        if given.startswith(CREDENTIALS) and "CREDENTIALS_DIRECTORY" not in os.environ:
            if (text := _credential(given, file)) is not None:
                yield place, text, not service
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            yield place, f"can't read {path}: {error.strerror}", False
            continue
        if not stat.S_ISREG(mode):
            yield place, f"{path} is not a file", False
        elif not os.access(path, os.R_OK):
            yield place, f"cannot read {path}: permission denied for the current user", False
        else:
            readable[place] = path
            if not service and place[-1] == "password_file" and not path.stat().st_size:
                yield place, f"{path} is empty", True
            if not service and place[-1] in SECRETS and mode & 0o077:
                yield place, f"{path} is readable by other users; expected: chmod 600 {path}", True
    if not service:
        yield from _contents(readable)


def _credential(given: str, file: Path) -> str | None:
    """Return what is wrong with a credential outside the service; None if it is where the unit takes it from."""
    name = f"tagtrail.{file.stem}.{Path(given).name}"
    if file.parent != UNITS or not os.access(CREDSTORES[0], os.X_OK):
        return f"{CREDENTIALS} is not set here: only the service, started by systemd, can read it"
    there = next((store / name for store in CREDSTORES if (store / name).is_file()), None)
    if there is None:
        return f"there is no {CREDSTORES[0] / name}, from which systemd takes it: docs/install.md"
    if there.parent == CREDSTORES[0] and there.stat().st_mode & 0o077:  # others are encrypted
        return f"{there} is readable by other users; expected: chmod 600 {there}"
    return None if there.stat().st_size else f"{there} is empty"


def pictures(raw: Raw, file: Path) -> Iterator[Found]:
    """Yield warnings about pictures of floors that can't be shown, or would look wrong."""
    for at, floor in tables(raw, "floors"):
        image = floor.get("image")
        given = image.get("file") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(given, str) or not given or "\0" in given:
            continue
        place, path = (*at, "image", "file"), resolve(given, file.parent)
        if _has_variable(given, credentials=False) or given.startswith("~"):
            yield place, "variables and ~ are not replaced here; expected: the path of a file", True
            continue
        try:
            picture = floor_image.read(path)
        except OSError as error:
            yield place, f"can't read {path}: {error.strerror}; the plan is shown without it", True
            continue
        except floor_image.Unusable as unusable:
            yield place, f"{path} {unusable}; the plan is shown without it", True
            continue
        width, height = image.get("width"), image.get("height")
        if _is_length(width) and _is_length(height) and floor_image.is_skewed(picture, width, height):
            sizes = f"{picture.width:g} × {picture.height:g}, but {width:g} × {height:g} m on the floor"
            yield (*at, "image"), f"{path} is {sizes}: it is distorted; tagtrail layout places it", True
        if len(picture.content) > floor_image.SLOW_BYTES:
            size = f"{len(picture.content) / 1e6:.1f} MB"
            yield place, f"{path} has {size}, which takes long on a phone; save it smaller", True
        if file.parent == UNITS and not path.stat().st_mode & 0o004:
            yield place, f"{path} can't be read by the service; expected: chmod 644 {path}", True


def _is_length(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def database(raw: Raw, file: Path) -> Iterator[Found]:
    """Yield warnings about the location of the database."""
    section = raw.get("database")
    given = section.get("path") if isinstance(section, dict) else None
    if not isinstance(given, str) or not given or "\0" in given or given[0] in "~$":
        return
    place: Place = ("database", "path")
    path, store = resolve(given, file.parent), raw.get("store")
    names = (file.stem, store.get("id") if isinstance(store, dict) else None)
    own = path.parent.parent == STATE and path.parent.name in names
    system = _file_system(path)
    if path.is_dir():
        yield place, f"{path} is a folder; expected: a file in it, such as {path}/store.db", False
    elif (file_above := next((above for above in path.parents if above.is_file()), None)) is not None:
        yield place, f"{file_above} is a file, so nothing can be stored below it", False
    elif _is_read_only(path):
        yield place, f"{path} is on a file system that is read-only", True
    elif system in IN_MEMORY:
        yield place, f"{path} is in memory ({system}): all data is lost when the machine is switched off", True
    elif system in ON_NETWORK:
        yield place, f"{path} is on a network drive ({system}), where databases get corrupted", True
    elif own:
        return
    elif not Path(given).is_absolute():
        text = f"is beside the store file: {path}; the unit can write only to {STATE}/{file.stem}/"
        yield place, text, True
    elif file.parent == UNITS or not path.is_relative_to(tempfile.gettempdir()):
        yield place, f"the unit can write only to {STATE}/{file.stem}/, not to {path.parent}/", True


def _is_read_only(path: Path) -> bool:
    existing = next(above for above in path.parents if above.exists())
    return bool(os.statvfs(existing).f_flag & os.ST_RDONLY)


def resolve(given: str, folder: Path) -> Path:
    """Return the absolute path of a path in the store file."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and given.startswith(CREDENTIALS):
        given = credentials + given.removeprefix(CREDENTIALS)
    return Path(os.path.abspath(folder / given))


def _contents(readable: Mapping[Place, Path]) -> Iterator[Found]:
    now = dt.datetime.now(dt.UTC)
    for place, path in readable.items():
        try:
            if place[-1] in ("ca", "cert"):
                yield from _dates(place, path, now)
            elif place[-1] == "key" and (cert := readable.get((*place[:-1], "cert"))) is not None:
                certificates.check_pair(cert, path)
        except Unusable as unusable:
            yield place, f"{path} {unusable}", False


def _dates(place: Place, path: Path, now: dt.datetime) -> Iterator[Found]:
    found = certificates.read(path)
    # A CA file may contain expired CAs besides valid ones; a certificate comes first in its chain.
    holds = found[0] if place[-1] == "cert" else max(found)
    if holds.until < now:
        yield place, f"{path} expired on {holds.until:%Y-%m-%d}", False
    elif holds.since > now:
        text = f"{path} is valid only from {holds.since:%Y-%m-%d}; is this machine's clock right?"
        yield place, text, True
    elif (left := holds.days_left(now)) <= certificates.WARN_DAYS:
        yield place, f"{path} expires on {holds.until:%Y-%m-%d}, {certificates.in_days(left)}", True


def _has_variable(given: str, credentials: bool) -> bool:
    return "$" in given.removeprefix(CREDENTIALS if credentials else "") or given.startswith("%d/")


def _paths(raw: Raw, names: Mapping[str, Iterable[str]]) -> Iterator[tuple[Place, str]]:
    for table, keys in names.items():
        items = raw.get(table)
        if not isinstance(items, dict):
            continue
        for key in keys:
            if isinstance(given := items.get(key), str) and given and "\0" not in given:
                yield (table, key), given


def _file_system(path: Path) -> str:
    """Return the type of the file system of a path that exists or is to be created; empty if unknown."""
    there = next((parent for parent in (path, *path.parents) if parent.exists()), path)
    try:
        real = there.resolve()
        mounts = [line.split(" ")[1:3] for line in Path("/proc/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    holding = [(point.encode().decode("unicode_escape"), kind) for point, kind in mounts]
    return max(
        ((point, kind) for point, kind in holding if real.is_relative_to(point)),
        key=lambda found: len(found[0]),
        default=("", ""),
    )[1]
