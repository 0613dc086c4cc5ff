"""The inventory that we ask of a reader: one ROSpec, known again by its number."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from drivers import llrp_codec as codec

OURS = 0x7A670000
"""Our ROSpecs have these upper 16 bits; what stands below them is a checksum of the content. So a ROSpec that outlived
our connection is known by its number, in whatever words the reader tells it, and all others belong to other clients."""
_OURS_MASK = 0xFFFF0000


def is_ours(rospec_id: int) -> bool:
    """Is it a ROSpec of ours, of this or an earlier configuration."""
    return rospec_id & _OURS_MASK == OURS


def rospec(ports: Sequence[int], tags_a_report: int) -> dict[str, Any]:
    """The inventory: these antenna ports without end, the reader's own power and mode, a report every few tags.

    The AISpec has no stop trigger: a reader stops and restarts its radio at each. It is started by START_ROSPEC.
    """
    spec: dict[str, Any] = {
        "ROSpecID": OURS,
        "Priority": 0,
        "CurrentState": "Disabled",
        "ROBoundarySpec": {
            "ROSpecStartTrigger": {"ROSpecStartTriggerType": "Null"},
            "ROSpecStopTrigger": {"ROSpecStopTriggerType": "Null", "DurationTriggerValue": 0},
        },
        "AISpec": [
            {
                "AntennaID": list(ports),
                "AISpecStopTrigger": {"AISpecStopTriggerType": "Null", "DurationTriggerValue": 0},
                "InventoryParameterSpec": [{"InventoryParameterSpecID": 1, "ProtocolID": 1}],
            }
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
    return numbered(spec)


def numbered(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The ROSpec with the number that its content gives it."""
    content = codec.encode("ADD_ROSPEC", 0, ROSpec={**spec, "ROSpecID": OURS})
    return {**spec, "ROSpecID": OURS | zlib.crc32(content) & 0xFFFF}
