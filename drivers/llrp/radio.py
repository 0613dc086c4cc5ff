"""Power, mode and population of each antenna, as far as the reader's own tables allow."""

from __future__ import annotations

from collections.abc import Mapping

from drivers.llrp.codec import Capabilities
from drivers.llrp.ports import Tell
from drivers.llrp.rospec import Antenna
from drivers.session import Radio, Tables


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


def tables_of(can: Capabilities) -> Tables:
    """Return the tables that a reader has told."""
    return Tables(tuple(sorted(can.powers.values())), dict(can.modes))


def shown(tables: Tables) -> dict[str, str]:
    """Return the tables as details of a status, for people."""
    told = {}
    if powers := tables.powers_cdbm:
        told["powers"] = f"{powers[0] / 100:g} to {powers[-1] / 100:g} dBm"
    if tables.modes:
        told["modes"] = ", ".join(f"{number} ({rate / 1000:g} kb/s)" for number, rate in tables.modes.items())
    return told
