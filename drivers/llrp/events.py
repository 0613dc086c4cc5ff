"""Reader events as text for people (17.2.7.6); names are those of sllurp's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ATTEMPT_REFUSED = {
    "Failed (a Reader initiated connection already exists)": "the reader is connected elsewhere: it opened that "
    "connection itself, see its reader-initiated settings",
    "Failed (a Client initiated connection already exists)": "another client is connected to the reader, which takes "
    "one at a time; after a crash the reader may need a minute to notice that its client is gone",
    "Failed (any reason other than a connection already exists)": "the reader refuses connections and gives no reason",
}
"""ConnectionAttemptEvent status 1 to 3 (17.2.7.6.10)."""
ROSPEC_EVENT = "ROSpecEvent"
"""sllurp's name of the notification."""
ENDED = "the reader has stopped its inventory: was it another program, its own web page, or heat?"
GONE = "the inventory is gone from the reader: was it reset, or set up by another program?"
_ATTEMPT_OTHER = "Another connection attempted"


def why_ended(change: Mapping[str, Any], rospec_id: int) -> str | None:
    """Return why that ROSpec has ended according to a ROSpecEvent (17.2.7.6.3), None if it hasn't."""
    if change.get("ROSpecID") != rospec_id or change["EventType"] == "Start_of_ROSpec":
        return None
    if change["EventType"] == "End_of_ROSpec":
        return ENDED
    return f"the reader runs another program's inventory, ROSpec {change['PreemptingROSpecID']}, instead of ours"


def notices(event: Mapping[str, Any]) -> list[str]:
    """Return health messages for one ReaderEventNotificationData; none for events that the session handles."""
    told = []
    if exception := event.get("ReaderExceptionEvent"):
        text = bytes(exception.get("Message", b"")).decode("utf-8", "replace").strip("\0 ")
        told.append(f"the reader reports an exception: {text or 'without a word'}")
    if antenna := event.get("AntennaEvent"):
        port = antenna["AntennaID"]
        came = antenna["EventType"] == "Connected"
        told.append(
            f"the reader says that antenna port {port} was connected"
            if came
            else f"the reader says that antenna port {port} was disconnected"
        )
    if event.get("ConnectionAttemptEvent", {}).get("Status") == _ATTEMPT_OTHER:
        told.append("another client tried to connect to the reader, which takes one at a time")
    if "ReportBufferLevelWarning" in event:
        level = event["ReportBufferLevelWarning"]["ReportBufferPercentageFull"]
        told.append(f"the reader's memory for reports is {level} % full")
    return told
