"""Events about whole business days: what the floor manager acts on, for the CRM. They are part of sync.contract.

Told once a day is over and its last visits have ended; told again as the next `revision` if it becomes something else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.facts import TagClassName
from sync.contract_base import Message, Name, Numbered, Us

MAX_LINKS = 300
MAX_WAYS = 50
MAX_SUSPECTS = 200
MAX_LAYOUTS = 20
Share = Annotated[float, Field(ge=0, le=1)]


class Proportion(Message):
    """k of n, with the 95 % confidence interval of the share. Null where n is too small."""

    k: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]
    low: Share
    high: Share


class Quotient(Message):
    """k per n, with the 95 % confidence interval. k is no part of n, so it may exceed 1."""

    k: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]
    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]


class ZoneSales(Message):
    """What the chain told on `down/sales`, beside the visits of the same hours."""

    days: Annotated[int, Field(ge=0)] = Field(description="days with sales known for most of the opening hours")
    tickets: int
    units: int | None
    amount: float | None = Field(description="in the currency of the messages")
    per_visit: Quotient | None = Field(description="tickets per visit of people, over hours in which both are known")
    per_engaged: Quotient | None = Field(description="tickets per engaged visit")


class LayoutInForce(Message):
    """A layout, described by its event `layout`, and the time it took effect."""

    version: Name
    from_us: Us


class OfDays(Numbered):
    """Base of events about past business days. After a change they are sent again with the next revision."""

    first_day: str = Field(description="first business day, YYYY-MM-DD")
    last_day: str = Field(
        description="last business day; together with type, zone, floor or tag class it identifies the report"
    )
    days: Annotated[int, Field(ge=0)] = Field(description="number of these days with data")
    revision: Annotated[int, Field(ge=1)] = Field(description="replaces all lower revisions of the same report")
    as_of_us: Us
    def_version: int
    small_cell: Annotated[int, Field(ge=0)] = Field(description="figures about fewer people are suppressed")
    layouts: list[LayoutInForce] = Field(
        default=[],
        description="layouts in effect on these days, the last 20 in chronological order; the first may have taken "
        "effect earlier. More than one: the zones changed. Empty: sent by a version that did not record layouts",
    )


class FloorWindow(Message):
    """15 minutes of one floor. All values are null if the floor was unknown."""

    window_us: Us
    member: int | None = Field(description="number of arrivals on the floor, from outside or from another floor")
    unknown: int | None
    cart: int | None
    mean: float | None = Field(description="average number of people at the same time")
    peak: int | None = Field(description="maximum number of people at the same time")


class FloorDay(OfDays):
    """class agg: traffic and occupancy of one floor."""

    type: Literal["floor_day"] = "floor_day"
    floor: Name
    coverage: Share | None
    windows: list[FloorWindow]


class FlowLink(Message):
    """Direct transition between zones. from_zone null: entering the store; to_zone null: leaving it."""

    from_zone: Name | None
    to_zone: Name | None
    n: int


class FlowPath(Message):
    """A path: zones in the order of first stops."""

    zones: list[Name]
    n: int


class FlowDay(OfDays):
    """class agg: where people walked."""

    type: Literal["flow_day"] = "flow_day"
    links: list[FlowLink] = Field(description="most frequent first, at most 300")
    steps: int = Field(description="number of all transitions, including unlisted ones")
    paths: list[FlowPath] = Field(description="the most frequent, at most 20")
    with_path: int = Field(description="number of journeys with a path")
    entries: dict[str, int | None] = Field(description="zone → number of journeys that began there")
    exits: dict[str, int | None]


class WayDay(OfDays):
    """class agg: paths of one tag class, if the store file allows it for this class."""

    type: Literal["way_day"] = "way_day"
    tag_class: TagClassName
    ways: list[FlowPath] = Field(
        description="the most frequent, at most 50, each taken by `small_cell` carriers or more, never by fewer than "
        "two; n: journeys"
    )
    with_path: int = Field(description="number of journeys with a path, including unlisted paths")


class Scorecard(OfDays):
    """class agg: one counter (or other zone), for a day and, each Sunday, for the week."""

    type: Literal["scorecard"] = "scorecard"
    zone: Name
    floor: Name
    coverage: Share | None
    n: int | None = Field(description="visits with observed start and end; null: the zone was unknown")
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    median_s: float | None
    p75_s: float | None
    draw: Proportion | None
    conversion: float | None
    engaged_share: Proportion | None = Field(description="the rank is based on this")
    bounce: Proportion | None
    first_stop: Proportion | None
    repeat: Proportion | None = Field(description="share of member visitors who were in the store before")
    wait_median_s: float | None
    met: Proportion | None
    rank_best: int | None
    rank_worst: int | None
    sales: ZoneSales | None = Field(default=None, description="null: no sales of the zone are known")


class StaffHour(Message):
    """One hour of a zone."""

    start_us: Us
    visits: int | None = Field(description="visits long enough to expect service")
    staff_s: float | None = Field(description="sum of the time that staff badges were present")


class ServiceDay(OfDays):
    """class agg: staffing, waiting and assistance in one zone. Presence in the same zone indicates service; it doesn't
    prove it."""

    type: Literal["service_day"] = "service_day"
    zone: Name
    floor: Name
    coverage: Share | None
    staffed: Share | None = Field(description="share of the observed opening hours with at least one staff badge")
    wanted: int | None
    met: Proportion | None
    wait_median_s: float | None
    wait_p75_s: float | None
    assist_median_s: float | None
    visits_per_staff_hour: float | None = Field(description="visits per hour of one member of staff")
    hours: list[StaffHour] = Field(description="staffing by hour")


class TierMix(Message):
    """Members of one tier, with consent. All values are null if there are too few."""

    tier: Name
    members: int | None
    journeys: int | None
    visit_share: Share | None
    dwell_share: Share | None
    returning: Proportion | None
    met: Proportion | None
    wait_median_s: float | None
    wait_target_s: float | None
    wait_kept: Proportion | None = Field(
        description="share of members who were met by staff within the target, of those who expected service"
    )
    assist_median_s: float | None
    assist_target_s: float | None
    assist_kept: Proportion | None
    contact: Proportion | None = Field(description="contact coverage: journeys with a staff contact")


class TierDay(OfDays):
    """class agg: members by tier, and how they were served."""

    type: Literal["tier_day"] = "tier_day"
    journeys: int = Field(description="number of journeys of all people")
    tiers: list[TierMix]
    contact: Proportion | None = Field(description="contact coverage of all members")
    history_days: int = Field(description="number of past days in which returning members can be recognised")


class TicketPhase(Message):
    """Tickets during or after a promotion, or since a layout change, compared with the days before."""

    phase: Literal["during", "after"]
    change: float | None = Field(description="0.1: 10 % more than expected; null: not enough data")
    low: float | None
    high: float | None
    days_before: int | None
    days_after: int | None
    days_used: int
    days_left_out: int


class TrialPhase(TicketPhase):
    """Period during or after a promotion, or since a layout change, compared with the days before."""

    measure: Literal["visitors", "engaged_visitors"]


class TrialResult(OfDays):
    """class agg: result of a promotion or layout change, compared with zones without one."""

    type: Literal["trial"] = "trial"
    trial: Name
    kind: Literal["promotion", "layout"]
    state: Literal["planned", "running", "over"]
    zones: list[Name]
    controls: list[Name]
    phases: list[TrialPhase]
    tickets: list[TicketPhase] = Field(default=[], description="the phases by tickets; empty: no sales are known")


class SuspectedTag(Message):
    """A tag that does not behave like a customer."""

    tag: Name = Field(description="identifies the tag within this event only")
    tag_class: TagClassName
    reasons: list[Literal["stuck", "long", "back_room"]]
    present_s: float
    zone: Name = Field(description="zone with the longest stay")
    confirmed: bool | None = Field(
        description="verdict of a manager: true: not a customer, false: a customer, null: none"
    )


class SuspectDay(OfDays):
    """class health: suspected staff and stuck tags, excluded from all figures of the day unless cleared. Staff are only
    counted."""

    type: Literal["suspect_day"] = "suspect_day"
    n: int = Field(description="number of excluded tags")
    tags: list[SuspectedTag] = Field(
        description="stuck tags, at most 200, longest present first; tags that move are only counted in n"
    )
