"""Check relations between values of a store file.

Works on the file as parsed, so that an invalid value does not hide other problems. Values of the wrong type are
skipped; the models report them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from config import hosts
from config.facts import SERVED, ZoneKind
from config.geometry import crosses_itself, is_flat
from config.lines import Place
from config.messages import did_you_mean, show
from config.model import TagClass, Thresholds
from config.punctuation import is_wide
from config.readers import JSON_SCHEMES, SERIAL_DRIVERS
from config.tags import masks

Raw = Mapping[str, Any]
PORTS = {"antennas": "antenna", "inputs": "contact", "outputs": "lamp"}
"""Tables of a reader whose items have ports, and the name of the connected device."""
PORT_MAX = {
    "thingmagic": 16,
    "r2000": 16,
    "uhfreader18": 16,
    "chafon-cf": 16,
    "chainway": 16,
    "hopeland": 8,
    "gx": 32,
    "nordicid": 32,
    "metratec": 16,
}
"""Highest antenna port by driver."""
BY_DOCUMENT = {
    "hopeland": "how it reports tags",
    "nordicid": "how it answers",
    "metratec": "what it sends",
}
"""What of a driver no bytes of a real reader confirm; docs/readers.md has the sources."""
UNCONFIRMED = "{}: {} is known from documents only, not from a real reader; try it with tagtrail readers test"
Found = tuple[Place, str, bool]
"""Place, message, and True if it is only a warning."""


def problems(raw: Raw) -> list[Found]:
    """Return all problems, in no particular order."""
    return [found for rule in _RULES for found in rule(raw)]


def _unique_ids(raw: Raw) -> Iterator[Found]:
    for table in ("floors", "zones", "readers", "forwarders", "promotions", "layout_changes", "service_targets"):
        seen: dict[str, Place] = {}
        key = "tier" if table == "service_targets" else "id"
        for place, item in tables(raw, table):
            name = item.get(key)
            if isinstance(name, str) and name in seen:
                text = f"{key} {show(name)} is already used by {table}[{seen[name][1]}]; {key}s must be unique"
                yield (*place, key), text, False
            elif isinstance(name, str):
                seen[name] = place


def _references(raw: Raw) -> Iterator[Found]:
    floors, zones = _ids(raw, "floors"), _ids(raw, "zones")
    for place, zone in tables(raw, "zones"):
        yield from _known((*place, "floor"), zone.get("floor"), "floor", floors)
        listed = zone.get("neighbours")
        for i, other in enumerate(listed if isinstance(listed, list) else ()):
            yield from _known((*place, "neighbours", i), other, "zone", zones)
            if isinstance(other, str) and other == zone.get("id"):
                yield (*place, "neighbours", i), "a zone can't be its own neighbour; remove it", False
    for table in PORTS:
        for place, item in ports_of(raw, table):
            yield from _known((*place, "zone"), item.get("zone"), "zone", zones)
    for table, names, what, ids in (
        ("opening_hours", ("floors",), "floor", floors),
        ("special_days", ("floors",), "floor", floors),
        ("promotions", ("zones", "controls"), "zone", zones),
        ("layout_changes", ("zones", "controls"), "zone", zones),
    ):
        for place, item in tables(raw, table):
            for name in names:
                listed = item.get(name)
                for i, given in enumerate(listed if isinstance(listed, list) else ()):
                    yield from _known((*place, name, i), given, what, ids)


def _forwarders(raw: Raw) -> Iterator[Found]:
    ids = _ids(raw, "forwarders")
    used = set()
    for place, reader in tables(raw, "readers"):
        via = reader.get("via")
        if via is None:
            continue
        used.add(via)
        if isinstance(via, str) and not ids:
            yield (*place, "via"), f"no forwarder {show(via)}: there is no [[forwarders]] with this id", False
        yield from _known((*place, "via"), via, "forwarder", ids)
        if reader.get("outputs"):
            yield (*place, "outputs"), "lamps at a forwarder's reader are not switched; use a reader without via", False
    for place, forwarder in tables(raw, "forwarders"):
        if forwarder.get("id") not in used:
            yield place, f"no reader has via = {show(forwarder.get('id'))}: it forwards nothing", True
    section, standby = raw.get("forwarding"), raw.get("standby")
    if ids and not isinstance(section, dict):
        yield ("forwarders",), "forwarders need [forwarding] with the address of the service", False
    yield from _host_ports("forwarding", section, ("address", "listen"))
    if isinstance(standby, dict):
        if not isinstance(section, dict):
            yield ("standby",), "a standby needs [forwarding] with the address of the service", False
        elif standby.get("address") == section.get("address"):
            yield ("standby", "address"), "the standby is another gateway: its address is that of the service", False
        witness = standby.get("witness")
        nats = isinstance(witness, str) and witness.startswith("nats://")
        yield from _host_ports("standby", standby, ("address", "listen", *(() if nats else ("witness",))))


def _host_ports(name: str, section: object, keys: Iterable[str]) -> Iterator[Found]:
    for key in keys:
        given = section.get(key) if isinstance(section, dict) else None
        if isinstance(given, str) and given:
            host, port = host_port(given)
            if wrong := hosts.trouble(given, host, listening=key == "listen"):
                yield (name, key), f"{show(given)} {wrong}", False
            elif port is not None and not 1 <= port <= 65535:
                yield (name, key), f"port {show(port)} does not exist; expected: 1 to 65535", False


def cues(raw: Raw) -> Iterator[Found]:
    """Check the rules of [cues] against each other and the zones; also used by the page, where they can be edited."""
    section = raw.get("cues")
    zones = {id_: zone.get("kind") for _, zone in tables(raw, "zones") if isinstance(id_ := zone.get("id"), str)}
    seen: dict[str, int] = {}
    for (_, at), rule in tables(section, "rules") if isinstance(section, dict) else ():
        i = int(at)
        place: Place = ("cues", "rules", i)
        name = rule.get("id")
        if isinstance(name, str) and name in seen:
            yield (*place, "id"), f"id {show(name)} is already used by rules[{seen[name]}]; ids must be unique", False
        elif isinstance(name, str):
            seen[name] = i
        listed = rule.get("zones")
        for n, zone in enumerate(listed if isinstance(listed, list) else ()):
            yield from _known((*place, "zones", n), zone, "zone", list(zones))
            if rule.get("kind") == "waiting" and isinstance(zone, str) and zones.get(zone, "counter") not in SERVED:
                text = f"zone {show(zone)} is of kind {show(zones[zone])}, in which nobody is served"
                yield (*place, "zones", n), text, True


def _known(place: Place, given: object, what: str, ids: list[str]) -> Iterator[Found]:
    if isinstance(given, str) and ids and given not in ids:
        listed = ", ".join(ids) if len(ids) <= 12 else ", ".join(ids[:12]) + ", …"
        guess = did_you_mean(given, ids) if len(ids) > 5 else ""
        yield place, f"no {what} {show(given)}{guess}; {what}s are: {listed}", False


def _ports(raw: Raw) -> Iterator[Found]:
    for table, what in PORTS.items():
        seen: dict[tuple[Place, int], int] = {}
        for place, item in ports_of(raw, table):
            port, reader_place = item.get("port"), place[:2]
            if not isinstance(port, int):
                continue
            if (reader_place, port) in seen:
                text = (
                    f"port {show(port)} is already used by {table}[{seen[reader_place, port]}]; a port has one {what}"
                )
                yield (*place, "port"), text, False
            else:
                seen[reader_place, port] = int(place[-1])


def _families(raw: Raw) -> Iterator[Found]:
    """Check for settings that a reader family does not support or should have."""
    for place, reader in tables(raw, "readers"):
        driver = str(reader.get("driver"))
        antennas = list(tables(reader, "antennas"))
        if driver == "m100" and len(antennas) > 1:
            yield (*place, "antennas"), "most m100 readers have one antenna; only few report which one saw a tag", True
        if driver == "tsl" and len(antennas) > 1:
            yield (*place, "antennas"), "tsl readers have one antenna", True
        most = PORT_MAX.get(driver, 64)
        for at, antenna in antennas:
            port = antenna.get("port")
            if isinstance(port, int) and most < port <= 64:
                yield (*place, *at, "port"), f"{driver} readers have ports 1 to {most}, not {port}", False
        if driver == "r2000" and any(isinstance(at.get("port"), int) and 8 < at["port"] <= 16 for _, at in antennas):
            yield (*place, "antennas"), UNCONFIRMED.format(driver, "how ports above 8 are selected"), True
        if driver in BY_DOCUMENT:
            yield (*place, "driver"), UNCONFIRMED.format(driver, BY_DOCUMENT[driver]), True
        if driver == "thingmagic" and "region" not in reader:
            text = 'without region the reader keeps its own; a reader without one is set to China (region = "prc")'
            yield place, text, True


def _addresses(raw: Raw) -> Iterator[Found]:
    seen: dict[str, Place] = {}
    doors: dict[str, tuple[Place, list[object]]] = {}
    for place, reader in tables(raw, "readers"):
        given, driver = reader.get("address"), reader.get("driver")
        if not isinstance(given, str) or not given:
            continue
        at = (*place, "address")
        whole = given
        if driver == "llrp":
            listens, secure = given.startswith("listen://"), reader.get("tls") is True
            host, port = host_port(given.removeprefix("listen://"))
            given = given.removeprefix("listen://")
            if wrong := hosts.trouble(given, host, listening=listens):
                yield at, f"{show(given)} {wrong}", False
            elif host is None or "/" in given:
                yield at, f'{show(given)} is not a network address; expected: "host" or "host:port"', False
            elif port is not None and not 1 <= port <= 65535:
                yield at, f"port {show(port)} does not exist; expected: 1 to 65535", False
            whole = f"{host}:{(5085 if secure else 5084) if port is None else port}"
            if listens:  # any number of readers may connect to one port
                secured = [reader.get(key) for key in ("tls", "cert", "key", "ca")]
                first, its = doors.setdefault(f"{reader.get('via')} {whole}", (place, secured))
                if secured != its:
                    text = f"tls, cert, key and ca must match readers[{first[1]}], which connects to the same port"
                    yield at, text, False
                continue
        elif driver == "json":
            yield from _json_address(at, given)
            if not given.startswith("listen://"):
                continue  # any number of clients
        elif isinstance(driver, str) and driver in SERIAL_DRIVERS:
            host, port = host_port(given.removeprefix("tcp://"))
            wrong = hosts.trouble(given, host) if given.startswith("tcp://") else None
            if wrong or is_wide(given):
                yield at, f"{show(given)} {wrong or hosts.trouble(given, None)}", False
            elif given.startswith("tcp://") and (host is None or port is None or not 1 <= port <= 65535):
                yield at, f'{show(given)} has no host or no port from 1 to 65535; expected: "tcp://host:port"', False
            elif not given.startswith(("/", "tcp://")):
                yield at, f'{show(given)} is not a serial device; expected: "/dev/…" or "tcp://host:port"', False
        whole = f"{reader.get('via')} {whole}"  # a device of another gateway is another one
        if whole in seen:
            text = f"{show(given)} is also the address of readers[{seen[whole][1]}]; a reader accepts one connection"
            yield at, text, False
        else:
            seen[whole] = place


def _json_address(at: Place, given: str) -> Iterator[Found]:
    scheme = next((each for each in JSON_SCHEMES if given.startswith(each)), None)
    if scheme is None:
        return
    rest = given.removeprefix(scheme)
    place, _, path = rest.partition("/")
    host, port = host_port(place)
    if "@" in place:
        yield at, "user and password are not allowed here; use username and password_file", False
    elif wrong := hosts.trouble(place, host, listening=scheme == "listen://"):
        yield at, f"{show(place)} {wrong}", False
    elif host is None or re.search(r"\s", rest):
        yield at, f'{show(given)} is not a network address; expected: "{scheme}host" or "{scheme}host:port"', False
    elif port is not None and not 1 <= port <= 65535:
        yield at, f"port {show(port)} does not exist; expected: 1 to 65535", False
    elif scheme == "listen://" and not path:
        yield at, f'{show(given)} has no path to tell readers apart; expected: "listen://host:port/name"', False
    elif scheme.startswith("mqtt") and not path:
        yield at, f'{show(given)} has no topic; expected: "{scheme}broker/topic"', False


def _polygons(raw: Raw) -> Iterator[Found]:
    for place, zone in tables(raw, "zones"):
        given = zone.get("polygon")
        if not isinstance(given, list) or len(given) < 3 or not all(is_point(corner) for corner in given):
            continue
        corners = [(float(x), float(y)) for x, y in given]
        at = (*place, "polygon")
        repeated = next((i for i, corner in enumerate(corners) if corner in corners[:i]), None)
        if repeated is not None:
            yield (*at, repeated), "duplicate corner; list each corner once, without repeating the first", False
        elif is_flat(corners):
            yield at, "all corners are on one line: the zone has no area", False
        elif crosses_itself(corners):
            yield at, "the outline crosses or touches itself; list the corners in order around the zone", False


def _kinds(raw: Raw) -> Iterator[Found]:
    zones = list(tables(raw, "zones"))
    kinds = [zone.get("kind") for _, zone in zones]
    all_known = all(kind in list(ZoneKind) for kind in kinds)
    for kind, why in (("entrance", "journeys can begin anywhere"), ("exit", "journeys end only after long silence")):
        if zones and all_known and kind not in kinds:
            yield ("zones",), f'no zone is of kind "{kind}": {why}', True
    watched = {str(antenna.get("zone")) for _, antenna in ports_of(raw, "antennas")}
    for place, zone in zones:
        name = zone.get("id")
        if watched and isinstance(name, str) and name not in watched:
            yield place, f"zone {show(name)} has no antenna: nobody will be detected there", True


def _tag_rules(raw: Raw) -> Iterator[Found]:
    earlier: list[tuple[int, bytes, bytes]] = []
    for place, item in tables(raw, "tag_classes"):
        try:
            mask, value = (part.ljust(62, b"\0") for part in masks(TagClass.model_validate(item)))
        except ValidationError:
            continue
        for index, wider, its in earlier:
            if all(w & ~m == 0 and v & w == i for w, m, v, i in zip(wider, mask, value, its, strict=True)):
                yield place, f"never matches: tag_classes[{index}] above matches all of its tags", True
                break
        earlier.append((int(place[1]), mask, value))


def _broker(raw: Raw) -> Iterator[Found]:
    mqtt = raw.get("mqtt")
    if not isinstance(mqtt, dict):
        return
    for one, other in (("key", "cert"), ("cert", "key")):
        if one in mqtt and other not in mqtt:
            yield ("mqtt", one), f"{one} without {other}; a client certificate needs both", False
    if "password_file" in mqtt and "username" not in mqtt:
        yield ("mqtt", "password_file"), "password_file without username", False
    url = mqtt.get("url")
    if not isinstance(url, str) or not re.match(r"mqtts?://[^/\s]+$", url):
        return
    at = ("mqtt", "url")
    if url.startswith("mqtt:"):
        for name in ("ca", "cert", "key"):
            if name in mqtt:
                yield ("mqtt", name), f"{name} is for TLS, but url begins with mqtt://; expected: mqtts://", False
    if "@" in url:
        yield at, "user and password are not allowed here; use username and password_file", False
        return
    rest = url.partition("://")[2]
    if wrong := hosts.trouble(rest, host_port(rest)[0]):
        yield at, f"{show(rest)} {wrong}", False
        return
    try:
        parts = urlsplit(url)
        bad = parts.port == 0 or not parts.hostname
    except ValueError:
        bad = True
    if bad:
        yield at, f"{show(url)} has no host or an invalid port; ports are 1 to 65535", False


def _mail(raw: Raw) -> Iterator[Found]:
    section = raw.get("mail")
    given = section.get("server") if isinstance(section, dict) else None
    if isinstance(given, str) and given:
        host, port = host_port(given)
        if wrong := hosts.trouble(given, host):
            yield ("mail", "server"), f"{show(given)} {wrong}", False
        elif port is not None and not 1 <= port <= 65535:
            yield ("mail", "server"), f"port {show(port)} does not exist; expected: 1 to 65535", False


def _bands(raw: Raw) -> Iterator[Found]:
    given = raw.get("thresholds", {})
    names = ("touch_s", "visit_s", "engaged_s")
    if isinstance(given, dict):
        limits = [given.get(name, Thresholds.model_fields[name].default) for name in names]
        if all(_is_number(limit) for limit in limits) and not limits[0] < limits[1] < limits[2]:
            shown = ", ".join(f"{name} = {limit:g}" for name, limit in zip(names, limits, strict=True))
            yield ("thresholds",), f"{shown}; expected: touch_s < visit_s < engaged_s", False


def _listen(raw: Raw) -> Iterator[Found]:
    web = raw.get("web")
    for one, other in (("key", "cert"), ("cert", "key")):
        if isinstance(web, dict) and one in web and other not in web:
            yield ("web", one), f"{one} without {other}; HTTPS needs both", False
    for section in ("web", "monitoring"):
        given = table.get("listen") if isinstance(table := raw.get(section), dict) else None
        if not isinstance(given, str):
            continue
        at, (host, _) = (section, "listen"), host_port(given)
        if wrong := hosts.trouble(given, host, listening=True):
            yield at, f"{show(given)} {wrong}", False
        elif (found := re.search(r":(\d{1,5})$", given)) and int(found[1]) > 65535:
            yield at, f"port {found[1]} does not exist; expected: 1 to 65535, or 0 for any free one", False
        elif section == "monitoring" and host is not None and not hosts.is_local(host):
            text = f'{show(given)} could be read by others without a login; expected: "127.0.0.1:9464" or the like'
            yield at, text, False


_RULES: tuple[Callable[[Raw], Iterator[Found]], ...] = (
    _unique_ids,
    _references,
    _ports,
    _families,
    _addresses,
    _polygons,
    _kinds,
    _tag_rules,
    _broker,
    _bands,
    _listen,
    _forwarders,
    _mail,
    cues,
)


def tables(raw: Raw, name: str) -> Iterator[tuple[Place, Raw]]:
    items = raw.get(name)
    for i, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield (name, i), item


def ports_of(raw: Raw, table: str) -> Iterator[tuple[Place, Raw]]:
    for place, reader in tables(raw, "readers"):
        for (_, i), item in tables(reader, table):
            yield (*place, table, i), item


def _ids(raw: Raw, table: str) -> list[str]:
    return list(dict.fromkeys(item["id"] for _, item in tables(raw, table) if isinstance(item.get("id"), str)))


def is_point(corner: object) -> bool:
    return isinstance(corner, list) and len(corner) == 2 and all(_is_number(v) and abs(v) <= 10_000 for v in corner)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def host_port(given: str) -> tuple[str | None, int | None]:
    """Split `host`, `host:port` or `[v6]:port` into host and port; no host if it is none of these."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:/\[\]]+)(?::([0-9]{1,9}))?", given)
    return (found[1], int(found[2]) if found[2] else None) if found else (None, None)
