"""The ROSpec of our inventory, recognised by its id."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.llrp import codec
from drivers.session import Select

OURS = 0x7A670000
"""Upper 16 bits of our ROSpec ids; the lower 16 are a checksum of the content. So a ROSpec that outlived our connection
is recognised by its id, however the reader describes it, and all others belong to other clients."""
_OURS_MASK = 0xFFFF0000
_EPC_BANK, _EPC_START = 1, 32
"""Memory bank 01 of a Gen2 tag holds CRC and PC before the EPC."""
_SELECT_ONLY, _SELECT_TOO = 0, 1
"""C1G2TagInventoryStateUnawareFilterAction (17.3.1.2.1.1.3): Select/Unselect, Select/DoNothing."""
_POPULATION = 32
"""Initial tag population for the reader, which adapts by itself."""


@dataclass(frozen=True)
class Antenna:
    """What a reader is told of one antenna, by its own tables; None: it keeps its own."""

    power: int | None = None
    """Index in its table of powers."""
    mode: int | None = None
    population: int | None = None
    hop_table: int = 0


def is_ours(rospec_id: int) -> bool:
    """True for ROSpecs of ours, of this or an earlier configuration."""
    return rospec_id & _OURS_MASK == OURS


def rospec(
    ports: Sequence[int],
    tags_a_report: int,
    *,
    antennas: Mapping[int, Antenna] | None = None,
    groups: Sequence[Sequence[int]] = (),
    group_s: float = 1.0,
    fine_rssi: bool = False,
    phase: bool = False,
    session: int | None = None,
    search_mode: int | None = None,
    select: Sequence[Select] = (),
) -> dict[str, Any]:
    """Build the inventory: these antenna ports endlessly, with the reader's own power and mode unless `antennas` has
    others, a report every few tags.

    The AISpec has no stop trigger: a reader stops and restarts its radio at each. It is started by START_ROSPEC. With
    `groups` there is one for each, which ends after `group_s`; the ROSpec then begins again by itself.
    `fine_rssi`, `phase` and `search_mode` are Impinj's; `select` are filters that the reader must have room for.
    """
    spec: dict[str, Any] = {
        "ROSpecID": OURS,
        "Priority": 0,
        "CurrentState": "Disabled",
        "ROBoundarySpec": {
            "ROSpecStartTrigger": {"ROSpecStartTriggerType": "Immediate" if groups else "Null"},
            "ROSpecStopTrigger": {"ROSpecStopTriggerType": "Null", "DurationTriggerValue": 0},
        },
        "AISpec": [
            {
                "AntennaID": list(group),
                "AISpecStopTrigger": {
                    "AISpecStopTriggerType": "Duration" if groups else "Null",
                    "DurationTriggerValue": round(1000 * group_s) if groups else 0,
                },
                "InventoryParameterSpec": [{"InventoryParameterSpecID": number, "ProtocolID": 1}],
            }
            for number, group in enumerate(groups or (ports,), 1)
        ],
        "ROReportSpec": {
            "ROReportTrigger": "Upon_N_Tags_Or_End_Of_AISpec",
            "N": tags_a_report,
            "TagReportContentSelector": {
                "EnableAntennaID": True,
                "EnablePeakRSSI": True,
                "EnableFirstSeenTimestamp": True,
                "EnableLastSeenTimestamp": True,
                "EnableTagSeenCount": True,
            },
        },
    }
    custom: dict[str, Any] = {}
    if phase:
        custom["ImpinjEnableRFPhaseAngle"] = {"RFPhaseAngleMode": 1}
    if fine_rssi:
        custom["ImpinjEnablePeakRSSI"] = {"PeakRSSIMode": 1}
    if custom:
        spec["ROReportSpec"]["ImpinjTagReportContentSelector"] = custom
    settings = {
        port: _configuration((antennas or {}).get(port, Antenna()), session, search_mode, select) for port in ports
    }
    for ai in spec["AISpec"]:
        configured = [{"AntennaID": port, **settings[port]} for port in ai["AntennaID"] if settings[port]]
        if configured:
            ai["InventoryParameterSpec"][0]["AntennaConfiguration"] = configured
    return numbered(spec)


def _configuration(
    antenna: Antenna, session: int | None, search_mode: int | None, select: Sequence[Select]
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if antenna.power is not None:
        # Readers that don't hop have one channel after the other: the first.
        channel = 0 if antenna.hop_table else 1
        told["RFTransmitter"] = {
            "HopTableId": antenna.hop_table,
            "ChannelIndex": channel,
            "TransmitPower": antenna.power,
        }
    if command := _inventory_command(antenna, session, search_mode, select):
        told["C1G2InventoryCommand"] = [command]
    return told


def _inventory_command(
    antenna: Antenna, session: int | None, search_mode: int | None, select: Sequence[Select]
) -> dict[str, Any]:
    command: dict[str, Any] = {}
    if select:
        # The first unselects all that it does not match, the others add to what is selected.
        command["C1G2Filter"] = [
            {
                "C1G2TagInventoryMask": {
                    "MB": _EPC_BANK,
                    "Pointer": _EPC_START + each.offset,
                    "MaskBitCount": each.bits,
                    "TagMask": each.value,
                },
                "C1G2TagInventoryStateUnawareFilterAction": {"Action": _SELECT_ONLY if i == 0 else _SELECT_TOO},
            }
            for i, each in enumerate(select)
        ]
    if antenna.mode is not None:
        command["C1G2RFControl"] = {"ModeIndex": antenna.mode, "Tari": 0}
    if session is not None:
        population = antenna.population or _POPULATION
        command["C1G2SingulationControl"] = {"Session": session, "TagPopulation": population, "TagTransitTime": 0}
    if search_mode is not None:
        command["ImpinjInventorySearchMode"] = {"InventorySearchMode": search_mode}
    return {"TagInventoryStateAware": False, **command} if command else {}


def instead_of(refined: Mapping[str, Any]) -> dict[str, Any]:
    """Build the plain inventory of the same ports, for a reader that refuses the refined one; the same if that is
    plain. Its id depends on the refined one: once that changes, it is tried again.
    """
    ports = sorted(port for ai in refined["AISpec"] for port in ai["AntennaID"])
    plain = rospec(ports, refined["ROReportSpec"]["N"])
    return plain if plain["ROSpecID"] == refined["ROSpecID"] else numbered(plain, refined["ROSpecID"])


def numbered(spec: Mapping[str, Any], salt: int = 0) -> dict[str, Any]:
    """Return the ROSpec with the id computed from its content and from what it replaces."""
    content = codec.encode("ADD_ROSPEC", salt, ROSpec={**spec, "ROSpecID": OURS})
    return {**spec, "ROSpecID": OURS | zlib.crc32(content) & 0xFFFF}
