"""The engine's own figures: what radio and people do, measured on real recordings, and how long it waits to decide.

They are no definitions of the store (those are Settings) and no properties of one shop.
"""

from __future__ import annotations

from dataclasses import dataclass

TICK_US = 500_000
"""Evidence is weighed in ticks on absolute multiples of this in UTC, however reads are batched."""


@dataclass(frozen=True)
class Tuning:
    """Levels in dBm, decibels, microseconds, ticks of TICK_US and natural logarithms (`_nats`)."""

    level_1m_dbm: float = -52.7
    """RSSI one metre in front of an antenna; it falls by `slope_db` a decade (Impinj R420, room with four antennas)."""
    slope_db: float = 21.5
    height_m: float = 1.5
    """Antennas hang this much above tags."""
    half_rate_dbm: float = -69.0
    """Level at which half of the reads are lost."""
    rate_width_db: float = 3.5
    """Width of that logistic curve: the link's own 1.5 dB widened by shadowing of 3.7 dB and antenna offsets of 2–3."""
    range_dbm: float = -77.0
    """Mean level below which a place isn't considered for a read."""
    spread_db: float = 6.0
    """RSSI against the level of the place: shadowing, offset and fading together."""
    tail: float = 8.0
    """Where the robust RSSI score flattens out, in squared spreads."""
    bias_spread_db: float = 8.0
    """Tags differ by this much (how they are worn); followed per tag."""
    bias_weight: float = 0.05
    """Share of a new tick in a tag's bias."""
    share_weight: float = 0.6
    """Weight of which antennas heard it: less than 1, since a body hides some antennas and not others."""
    correlation_ticks: float = 4.0
    """Ticks in a row say mostly the same: fading has a memory of 1–3 s, shadowing never changes while a tag stays."""
    unheard_nats: float = -5.0
    """A read by an antenna out of a place's range: rare, but it happens (reflections)."""
    stay_ticks: float = 120.0
    """Mean stay in one place, for the odds of moving."""
    enter_nats: float = -1.0
    """Odds of a move that begins or ends in no zone, on top of the odds of moving at all."""
    far_nats: float = -5.0
    """A move between zones on a floor that don't touch, straight."""
    floor_nats: float = -12.0
    """A move between floors where no zones touch."""
    lag_ticks: int = 20
    """A tick is decided when this many have followed."""
    batch_ticks: int = 4
    """Decisions of a tag are made for this many ticks at once."""
    hold_us: int = 150_000_000
    """Silence that ends a visit: 99.9 % of a worn tag's gaps are shorter than 136 s."""
    forget_us: int = 30_000_000
    """Silence after which a tag without a journey is forgotten."""
    allow_us: int = 2_000_000
    """A tag is taken to have been there this long before its first and after its last read."""

    def horizon_us(self) -> int:
        """How far behind the last whole tick everything is final."""
        return (self.lag_ticks + self.batch_ticks + 2) * TICK_US + self.hold_us + self.allow_us
