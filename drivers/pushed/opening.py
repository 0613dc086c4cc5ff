"""Open sessions with readers that push JSON; a transport's library is imported only for a reader that needs it."""

from __future__ import annotations

from drivers.pushed.formats import FORMATS, Format, generic
from drivers.pushed.session import PushedSession, Transport
from drivers.session import Clock, Push, ReaderSettings, Sink


def open_pushed(settings: ReaderSettings, sink: Sink, clock: Clock) -> PushedSession:
    """Return the session of one reader, not yet running; ValueError for an invalid address, profile or mapping."""
    form = _format(settings)
    return PushedSession(settings, form, _transport(settings, form), sink, clock)


def _format(settings: ReaderSettings) -> Format:
    if settings.profile in (None, "generic"):
        return generic((settings.push or Push()).mapping)
    if settings.profile not in FORMATS:
        raise ValueError(f"reader {settings.id}: driver json has no profile {settings.profile!r}")
    return FORMATS[settings.profile]


def _transport(settings: ReaderSettings, form: Format) -> Transport:
    scheme = settings.address.partition("://")[0]
    if scheme in ("http", "https", "ws", "wss"):
        from drivers.pushed.streams import Stream

        return Stream(settings, form)
    if scheme in ("mqtt", "mqtts"):
        from drivers.pushed.topics import Topic

        return Topic(settings)
    if scheme == "listen":
        from drivers.pushed.posts import Posts

        return Posts(settings)
    raise ValueError(f"reader {settings.id}: {settings.address!r} has no known scheme")
