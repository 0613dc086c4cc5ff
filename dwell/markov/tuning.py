"""The engine's own figures: how people move, how evidence is weighed, and how long it waits to decide.

They are no definitions of the store (those are Settings) and nothing of one store's radio (that is the Field).
"""

from __future__ import annotations

from dataclasses import dataclass

TICK_US = 1_000_000
"""Evidence is weighed in ticks on absolute multiples of this in UTC, however reads are batched."""


@dataclass(frozen=True)
class Tuning:
    """Decibels, seconds, microseconds, ticks of TICK_US and shares."""

    stay_s: float = 120.0
    """Mean time for which one stands."""
    stop_rate: float = 0.1
    """Share of walkers in a zone who stop within a second. Between zones nobody stands."""
    pass_stay_s: float = 8.0
    """The same in aisles, entrances and exits, which one walks through …"""
    pass_stop_rate: float = 0.01
    """… and hardly stops in."""
    pace_m: float = 1.4
    """Walkers get this far in a second: the root of the mean square."""
    pace_most: float = 0.9
    """Most that may leave a cell in a second; where cells are short, some go farther than to the next one."""
    pace_zone: float = 0.25
    """Share of walkers who leave a zone within a second, where a cell is all of it."""
    clear_s: float = 10.0
    """Mean time for which a body blocks a tag."""
    aisle_share: float = 0.5
    """How likely a tag is first heard between zones, against in one of the same size."""
    door_share: float = 20.0
    """How likely a tag is first heard at a door, against in another zone of the same size."""
    still: float = 0.8
    """Probability of standing a priori …"""
    pass_still: float = 0.2
    """… and where one walks through."""
    stairs: float = 0.05
    """Share of walkers in a cell with a way to another floor who take it within a second."""
    second_db: float = 3.0
    """Of a tick's levels around their mean over some seconds; the spread that is learnt is that of such means."""
    faded_share: float = 0.15
    """Share of the ticks in which a tag is heard this much weaker than is usual at its place, …"""
    faded_db: float = 12.0
    """… because something stands between or waves cancel out. Nothing makes it louder by so much."""
    temper: float = 0.75
    """Weight of a tick's evidence: fading and shadows outlast it, so that ticks partly say the same again."""
    temper_small: float = 1.0
    """The same where zones are narrower than SMALL_M: there one must not wait for more."""
    bias_step_db: float = 3.0
    """Tags are told apart by classes of bias, in steps of this; the middle one is a usual tag's."""
    biases: int = 17
    bias_spread_db: float = 4.8
    """Standard deviation of tags' biases, a priori."""
    answer_step: float = 2.0
    """Tags are told apart also by how often they answer, in steps of this factor: cards on bodies do so far more rarely
    than tags on carts, however loud they are."""
    answer_classes: int = 4
    answer_start: int = 2
    bias_weight: float = 0.03
    """Share of the evidence that counts for a tag's bias: what shadows do to it lasts for half a minute."""
    bias_s: float = 360.0
    """Evidence for a bias fades with this time constant."""
    least: float = 3e-5
    """Cells less likely than the likeliest by this factor are dropped; a surprise must be able to outlast it."""
    slight: float = 1e-3
    """Cells less likely than the likeliest by this factor are left out in looking back."""
    remembered: int = 320
    """Most cells of an event for looking back."""
    jump: float = 1e-3
    """Probability a cell of having come there otherwise than on foot, once a tag is lost."""
    lost_drift: float = 1.0
    """Nats by which a tick must be explained better elsewhere to speak for it …"""
    lost_nats: float = 20.0
    """… and those that must have come together until the tag is looked for everywhere."""
    live_share: float = 0.6
    """A tag seems to be elsewhere as soon as this much of its probability is there."""
    lag_ticks: int = 30
    """A tick is decided when this many have followed."""
    batch_ticks: int = 20
    """Decisions of a tag are made for this many ticks at once."""
    short_us: int = 16_000_000
    """Shorter stays last as long as is to be expected, not from one likeliest moment to another."""
    glance_us: int = 6_000_000
    """Moments in another zone amid a stay count from this long on."""
    hold_us: int = 150_000_000
    """Silence that ends a visit: 99.9 % of a worn tag's gaps are shorter than 136 s."""
    forget_us: int = 30_000_000
    """Silence after which a tag without a journey is forgotten."""

    def answers(self) -> tuple[float, ...]:
        """Share of the usual rate at which tags of each class answer, ascending."""
        return tuple(self.answer_step ** (n + 1 - self.answer_classes) for n in range(self.answer_classes))

    def horizon_us(self) -> int:
        """How far behind the last whole tick everything is final."""
        return (self.lag_ticks + self.batch_ticks + 2) * TICK_US + self.hold_us


SMALL_M = 3.0
"""Zones narrower than this want all of the evidence."""
