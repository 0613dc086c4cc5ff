"""Worlds: parameters of shoppers and radio. The engine must never use them.

Three have names, so that figures stay comparable over the years; any number of others is drawn (draws.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Parameters of a world; decibels in `_db`, seconds in `_s`, shares 0..1. Figures of UHF recordings unless said."""

    seed: int
    """Default seed."""

    # Shoppers (the carriers of tags; who carries none is not seen and not simulated).
    stops_mean: float = 4.0
    pace_m_s: float = 1.0
    """Median pace of shoppers; each has their own."""
    turn_back_share: float = 0.0
    """Share of walks to a counter that are given up half way for another counter."""
    stay_median_s: float = 60.0
    stay_sigma: float = 1.15
    """Standard deviation of the logarithm of stays: a heavy tail, seconds to a quarter of an hour and more."""
    stay_max_s: float = 2400.0
    zone_sigma: float = 0.0
    """Standard deviation of the logarithm of each zone's stay factor."""
    aisle_stop_share: float = 0.25
    """Share of shoppers who also stop somewhere in an aisle."""
    card_height_m: tuple[float, float] = (1.1, 1.1)
    """Minimum and maximum height of carried cards."""
    pass_by_share: float = 0.12
    """Share of people who turn round at the entrance or only walk past it."""
    group_share: float = 0.2
    """Share of people who come in a group of two or three."""
    member_share: float = 0.72
    unknown_share: float = 0.1
    """Share of people with a tag of another company; the others push a cart and carry none."""
    cart_share: float = 0.25
    """Share of members who also push a cart."""
    staff_share: float = 0.7
    """Share of counters, checkouts and service desks with staff."""
    merchandise: int = 6
    """Number of tagged goods at each counter."""
    merchandise_shyness: float = 0.985
    """Share of rounds in which such a tag stays silent."""

    # Propagation.
    level_1m_dbm: float = -52.7
    """Higher where reader power is raised, as it often is."""
    slope_db: float = 21.5
    """Per decade of distance."""
    behind_db: float = 9.0
    """Loss straight behind an antenna with unknown beam."""
    back_db: float = 30.0
    """Maximum loss outside the beam, for the round trip."""
    floor_db: float = 14.0
    """Loss through one floor's slab."""
    storey_m: float = 4.5
    atrium: tuple[float, float, float, float] | None = None
    """Left, bottom, right and top of an opening in all slabs but the lowest …"""
    atrium_db: float = 2.0
    """… and the loss through it."""
    wall_db: float = 0.0
    """Loss into and out of fitting rooms and back rooms."""
    shadow_db: float = 3.7
    """Standard deviation of shadowing by place and antenna; constant over time."""
    shadow_m: float = 1.0
    """Correlation distance of shadowing."""
    offset_db: float = 2.5
    """Standard deviation between antennas: cables, power, mounting."""
    report_db: float = 0.0
    """Standard deviation between readers in the reported RSSI, without effect on reads."""
    hop_s: float = 0.5
    """Time that a reader stays on a channel, during which fading is constant for people who stand."""
    fast_still_db: float = 2.2
    fast_moving_db: float = 4.6
    slow_moving_db: float = 3.0
    slow_still_db: float = 0.0
    """Standard deviation of the same slow fading while standing …"""
    slow_still_flows: bool = False
    """… during which it continues (people and carts move around) or is constant."""
    slow_tau_s: float = 2.0
    half_dbm: float = -69.0
    """Level at which every second query is answered; 7 dB below, none."""
    half_tag_db: float = 0.0
    """Standard deviation of that between tags."""
    logistic_db: float = 1.25

    # The body.
    body_db: float = 4.0
    """Loss of a worn card towards the side it faces; 0 to 15 per person."""
    person_db: float = 1.5
    """Standard deviation of that between people."""
    facing_db: float = 9.0
    """Additional loss towards the other side."""
    card_answers: float = 0.75
    """Share of possible rounds in which a worn card answers: bodies detune it."""
    cart_db: float = 4.0
    clear_median_s: float = 4.0
    clear_sigma: float = 1.0
    block_db: float = 22.0
    block_short_s: float = 1.2
    block_long_share: float = 0.1
    block_long_s: float = 5.0
    """Minimum of the long blocks, whose lengths follow a power law."""
    block_power: float = 0.85
    block_max_s: float = 500.0

    # Readers.
    dwell_s: float = 0.0
    """Time that a reader stays on an antenna; 0: one round."""
    quiet_s: float = 0.0
    """Time that a tag stays silent after a read (sessions 1 and 2)."""
    rssi_step_db: float = 0.5
    """Resolution of reported RSSI."""
    dead_antennas: tuple[int, ...] = ()
    """Antennas that hear nothing: a loose cable, a broken port."""
    late_share: float = 0.27
    late_tau_s: float = 0.03
    late_max_s: float = 0.24
    outages_per_hour: float = 0.0
    outage_s: tuple[float, float] = (60.0, 240.0)
    rssi_unknown_share: float = 0.0
    phantoms_per_hour: float = 0.0
    """Reads of EPCs that no tag has: bit errors that pass the checksum."""


WORLDS = {
    "mild": World(
        seed=101,
        shadow_db=3.0,
        offset_db=1.5,
        behind_db=14.0,
        facing_db=6.0,
        card_answers=0.44,
        clear_median_s=6.0,
        block_long_share=0.09,
        merchandise=3,
        pass_by_share=0.06,
    ),
    "worn": World(
        seed=202,
        level_1m_dbm=-49.7,
        card_answers=0.5,
        clear_median_s=3.5,
        block_long_share=0.12,
        outages_per_hour=0.5,
        phantoms_per_hour=2.0,
    ),
    "harsh": World(
        seed=303,
        level_1m_dbm=-48.7,
        shadow_db=4.5,
        offset_db=3.0,
        behind_db=6.0,
        floor_db=10.0,
        fast_moving_db=5.0,
        slow_moving_db=3.5,
        clear_median_s=3.5,
        block_long_share=0.16,
        merchandise=14,
        group_share=0.35,
        pass_by_share=0.2,
        outages_per_hour=3.0,
        rssi_unknown_share=0.01,
        phantoms_per_hour=20.0,
    ),
}
"""mild: antennas well placed and a store that keeps its distance; worn: readers turned up and cards in pockets; harsh:
antennas that hear the neighbours, crowds, goods everywhere and readers that fail."""
