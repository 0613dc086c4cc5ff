"""Open sessions with readers of all families; a family is imported only when a reader of it is configured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from drivers.session import Clock, ReaderSettings, Session, Sink

if TYPE_CHECKING:
    from drivers.serial.session import SerialSession

SERIAL = {
    "thingmagic": ("thingmagic", "ThingMagicSession"),
    "r2000": ("r2000", "R2000Session"),
    "uhfreader18": ("uhfreader18", "UhfReader18Session"),
    "chafon-cf": ("chafon_cf", "ChafonCfSession"),
    "m100": ("m100", "M100Session"),
    "chainway": ("chainway", "ChainwaySession"),
    "hopeland": ("hopeland", "HopelandSession"),
    "gx": ("hopeland", "GxSession"),
    "nordicid": ("nordicid", "NordicIdSession"),
    "tsl": ("tsl", "TslSession"),
    "metratec": ("metratec", "MetratecSession"),
}
"""Module and class of each serial family, by driver."""


def open_session(settings: ReaderSettings, sink: Sink, clock: Clock) -> Session:
    """Return the session of one reader, not yet running; ValueError for an unknown driver or a bad address."""
    if settings.driver == "llrp":
        from drivers.llrp.session import LlrpSession

        return LlrpSession(settings, sink, clock)
    if settings.driver == "json":
        from drivers.pushed.opening import open_pushed

        return open_pushed(settings, sink, clock)
    if settings.driver in SERIAL:
        return serial_family(settings.driver)(settings, sink, clock)
    raise ValueError(f"reader {settings.id}: unknown driver {settings.driver!r}")


def serial_family(driver: str) -> type[SerialSession[object]]:
    """Return the class of sessions of a serial family; KeyError for a driver that is none."""
    module, name = SERIAL[driver]
    family: type[SerialSession[object]] = getattr(import_module(f"drivers.serial.{module}"), name)
    return family
