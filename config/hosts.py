"""Addresses of readers, brokers and the page: what can't be one, and what is only this machine."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from config.punctuation import is_wide, plain

_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")


def trouble(given: str, host: str | None, *, listening: bool = False) -> str | None:
    """What is wrong with the host of an address `given`; `host` as it was cut out of it, None if none could be.

    `listening`: it is one of ours, so that "every address" is one, too.
    """
    if is_wide(given):
        return f'is written with full-width characters; needed: "{plain(given)}"'
    if (bare := _bare_ipv6(given)) is not None:
        return f'is an IPv6 address, which stands in brackets; needed: "[{bare}]"'
    if host is None:
        return None
    if host.startswith("["):
        address = _address(host[1:-1].partition("%")[0])
        if not isinstance(address, IPv6Address):
            return "has no IPv6 address in its brackets"
    elif re.fullmatch(r"[0-9.]+", host) or host.rpartition(".")[2].isdecimal():
        address = _address(host)
        if not isinstance(address, IPv4Address):
            return "is no IPv4 address: these are four numbers from 0 to 255, without leading zeros"
    else:
        labels = host.removesuffix(".").split(".")
        if not all(_LABEL.fullmatch(label) for label in labels) or len(host) > 253:
            return "is no host name: letters, digits and - between dots"
        return None
    if address.is_multicast or (isinstance(address, IPv4Address) and address.is_reserved):
        return "is no single machine's address"
    if address.is_unspecified and not listening:
        return "stands for every address of this machine, not for another one"
    return None


def is_local(host: str | None) -> bool:
    """Is a host this machine itself, as seen from nowhere else."""
    if host is None:
        return False
    address = _address(host.strip("[]").partition("%")[0])
    return host == "localhost" if address is None else address.is_loopback


def _bare_ipv6(given: str) -> str | None:
    text = re.sub(r"^(\w+)://", "", given)
    return text if text.count(":") >= 2 and isinstance(_address(text.partition("%")[0]), IPv6Address) else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
