"""Validation of the addresses of readers, brokers and the page."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from config.punctuation import is_wide, plain

_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")


def trouble(given: str, host: str | None, *, listening: bool = False) -> str | None:
    """Return what is wrong with the host of the address `given`, or None.

    `host`: the host part of it, None if it could not be extracted. `listening`: this machine listens on the address,
    so the wildcard address is allowed.
    """
    if is_wide(given):
        return f'has full-width characters; expected: "{plain(given)}"'
    if (bare := _bare_ipv6(given)) is not None:
        return f'is an IPv6 address without brackets; expected: "{bare}"'
    if host is None:
        return _almost(given)
    if host.startswith("["):
        address = _address(host[1:-1].partition("%")[0])
        if not isinstance(address, IPv6Address):
            return "has no valid IPv6 address in brackets"
    elif re.fullmatch(r"[0-9.]+", host) or host.rpartition(".")[2].isdecimal():
        address = _address(host)
        if not isinstance(address, IPv4Address):
            return "is not a valid IPv4 address; expected: four numbers from 0 to 255, without leading zeros"
    else:
        labels = host.removesuffix(".").split(".")
        if not all(_LABEL.fullmatch(label) for label in labels) or len(host) > 253:
            return "is not a valid host name; expected: letters, digits and -, separated by dots"
        return None
    if address.is_link_local and isinstance(address, IPv6Address) and "%" not in host:
        return f'is valid on one cable only; expected: its interface too, such as "[{address}%eth0]"'
    if address.is_multicast or (isinstance(address, IPv4Address) and address.is_reserved):
        return "is not the address of a single machine"
    if address.is_unspecified and not listening:
        return "means all addresses of this machine, not another machine"
    return None


def is_local(host: str | None) -> bool:
    """Return whether the host is a loopback address of this machine."""
    if host is None:
        return False
    address = _address(host.strip("[]").partition("%")[0])
    return host == "localhost" if address is None else address.is_loopback


def _bare_ipv6(given: str) -> str | None:
    """Return a bare IPv6 address in brackets; a number behind an interface, or behind `::1` or `::`, is a port."""
    text = re.sub(r"^(\w+)://", "", given)
    if text.count(":") < 2:
        return None
    port = re.fullmatch(r"(.*%[^:]+|::1?):(\d{1,5})", text)
    host = port[1] if port else text
    if not isinstance(_address(host.partition("%")[0]), IPv6Address):
        return None
    return f"[{host}]:{port[2]}" if port else f"[{host}]"


def _almost(given: str) -> str | None:
    """Return what to leave out of a text that is an address but for that."""
    found = re.fullmatch(r"\s*(?:https?://|llrp://)?([\w.-]+(?::\d{1,5})?)(?:/(?:\d{1,2})?)?\s*", given)
    return f'is more than an address; expected: "{found[1]}"' if found and found[1] != given else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
