"""The engine's own figures: what radio and people do, measured on real recordings, and how long it waits to decide.

They are no definitions of the store (those are Settings) and no properties of one shop.
"""

from __future__ import annotations

from dataclasses import dataclass

TICK_US = 1_000_000
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
    rate_width_db: float = 1.5
    """Width of that logistic curve."""
    range_dbm: float = -79.0
    """Mean level below which a place isn't considered for a read."""
    spread_db: float = 7.0
    """Levels against the mean of their place: shadowing 3.7, antenna offset 2.5, slow fading and the body's side 4."""
    fast_db: float = 2.2
    """RSSI against the level: hopping and noise within a point."""
    tail: float = 14.0
    """Where the RSSI score flattens out, in squared spreads: outliers are frequent."""
    bias_start_db: float = -8.0
    """How much weaker a tag is at first taken to be heard than one on a stand: most are worn."""
    bias_max_db: float = 4.0
    bias_step_db: float = 4.0
    biases: int = 6
    """Tags are told apart by so many classes of bias, from `bias_max_db` downwards in steps."""
    bias_weight: float = 0.01
    """Share of a new event in a tag's bias."""
    share_weight: float = 0.7
    """Weight of which antenna it was that heard the tag, against how loud."""
    repeat_weight: float = 0.3
    repeat_most: float = 2.0
    unheard_nats: float = -8.0
    """A read by an antenna out of a place's range: rare, but it happens (reflections)."""
    temper: float = 0.7
    """Weight of a tick's evidence: fading and shadows outlast it, so that ticks partly say the same again."""
    stay_s: tuple[float, float, float] = (120.0, 12.0, 15.0)
    """Mean time for which one stands, by moves.Kind: at counters and desks, where one passes, between zones."""
    stop: tuple[float, float, float] = (0.65, 0.35, 0.4)
    """How likely a walker is to stop there, against anywhere, by moves.Kind."""
    tread: tuple[float, float, float] = (0.35, 1.5, 0.8)
    """How likely a walker's way leads through such a place, against anywhere, by moves.Kind."""
    stop_rate: float = 0.1
    """Share of walkers who stop within a second."""
    straight: float = 0.8
    """Share of walkers who keep their direction for a second; they go at 1 m/s."""
    none_nats: float = -2.0
    """Of an event between zones, against one in a zone: people stand where there is something to see."""
    floor_nats: float = -12.0
    """Of a change of place that takes more than walking, or of floor where no zones touch."""
    beam_nats: float = 5.0
    """Places less likely than the best by more aren't brought into question by an event."""
    least: float = 1e-4
    """States less likely than the likeliest by this factor are dropped; a surprise must be able to outlast it."""
    slight: float = 1e-2
    """What of an event's probability is left out in looking back: places less likely than this."""
    live_share: float = 0.6
    """A tag seems to be elsewhere as soon as this much of its probability is there."""
    lag_ticks: int = 34
    """A tick is decided when this many have followed."""
    batch_ticks: int = 8
    """Decisions of a tag are made for this many ticks at once."""
    hold_us: int = 150_000_000
    """Silence that ends a visit: 99.9 % of a worn tag's gaps are shorter than 136 s."""
    forget_us: int = 30_000_000
    """Silence after which a tag without a journey is forgotten."""
    allow_us: int = 1_000_000
    """A tag is taken to have been there this long before its first and after its last read: the median wait for one."""
    walk_us: int = 2_000_000
    """From one zone to the next. The rest of the silence between them is shared by both …"""
    fill_us: int = 30_000_000
    """… up to this much for each."""

    def horizon_us(self) -> int:
        """How far behind the last whole tick everything is final."""
        return (self.lag_ticks + self.batch_ticks + 2) * TICK_US + self.hold_us + self.allow_us
