"""Warnings about unsafe settings of a store file: unencrypted secrets, missing TLS, identifiable people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from config.hosts import is_local
from config.lines import Place
from config.messages import show
from config.relations import Found, Raw, tables

SMALL_CELL = 5
"""Smallest safe value: figures of fewer people reveal what individuals did."""
PRIVILEGED = 1024
BY_DOCUMENT = ("keonn",)
"""JSON profiles of which no message of a real reader is known."""


def doubts(raw: Raw) -> Iterator[Found]:
    """Yield all warnings."""
    yield from _broker(raw)
    yield from _page(raw)
    yield from _forwarding(raw)
    yield from _mail(raw)
    for place, reader in tables(raw, "readers"):
        address = reader.get("address")
        if isinstance(address, str) and reader.get("driver") == "json":
            yield from _pushed(place, reader, address)
        elif isinstance(address, str) and address.startswith("listen://") and reader.get("tls") is not True:
            host = re.sub(r":\d+$", "", address.removeprefix("listen://"))
            if not is_local(host):
                text = (
                    "without tls, anyone knowing the reader's identity can impersonate it; expected: tls, cert and key"
                )
                yield (*place, "address"), text, True
    limits = raw.get("thresholds")
    least = limits.get("small_cell") if isinstance(limits, dict) else None
    if isinstance(least, int) and not isinstance(least, bool) and 0 <= least < SMALL_CELL:
        text = f"{least} is below {SMALL_CELL}: figures of so few people reveal what individuals did"
        yield ("thresholds", "small_cell"), text, True
    members = any(rule.get("class") == "member" for _, rule in tables(raw, "tag_classes"))
    if raw.get("readers") and not members:
        yield ("tag_classes",), 'no rule has the class "member": no member will be recognised or counted', True
    store = raw.get("store")
    zone = store.get("timezone") if isinstance(store, dict) else None
    if isinstance(zone, str) and (found := re.fullmatch(r"Etc/GMT([+-])(\d+)", zone)) and found[2] != "0":
        side = "behind" if found[1] == "+" else "ahead of"
        text = f"{show(zone)} is {found[2]} h {side} UTC, without daylight saving time; expected: the local time zone"
        yield ("store", "timezone"), text, True


def _pushed(place: Place, reader: Raw, address: str) -> Iterator[Found]:
    scheme, _, rest = address.partition("://")
    local = is_local(re.sub(r":\d+$", "", rest.partition("/")[0]))
    listens = scheme == "listen"
    if listens and not local and not any(key in reader for key in ("password_file", "ca", "source")):
        text = "anyone on the network can send reads here; expected: password_file, or tls with ca, or source"
        yield (*place, "address"), text, True
    open_wire = scheme in ("http", "ws", "mqtt") or (listens and reader.get("tls") is not True)
    if open_wire and not local and "password_file" in reader:
        yield (*place, "password_file"), "the password is sent unencrypted; expected: TLS", True
    # A WebSocket is pinged, and Impinj's stream carries a sign of life by itself.
    may_be_silent = scheme in ("mqtt", "mqtts", "listen") or (
        scheme in ("http", "https") and reader.get("profile") != "impinj"
    )
    if may_be_silent and "heartbeat_s" not in reader:
        yield place, "without heartbeat_s a reader that has failed can't be told from one without tags", True
    if reader.get("profile") in BY_DOCUMENT:
        yield (
            (*place, "profile"),
            f"{show(reader['profile'])} is known from documents only, not from a real reader; see docs/readers.md",
            True,
        )


def _broker(raw: Raw) -> Iterator[Found]:
    mqtt = raw.get("mqtt")
    url = mqtt.get("url") if isinstance(mqtt, dict) else None
    if not isinstance(mqtt, dict) or not isinstance(url, str) or not url.startswith("mqtt://"):
        return
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return
    if host and not is_local(host):
        what = (
            "the password and member data" if "username" in mqtt or "password_file" in mqtt else "member data and cards"
        )
        yield ("mqtt", "url"), f"{what} are sent unencrypted; expected: mqtts://", True


def _forwarding(raw: Raw) -> Iterator[Found]:
    section = raw.get("forwarding")
    address = section.get("address") if isinstance(section, dict) else None
    if isinstance(section, dict) and isinstance(address, str) and "cert" not in section:
        host = address.rpartition(":")[0]
        if host and not is_local(host):
            yield ("forwarding", "address"), "reads of cards are sent unencrypted; expected: cert, key and ca", True


def _mail(raw: Raw) -> Iterator[Found]:
    section = raw.get("mail")
    server = section.get("server") if isinstance(section, dict) else None
    if isinstance(section, dict) and isinstance(server, str) and section.get("tls") == "none":
        host = re.sub(r":\d+$", "", server)
        if "password_file" in section and not is_local(host):
            yield ("mail", "tls"), 'the password is sent unencrypted; expected: "starttls" or "tls"', True


def _page(raw: Raw) -> Iterator[Found]:
    web = raw.get("web")
    listen = web.get("listen") if isinstance(web, dict) else None
    if not isinstance(web, dict) or not isinstance(listen, str):
        return
    host, _, port = listen.rpartition(":")
    if not is_local(host) and "cert" not in web:
        text = "passwords and member data are sent unencrypted; expected: cert and key, or 127.0.0.1 behind a proxy"
        yield ("web", "listen"), text, True
    if port.isdecimal() and len(port) <= 5 and 0 < int(port) < PRIVILEGED:
        text = f"the unit can't open port {port}; expected: a port from {PRIVILEGED} on, or a proxy (docs/install.md)"
        yield ("web", "listen"), text, True
