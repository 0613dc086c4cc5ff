"""Whether a service works, for programs that watch it: what fails, and what it can do nothing about."""

from __future__ import annotations

from dataclasses import dataclass

from edge.store.live_state import Now

BEHIND_S = 900.0
"""An engine this far behind has stopped: it waits for no reader so long."""


@dataclass(frozen=True)
class Health:
    """What `fails` in the service itself, and what is `missing` around it: broker, readers, the time."""

    fails: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return "ok", "degraded" if something around the service is missing, or "failing"."""
        return "failing" if self.fails else "degraded" if self.missing else "ok"


def lag_s(now: Now) -> float:
    """Return how many real seconds the engine is behind the clock."""
    return max(0.0, (now.as_of_us - now.watermark_us) / 1e6 / now.speed)


def judge(now: Now) -> Health:
    """Judge a live state. No sentence names a person, a card or a tag."""
    fails = [f"the database can't be written: {now.database.trouble}"] if now.database.trouble else []
    missing = []
    if now.clock.trust == "untrusted":
        missing.append(f"the time is not known, so reads are held back: {now.clock.reason}")
    elif (behind_s := lag_s(now)) > BEHIND_S:
        fails.append(f"the engine is {behind_s:.0f} s behind")
    fails += [f"{job.job} fails: {job.reason}" for job in now.failing]
    if not now.broker.connected:
        missing.append(f"the broker is away: {now.broker.reason}")
    missing += [f"reader {reader.id} is away: {reader.reason}" for reader in now.readers if reader.link != "up"]
    return Health(tuple(fails), tuple(missing))
