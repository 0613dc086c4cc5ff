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
    """k of n, and the interval that holds the truth with 95 %. None stands where n is too small to tell."""

    k: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]
    low: Share
    high: Share


class LayoutInForce(Message):
    """A layout, by the event `layout` that told it, and since when it held."""

    version: Name
    from_us: Us


class OfDays(Numbered):
    """Base of what is told of business days that are over: again, as the next revision, if more is known."""

    first_day: str = Field(description="YYYY-MM-DD, the first business day …")
    last_day: str = Field(
        description="… and the last; with type, zone, floor or tag class the key of what this is about"
    )
    days: Annotated[int, Field(ge=0)] = Field(description="of them, those with any facts")
    revision: Annotated[int, Field(ge=1)] = Field(description="a later one replaces all earlier ones of the same key")
    as_of_us: Us
    def_version: int
    small_cell: Annotated[int, Field(ge=0)] = Field(description="numbers of fewer people are withheld")
    layouts: list[LayoutInForce] = Field(
        default=[],
        description="layouts that held in these days, the last 20 in order of time; the first may have begun before. "
        "More than one: the zones were changed meanwhile. None: told before layouts were known",
    )


class FloorWindow(Message):
    """15 minutes of one floor; all null where it was unknown."""

    window_us: Us
    member: int | None = Field(description="times that one came to the floor, from outside or from another floor")
    unknown: int | None
    cart: int | None
    mean: float | None = Field(description="people at once, on average")
    peak: int | None = Field(description="most people at once")


class FloorDay(OfDays):
    """class agg: traffic and occupancy of one floor."""

    type: Literal["floor_day"] = "floor_day"
    floor: Name
    coverage: Share | None
    windows: list[FloorWindow]


class FlowLink(Message):
    """Straight from zone to zone; null from is coming in, null to is going out."""

    from_zone: Name | None
    to_zone: Name | None
    n: int


class FlowPath(Message):
    """A way: zones in the order of first stops."""

    zones: list[Name]
    n: int


class FlowDay(OfDays):
    """class agg: where people walked."""

    type: Literal["flow_day"] = "flow_day"
    links: list[FlowLink] = Field(description="most walked first, at most 300")
    steps: int = Field(description="all of them, those that are not listed too")
    paths: list[FlowPath] = Field(description="the most taken, at most 20")
    with_path: int = Field(description="journeys with a path")
    entries: dict[str, int | None] = Field(description="zone → journeys that began there")
    exits: dict[str, int | None]


class WayDay(OfDays):
    """class agg: ways of carriers of one tag class, if the store lets the CRM know of that class."""

    type: Literal["way_day"] = "way_day"
    tag_class: TagClassName
    ways: list[FlowPath] = Field(
        description="the most taken, at most 50, each by `small_cell` carriers or more, and at least two; n: journeys"
    )
    with_path: int = Field(description="journeys with a path, those that are not listed too")


class Scorecard(OfDays):
    """class agg: one counter (or other zone), for a day and, each Sunday, for the week."""

    type: Literal["scorecard"] = "scorecard"
    zone: Name
    floor: Name
    coverage: Share | None
    n: int | None = Field(description="visits whose both ends were seen; null: the zone was unknown")
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    median_s: float | None
    p75_s: float | None
    draw: Proportion | None
    conversion: float | None
    engaged_share: Proportion | None = Field(description="what the rank is of")
    bounce: Proportion | None
    first_stop: Proportion | None
    repeat: Proportion | None = Field(description="members among its visitors who were in the store before")
    wait_median_s: float | None
    met: Proportion | None
    rank_best: int | None
    rank_worst: int | None


class StaffHour(Message):
    """One hour of a zone."""

    start_us: Us
    visits: int | None = Field(description="visits long enough to want service")
    staff_s: float | None = Field(description="presence of staff badges, summed")


class ServiceDay(OfDays):
    """class agg: staff, waiting and assistance in one zone. Being in one zone is a sign of service, not its proof."""

    type: Literal["service_day"] = "service_day"
    zone: Name
    floor: Name
    coverage: Share | None
    staffed: Share | None = Field(description="of the known opening time, with at least one badge")
    wanted: int | None
    met: Proportion | None
    wait_median_s: float | None
    wait_p75_s: float | None
    assist_median_s: float | None
    visits_per_staff_hour: float | None = Field(description="visits for each hour of one member of staff")
    hours: list[StaffHour] = Field(description="staffing by hour")


class TierMix(Message):
    """Members of one tier, with consent; all null if they are too few."""

    tier: Name
    members: int | None
    journeys: int | None
    visit_share: Share | None
    dwell_share: Share | None
    returning: Proportion | None
    met: Proportion | None
    wait_median_s: float | None
    wait_target_s: float | None
    wait_kept: Proportion | None = Field(description="met within the target, of those that wanted service")
    assist_median_s: float | None
    assist_target_s: float | None
    assist_kept: Proportion | None
    contact: Proportion | None = Field(description="contact coverage: journeys with a staff contact")


class TierDay(OfDays):
    """class agg: members by tier, and how they were served."""

    type: Literal["tier_day"] = "tier_day"
    journeys: int = Field(description="of all people")
    tiers: list[TierMix]
    contact: Proportion | None = Field(description="of all members with a card")
    history_days: int = Field(description="how far back returning members can be known")


class TrialPhase(Message):
    """During a promotion or after it, or since a change of the layout, against the days before."""

    measure: Literal["visitors", "engaged_visitors"]
    phase: Literal["during", "after"]
    change: float | None = Field(description="0.1: ten per cent more than to be expected; null: not enough data")
    low: float | None
    high: float | None
    days_before: int | None
    days_after: int | None
    days_used: int
    days_left_out: int


class TrialResult(OfDays):
    """class agg: what came of a promotion or a change of the layout, against zones where nothing was done."""

    type: Literal["trial"] = "trial"
    trial: Name
    kind: Literal["promotion", "layout"]
    state: Literal["planned", "running", "over"]
    zones: list[Name]
    controls: list[Name]
    phases: list[TrialPhase]


class SuspectedTag(Message):
    """A tag that does not move like a customer."""

    tag: Name = Field(description="stands for the tag in this event alone")
    tag_class: TagClassName
    reasons: list[Literal["stuck", "long", "back_room"]]
    present_s: float
    zone: Name = Field(description="where it was longest")
    confirmed: bool | None = Field(description="a manager said: true no customer, false one; null nothing")


class SuspectDay(OfDays):
    """class health: suspected staff and stuck tags: in no number of the day, unless cleared. Staff are only counted."""

    type: Literal["suspect_day"] = "suspect_day"
    n: int = Field(description="tags left out")
    tags: list[SuspectedTag] = Field(
        description="stuck ones, which lie somewhere: those longest present, at most 200. Whoever walks is in n only"
    )
