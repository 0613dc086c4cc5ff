"""A machine's clocks, moved by hand: the wall's can be set, the monotonic one can't."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.store.clock import Clock
from edge.store.timekeeping import Kept, Timekeeper

NOON_US = 1_800_000_000_000_000
DAY_S = 86_400.0


@dataclass
class Machine:
    """Seconds pass; `kept` is what it says of its clock."""

    wall_us: int = NOON_US
    mono_us: int = 5_000_000_000
    kept: Kept = Kept.UNKEPT
    uptime_s: float = 5_000.0
    keeper: Timekeeper = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = Timekeeper(
            Clock(),
            wall_us=lambda: self.wall_us,
            mono_us=lambda: self.mono_us,
            kept=lambda: self.kept,
            uptime_s=lambda: self.uptime_s,
        )

    def pass_s(self, seconds: float, *, look: bool = True) -> list[float]:
        """Let time pass, a second at a time as the service looks; by how many seconds the clock was set meanwhile."""
        steps = []
        for _ in range(max(1, round(seconds))) if look else ():
            self.tick(seconds / max(1, round(seconds)))
            steps += [step.by_us / 1e6 for step in self.keeper.look()]
        if not look:
            self.tick(seconds)
        return steps

    def tick(self, seconds: float) -> None:
        self.wall_us += round(seconds * 1e6)
        self.mono_us += round(seconds * 1e6)
        self.uptime_s += seconds

    def set_s(self, seconds: float) -> None:
        """Set the wall's clock, by so much."""
        self.wall_us += round(seconds * 1e6)
