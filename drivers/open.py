"""Open sessions with readers of all families; a family is imported only when a reader of it is configured."""

from __future__ import annotations

from drivers.session import Clock, ReaderSettings, Session, Sink


def open_session(settings: ReaderSettings, sink: Sink, clock: Clock) -> Session:
    """Return the session of one reader, not yet running; ValueError for an unknown driver or a bad address."""
    if settings.driver == "llrp":
        from drivers.llrp.session import LlrpSession

        return LlrpSession(settings, sink, clock)
    if settings.driver == "json":
        from drivers.pushed.opening import open_pushed

        return open_pushed(settings, sink, clock)
    if settings.driver == "thingmagic":
        from drivers.serial.thingmagic import ThingMagicSession

        return ThingMagicSession(settings, sink, clock)
    if settings.driver == "r2000":
        from drivers.serial.r2000 import R2000Session

        return R2000Session(settings, sink, clock)
    if settings.driver == "uhfreader18":
        from drivers.serial.uhfreader18 import UhfReader18Session

        return UhfReader18Session(settings, sink, clock)
    if settings.driver == "chafon-cf":
        from drivers.serial.chafon_cf import ChafonCfSession

        return ChafonCfSession(settings, sink, clock)
    if settings.driver == "m100":
        from drivers.serial.m100 import M100Session

        return M100Session(settings, sink, clock)
    raise ValueError(f"reader {settings.id}: unknown driver {settings.driver!r}")
