"""Power, mode and population of each antenna, as far as the reader's own tables allow."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drivers.llrp.codec import Capabilities
from drivers.llrp.ports import Tell
from drivers.llrp.rospec import Antenna
from drivers.session import Radio


def allowed(wanted: Mapping[int, Radio], can: Capabilities, tell: Tell) -> dict[int, Antenna]:
    """Return what the reader can be told of its antennas; `tell` gets what it can't be."""
    return {
        port: Antenna(
            power=_power(port, radio.power_cdbm, can, tell),
            mode=_mode(port, radio.mode, can, tell),
            population=radio.population,
            hop_table=can.hop_table,
        )
        for port, radio in sorted(wanted.items())
    }


def _power(port: int, wanted_cdbm: int | None, can: Capabilities, tell: Tell) -> int | None:
    """Return the index of the highest power that isn't above the wanted one; the lowest if all are."""
    if wanted_cdbm is None:
        return None
    if not can.powers:
        tell(f"the reader has no table of powers: port {port} keeps its own")
        return None
    by_power = sorted(can.powers.items(), key=lambda entry: entry[1])
    index, power_cdbm = next((entry for entry in reversed(by_power) if entry[1] <= wanted_cdbm), by_power[0])
    if not by_power[0][1] <= wanted_cdbm <= by_power[-1][1]:
        tell(
            f"the reader's powers are {by_power[0][1] / 100:g} to {by_power[-1][1] / 100:g} dBm, not "
            f"{wanted_cdbm / 100:g}: port {port} has {power_cdbm / 100:g} dBm"
        )
    return index


def _mode(port: int, wanted: int | None, can: Capabilities, tell: Tell) -> int | None:
    if wanted is None or wanted in can.modes:
        return wanted
    listed = ", ".join(map(str, can.modes)) or "not told"
    tell(f"the reader has no mode {wanted} (its modes: {listed}): port {port} keeps its own")
    return None


def tables(can: Capabilities) -> dict[str, str]:
    """Return what the reader can do as details of its status."""
    told = {}
    if can.powers:
        told["powers"] = f"{min(can.powers.values()) / 100:g} to {max(can.powers.values()) / 100:g} dBm"
    if can.modes:
        told["modes"] = ", ".join(f"{number} ({rate / 1000:g} kb/s)" for number, rate in can.modes.items())
    return told


def powers_of(detail: Mapping[str, str]) -> tuple[float, float] | None:
    """Return the lowest and highest power in dBm of a status's details."""
    found = re.fullmatch(r"(\S+) to (\S+) dBm", detail.get("powers", ""))
    return (float(found[1]), float(found[2])) if found else None


def modes_of(detail: Mapping[str, str]) -> dict[int, float]:
    """Return the kilobits a second of each mode of a status's details."""
    return {int(number): float(rate) for number, rate in re.findall(r"(\d+) \((\S+) kb/s\)", detail.get("modes", ""))}
