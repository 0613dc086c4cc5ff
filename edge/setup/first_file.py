"""The first store file of a store, with comments: valid as it is, and the start for an editor and `tagtrail layout`.

Where zones and antennas are cannot be known here. Each antenna gets a zone of its own, in a row, so that every read
shows somewhere from the first start on.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit

from config.check import ConfigError, check, load_text
from config.timezones import known
from edge.store.errors import Trouble

SIDE_M = 6
"""Side of a zone to begin with; the next one begins GAP_M further."""
GAP_M = 1
KINDS = ("entrance", "exit", "counter")
"""Kinds of the first zone, the second, and all others."""
CHINA = ("Asia/Shanghai", "Asia/Urumqi", "Asia/Chongqing", "Asia/Harbin", "Asia/Kashgar", "PRC")
"""Time zones of mainland China."""
NAMES = {"entrance": ("入口", "Entrance"), "exit": ("出口", "Exit"), "counter": ("专柜 {}", "Counter {}")}


@dataclass(frozen=True)
class FoundReader:
    """A reader at an address, and the number of its antennas."""

    driver: str
    address: str
    antennas: int


@dataclass(frozen=True)
class Answers:
    """What store IT has told. `members`: GS1 company prefix of 6 to 12 digits, or `0x` with an EPC prefix in hex."""

    store: str
    name: str
    timezone: str
    broker: str
    database: Path
    username: str | None = None
    members: str | None = None
    listen: str = "127.0.0.1:8080"
    readers: tuple[FoundReader, ...] = ()


def write(file: Path, answers: Answers) -> None:
    """Write the store file. Trouble if it exists, can't be written, or would not be valid: then there is none."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        raise Trouble(f"{file} exists: change it with an editor, or choose another name") from error
    except OSError as error:
        raise Trouble(f"can't write {file}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text(answers))
        if wrong := [problem for problem in check(file) if not problem.warning]:
            said = "; ".join(f"{problem.key}: {problem.text}" for problem in wrong)
            raise Trouble(f"no store file written: {said}")
    except BaseException:
        with contextlib.suppress(OSError):
            file.unlink()
        raise


def mistake(name: str, value: str) -> str | None:
    """Return what is wrong with one of the Answers; None if nothing is."""
    given: dict[str, Any] = {name: value}
    sound = Answers("s", "s", "Asia/Shanghai", "mqtts://broker.example", Path("s.db"))
    try:
        load_text(text(replace(sound, **given)), "store.toml", Path.cwd())
    except ConfigError as error:
        return error.problems[0].text
    return None


def machine_timezone() -> str | None:
    """Return the IANA name of this machine's time zone; None if it has none, or only an offset such as UTC."""
    link = os.path.realpath("/etc/localtime")
    name = link.partition("/zoneinfo/")[2]
    return name if name in known() and "/" in name and not name.startswith("Etc/") else None


def text(answers: Answers) -> str:
    """Return the store file as text."""
    antennas = _antennas(answers.readers)
    return "\n".join(
        [
            HEAD,
            "[store]",
            f"id = {_toml(answers.store)}   # by which the CRM knows the store; never change it",
            f"name = {_toml(answers.name)}",
            f"timezone = {_toml(answers.timezone)}",
            OPENING_HOURS,
            "[[floors]]",
            'id = "F1"',
            'name = { zh = "一楼", en = "Ground floor" }',
            ZONES,
            *_zones(len(antennas) or len(KINDS)),
            READERS,
            *_readers(answers.readers, answers.timezone),
            *_tags(answers.members),
            MQTT,
            "[mqtt]",
            f"url = {_toml(answers.broker)}",
            *_login(answers.username),
            DATABASE,
            "[database]",
            f"path = {_toml(str(answers.database))}",
            "quota_mb = 2048",
            PAGE,
            "[web]",
            f"listen = {_toml(answers.listen)}",
            REST,
        ]
    )


def _toml(value: Any) -> str:
    return str(tomlkit.item(value).as_string())


def _antennas(readers: Sequence[FoundReader]) -> list[tuple[int, int]]:
    return [(number, port) for number, reader in enumerate(readers) for port in range(1, reader.antennas + 1)]


def _kind(number: int) -> str:
    return KINDS[min(number, len(KINDS) - 1)]


def _zone_id(number: int) -> str:
    kind = _kind(number)
    return f"{kind}-{number - 1}" if kind == "counter" else kind


def _left_m(number: int) -> int:
    return number * (SIDE_M + GAP_M)


def _zones(count: int) -> Iterator[str]:
    for number in range(count):
        kind, left = _kind(number), _left_m(number)
        zh, en = (name.format(number - 1) for name in NAMES[kind])
        right = left + SIDE_M
        yield f"""[[zones]]
id = {_toml(_zone_id(number))}
name = {{ zh = {_toml(zh)}, en = {_toml(en)} }}
kind = {_toml(kind)}
floor = "F1"
polygon = [[{left}, 0], [{right}, 0], [{right}, {SIDE_M}], [{left}, {SIDE_M}]]
"""


def _readers(readers: Sequence[FoundReader], timezone: str) -> Iterator[str]:
    if not readers:
        yield NO_READERS
    zone = 0
    for number, reader in enumerate(readers, 1):
        yield f"""[[readers]]
id = "reader-{number}"
driver = {_toml(reader.driver)}
address = {_toml(reader.address)}"""
        if reader.driver == "thingmagic":
            yield f"{_region(timezone)}   # China: prc, 920 to 925 MHz; Europe: eu3; North America: na"
        yield "antennas = ["
        for port in range(1, reader.antennas + 1):
            centre = f"[{_left_m(zone) + SIDE_M / 2:g}, {SIDE_M / 2:g}]"
            yield f"    {{ port = {port}, zone = {_toml(_zone_id(zone))}, position = {centre} }},"
            zone += 1
        yield "]\n"


def _region(timezone: str) -> str:
    """Return the key of a ThingMagic reader's band. Elsewhere than in China it is left to store IT: a wrong one is
    against the law, and without the key `tagtrail check` warns."""
    return 'region = "prc"' if timezone in CHINA else '# region = "eu3"'


def _tags(members: str | None) -> Iterator[str]:
    yield TAGS
    if members is None:
        yield NO_MEMBERS
        return
    if found := re.fullmatch(r"0[xX]([0-9A-Fa-f]+)", members):
        yield f'[[tag_classes]]\nclass = "member"\nepc_prefix = {_toml(found[1].upper())}\n'
    else:
        for class_, scheme, what in (
            ("member", "gsrn-96", "loyalty cards"),
            ("staff", "gsrnp-96", "badges"),
            ("cart", "grai-96", "trolleys and baskets"),
        ):
            yield f"""[[tag_classes]]
class = "{class_}"   # {what}
scheme = "{scheme}"
company_prefix = {_toml(members)}
"""
    yield '[[tag_classes]]\nclass = "merchandise"\nscheme = "sgtin-96"   # of all manufacturers\n'


def _login(username: str | None) -> Iterator[str]:
    if username is None:
        yield '# username = "…"\n# password_file = "${CREDENTIALS_DIRECTORY}/mqtt-password"'
    else:
        yield f'username = {_toml(username)}\npassword_file = "${{CREDENTIALS_DIRECTORY}}/mqtt-password"'


HEAD = """\
# Store file, begun by `tagtrail init`. `tagtrail check` lists all problems with their lines.
# Lengths are in metres, x to the east, y to the north. Ids must never change; names can.
# All keys with examples: config/demo.toml, in the package /usr/share/doc/tagtrail/examples/store.toml.
"""
OPENING_HOURS = """
# Coverage and staffed time refer to opening hours; without them, to the whole business day.
# [[opening_hours]]
# open = "10:00"
# close = "22:00"
"""
ZONES = """
# Where people are counted. `tagtrail layout` moves zones and antennas on a floor plan.
# kind: entrance, exit, counter, aisle, fitting_room, checkout, service, back_room.
"""
READERS = """
# Each antenna has a zone of its own to begin with: give antennas that cover the same area the same zone, delete ports
# that no antenna is connected to, and set height (2.5 m by default) where it is known.
"""
NO_READERS = """\
# There are none yet. `tagtrail readers scan` finds readers; add each, for example:
# [[readers]]
# id = "reader-1"
# driver = "llrp"
# address = "10.20.0.11"
# antennas = [{ port = 1, zone = "entrance", position = [3, 3] }]
"""
TAGS = """
# Class of a tag by its EPC; the first rule that matches applies, other tags are unknown.
"""
NO_MEMBERS = """\
# Without a rule for members nobody is recognised:
# [[tag_classes]]
# class = "member"
# scheme = "gsrn-96"
# company_prefix = "9521141"   # the chain's GS1 company prefix
"""
MQTT = """
# The chain's broker: mqtts:// for TLS. Secrets are in /etc/credstore/, see docs/install.md.
"""
DATABASE = """# ca = "chain-ca.pem"

# The database of this store, and the most room that it may take.
"""
PAGE = """
# The managers' page. Other addresses than 127.0.0.1 need cert and key, or a proxy: docs/install.md.
"""
REST = """# cert = "page.pem"
# key = "${CREDENTIALS_DIRECTORY}/page-key"

# Health and metrics for a monitoring program on this machine.
# [monitoring]
# listen = "127.0.0.1:9464"

# Limits of pass-by, touch, visit and engagement; increase def_version with every change.
[thresholds]
def_version = 1

# Cues for staff to attend to members; managers can edit them on the page.
# [[cues.rules]]
# id = "vip"
# kind = "arrival"
# tiers = ["gold"]
"""
