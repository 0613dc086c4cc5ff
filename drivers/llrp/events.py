"""What a reader's events say to a person (17.2.7.6); names are those of sllurp's tables."""

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
_ATTEMPT_OTHER = "Another connection attempted"


def notices(event: Mapping[str, Any]) -> list[str]:
    """Sentences for health of one ReaderEventNotificationData; empty for what a session handles itself."""
    told = []
    if exception := event.get("ReaderExceptionEvent"):
        text = bytes(exception.get("Message", b"")).decode("utf-8", "replace").strip("\0 ")
        told.append(f"the reader reports an exception: {text or 'without a word'}")
    if antenna := event.get("AntennaEvent"):
        came = antenna["EventType"] == "Connected"
        told.append(f"the reader says that antenna port {antenna['AntennaID']} was {'' if came else 'dis'}connected")
    if event.get("ConnectionAttemptEvent", {}).get("Status") == _ATTEMPT_OTHER:
        told.append("another client tried to connect to the reader, which takes one at a time")
    if "ReportBufferLevelWarning" in event:
        level = event["ReportBufferLevelWarning"]["ReportBufferPercentageFull"]
        told.append(f"the reader's memory for reports is {level} % full")
    return told
