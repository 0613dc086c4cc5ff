"""Maker-specific extensions of readers, as a table. A reader's capabilities decide; a profile refines.

A profile is chosen by the maker that the reader names in its capabilities (a Private Enterprise Number), or by the
store file. Reads carry no phase, so it is asked for only on demand, for captures; Doppler is not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

IMPINJ_PEN = 25882
EVENTS = ("ROSpecEvent", "ReaderExceptionEvent", "AntennaEvent")


@dataclass(frozen=True)
class Profile:
    """Profile of one maker."""

    name: str
    makers: tuple[int, ...] = ()
    events: tuple[str, ...] = EVENTS
    """Notifications to request, by sllurp's names."""
    extensions: bool = False
    """Impinj: custom parameters work only after IMPINJ_ENABLE_EXTENSIONS."""
    fine_rssi: bool = False
    """Impinj: RSSI in 0.01 dBm in each report."""
    phase: bool = False
    """Impinj: the RF phase in each report, if the store file asks for it."""
    link_monitor: int = 0
    """Impinj: the reader drops a client after this many missed keepalives; otherwise it keeps the dead connection and
    rejects the new one."""
    patience: float = 1.0
    """Factor of all the times that the reader is given."""
    search_modes: bool = False
    """Impinj: ImpinjInventorySearchMode chooses target and TagFocus."""


GENERIC = Profile("generic")
PROFILES = {
    profile.name: profile
    for profile in (
        GENERIC,
        Profile(
            "impinj", (IMPINJ_PEN,), extensions=True, fine_rssi=True, phase=True, link_monitor=3, search_modes=True
        ),
        Profile("zebra", (161, 388)),
        # Antenna events of its hubs come and go with the hub's switching.
        Profile("thingmagic", (26554,), events=("ROSpecEvent", "ReaderExceptionEvent")),
        Profile("alien", (17996,)),
        # Answers what it does not expect with ERROR_MESSAGE: it is asked for nothing that is not needed.
        # Its number is that of Kathrein-Werke in IANA's register; no reader has been seen with it.
        Profile("kathrein", (6437,), events=()),
        # Not a make: for readers and links that take their time, and so are asked for little and given long.
        Profile("slow", events=(), patience=3.0),
    )
}
SEARCH_MODES = {"reader": 0, "single": 1, "dual": 2, "tagfocus": 3}
"""ImpinjInventorySearchMode: the reader's choice; single target, A to B; dual target, A and B in turn; single target
with the tags' persistence refreshed (TagFocus)."""


def choose(maker: int, wanted: str | None) -> Profile:
    """Choose the profile by the store file, else by the maker's number."""
    if wanted is not None:
        return PROFILES[wanted]
    return next((profile for profile in PROFILES.values() if maker in profile.makers), GENERIC)
