"""Worlds: what shoppers and radio are like in them. Nothing of this may ever be told to the engine.

Three have names, so that figures can be compared over the years; any number of others is drawn (simulators/draws.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Parameters of a world; decibels in `_db`, seconds in `_s`, shares 0..1. Figures of UHF recordings unless said."""

    seed: int
    """Used where the caller names none."""

    # Shoppers (the carriers of tags; who carries none is not seen and not simulated).
    stops_mean: float = 4.0
    pace_m_s: float = 1.0
    """Of the usual shopper; each has a pace of their own."""
    turn_back_share: float = 0.0
    """Of ways to a counter that are given up half way, for another counter."""
    stay_median_s: float = 60.0
    stay_sigma: float = 1.15
    """Of the stay's logarithm: a heavy tail, seconds to a quarter of an hour and more."""
    stay_max_s: float = 2400.0
    zone_sigma: float = 0.0
    """Some counters hold people for longer than others: of the logarithm of each zone's factor."""
    aisle_stop_share: float = 0.25
    """Shoppers who also stop somewhere in an aisle."""
    card_height_m: tuple[float, float] = (1.1, 1.1)
    """Lowest and highest that cards are carried."""
    pass_by_share: float = 0.12
    """Who turns round at the entrance or only walks past it."""
    group_share: float = 0.2
    """Who comes in a group of two or three."""
    member_share: float = 0.72
    unknown_share: float = 0.1
    """Who carries a tag that is none of the store's; the others push a cart and carry none."""
    cart_share: float = 0.25
    """Members who push a cart as well."""
    staff_share: float = 0.7
    """Of counters, checkouts and service desks with somebody at them."""
    merchandise: int = 6
    """Tagged goods lying open at each counter."""
    merchandise_shyness: float = 0.985
    """Share of the rounds in which such a tag keeps silent."""

    # Propagation.
    level_1m_dbm: float = -52.7
    """More where readers are turned up, as they often are."""
    slope_db: float = 21.5
    """Per decade of distance."""
    behind_db: float = 9.0
    """Loss straight behind an antenna of which no beam is known."""
    back_db: float = 30.0
    """The most that a beam takes away on the round trip, at the sides and behind."""
    floor_db: float = 14.0
    """Loss through one floor's slab."""
    storey_m: float = 4.5
    atrium: tuple[float, float, float, float] | None = None
    """Left, bottom, right and top of a hole in all slabs but the lowest …"""
    atrium_db: float = 2.0
    """… and the loss through it."""
    wall_db: float = 0.0
    """Loss into and out of fitting rooms and back rooms."""
    shadow_db: float = 3.7
    """Of a place for an antenna; frozen."""
    shadow_m: float = 1.0
    """How far one has to go for another shadow."""
    offset_db: float = 2.5
    """Between antennas: cables, power, mounting."""
    report_db: float = 0.0
    """Between readers in what they report: a weaker figure, not fewer reads."""
    hop_s: float = 0.5
    """For so long a reader stays on a channel: somebody who stands is heard alike meanwhile."""
    fast_still_db: float = 2.2
    fast_moving_db: float = 4.6
    slow_moving_db: float = 3.0
    slow_still_db: float = 0.0
    """Of the same slow fading while somebody stands …"""
    slow_still_flows: bool = False
    """… in which it goes on (people and carts move around) or stays as it was."""
    slow_tau_s: float = 2.0
    half_dbm: float = -69.0
    """Where every second query is answered; 7 dB below, none."""
    half_tag_db: float = 0.0
    """Of that between tags."""
    logistic_db: float = 1.25

    # The body.
    body_db: float = 4.0
    """Loss of a card worn, towards the side it faces; for a person 0 to 15."""
    person_db: float = 1.5
    """Of that between people."""
    facing_db: float = 9.0
    """More of it towards the other side."""
    card_answers: float = 0.75
    """Share of the rounds in which a worn card answers when it could: bodies detune it."""
    cart_db: float = 4.0
    clear_median_s: float = 4.0
    clear_sigma: float = 1.0
    block_db: float = 22.0
    block_short_s: float = 1.2
    block_long_share: float = 0.1
    block_long_s: float = 5.0
    """Shortest of the long blocks, whose lengths fall off as a power."""
    block_power: float = 0.85
    block_max_s: float = 500.0

    # Readers.
    dwell_s: float = 0.0
    """For so long a reader stays with an antenna before the next; 0: one round."""
    quiet_s: float = 0.0
    """For so long a tag that was read keeps quiet (sessions 1 and 2)."""
    rssi_step_db: float = 0.5
    """Of the figures that readers report."""
    dead_antennas: tuple[int, ...] = ()
    """Numbers of antennas that hear nothing: a cable off, a port in trouble."""
    late_share: float = 0.27
    late_tau_s: float = 0.03
    late_max_s: float = 0.24
    outages_per_hour: float = 0.0
    outage_s: tuple[float, float] = (60.0, 240.0)
    rssi_unknown_share: float = 0.0
    phantoms_per_hour: float = 0.0
    """Reads of EPCs that no tag has: bit errors that passed the checksum."""


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
