"""One file for who helps from afar: what the gateway is and says, without secrets, EPCs and member numbers.

doctor.txt     the examination              status.json   live state, without people
store.toml     the store file               schema.txt    tables with their number of rows, and migrations
health.jsonl   health events of late        log.txt       the unit's journal, as far as it can be read
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

from config import StoreConfig
from edge.database.copies import count
from edge.database.reader import connect
from edge.database.schema import applied
from edge.doctor.examine import as_text, by_hand
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path
from sync import outbox

PEOPLE = ("members", "recognitions", "cues", "resting", "doubles")
"""Parts of the live state about single people or tags."""
HEALTH_ROWS, LOG_LINES = 300, 5_000
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2}[ :-]?){11,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])")
"""Twelve bytes and more: EPCs, keys, hashes."""
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_WORD = re.compile(r"[^\s\"',;:=<>()\[\]{}]+")


async def write(config: StoreConfig, config_file: Path, version: str, clock: Callable[[], int], out: BinaryIO) -> None:
    """Write a bundle. Raises Trouble."""
    live = await read_once(socket_path(config))
    parts = {
        "doctor.txt": as_text(await by_hand(config, config_file, version, clock)),
        "status.json": json.dumps(_without_people(live or {}), indent=1, ensure_ascii=False),
        "store.toml": config_file.read_text("utf-8", "replace"),
        "log.txt": _journal(config_file.stem),
    }
    members: set[str] = set()
    try:
        with closing(connect(config.database.path)) as conn:
            members = _members(conn)
            parts["schema.txt"] = "\n".join([*applied(conn), *(f"{name} {n}" for name, n in count(conn).items())])
            rows = f"SELECT payload FROM {outbox.table('health')} ORDER BY seq DESC LIMIT {HEALTH_ROWS}"
            parts["health.jsonl"] = "\n".join(payload for (payload,) in conn.execute(rows))
    except (sqlite3.Error, Trouble) as error:
        parts["schema.txt"] = f"the database can't be read: {error}"
    with gzip.GzipFile("", "wb", 6, out, 0) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        for name, text in parts.items():
            content = cleaned(text, members).encode()
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o600
            archive.addfile(about, io.BytesIO(content))


def cleaned(text: str, members: set[str]) -> str:
    """Remove member numbers, whatever is as long as an EPC or a key in hex, and logins in addresses."""
    text = _HEX.sub("[hex]", _URL_LOGIN.sub("[login]@", text))
    return _WORD.sub(lambda word: "[member]" if _names(word[0], members) else word[0], text)


def _names(word: str, members: set[str]) -> bool:
    return word in members or word.strip(".!?#") in members


def _without_people(live: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in live.items() if name not in PEOPLE}


def _members(conn: sqlite3.Connection) -> set[str]:
    found: set[str] = set()
    for table in ("directory", "visit"):
        found |= {str(member) for (member,) in conn.execute(f"SELECT DISTINCT member FROM {table}") if member}
    return found


def _journal(store: str) -> str:
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return "no journal on this machine"
    command = [journalctl, "-q", "-o", "short-iso", "-n", str(LOG_LINES), "-u", f"tagtrail@{store}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, errors="replace").stdout
    return "the journal can't be read"
