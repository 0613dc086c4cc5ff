"""Our inventory on an LLRP reader over one connection: find, add, start and check its ROSpec.

A reader runs one inventory at a time, and some have room for a single ROSpec. Those of other programs stay as they are,
unless the store file permits to take the reader over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from drivers.links import LinkFailure
from drivers.llrp import codec
from drivers.llrp.codec import Message
from drivers.llrp.ports import Ask, Tell
from drivers.llrp.profiles import SEARCH_MODES, Profile
from drivers.llrp.radio import allowed
from drivers.llrp.rospec import instead_of, is_ours, rospec
from drivers.llrp.state import Memory
from drivers.session import ReaderSettings

_STATE_VALUE, _EVENTS_AND_REPORTS = 7, 11
"""RequestedData of GET_READER_CONFIG (17.1.21)."""

Attempt = Callable[[], Awaitable[str | None]]
"""Request to the reader; None on success, else its error text."""


class Inventory:
    """Inventory of one connection: call `find` first, then `run`, then `runs` to check it."""

    def __init__(self, settings: ReaderSettings, memory: Memory, ask: Ask, tell: Tell) -> None:
        self._settings, self._memory, self._ask, self._tell = settings, memory, ask, tell
        self._spec: dict[str, Any] = {}
        self._can = codec.Capabilities()
        self._others: list[int] = []
        self._tells_rospecs = True
        self._takes_doubles = False

    @property
    def number(self) -> int:
        """ROSpecID of our inventory; 0, which is never used, before one was requested."""
        return int(self._spec.get("ROSpecID", 0))

    @property
    def loops(self) -> bool:
        """True if the inventory ends and begins again by itself all the time."""
        return len(self._spec.get("AISpec", ())) > 1

    async def find(self, can: codec.Capabilities, profile: Profile, extended: bool) -> tuple[bool, int | None]:
        """Return whether the reader holds events and reports for us, and the state of our ROSpec if it still exists,
        unchanged.

        Older ROSpecs of ours are deleted. `extended`: the reader accepts its maker's custom parameters.
        """
        self._can = can
        held, changed = False, False
        if can.can_hold:
            answer = await self._ask("GET_READER_CONFIG", RequestedData=_EVENTS_AND_REPORTS)
            held = answer.fields.get("EventsAndReports", {}).get("HoldEventsAndReportsUponReconnect", False)
            before, now = self._memory.state_value, await self._state_value()
            changed = before is not None and now != before
        self._spec = self._wanted(profile, extended)
        plain = instead_of(self._spec)
        there = await self._there()
        if there is None:
            there = {self.number: codec.ROSPEC_DISABLED, plain["ROSpecID"]: codec.ROSPEC_DISABLED}
            changed = True
        elif plain["ROSpecID"] in there and not changed:
            self._spec = plain
        for rospec_id in there:
            if is_ours(rospec_id) and (rospec_id != self.number or changed):
                # That there is none is as good; should it fail otherwise, adding will say so.
                await self._ask("DELETE_ROSPEC", ROSpecID=rospec_id)
        return held, None if changed else there.get(self.number)

    async def run(self, state: int | None) -> None:
        """Start our inventory, found in `state`; LinkFailure if the reader refuses. A running one is left alone."""
        if state is None:
            ports = ", ".join(map(str, sorted(self._settings.ports)))
            await self._insist(f"an inventory on antenna ports {ports}", self._add)
        if state in (None, codec.ROSPEC_DISABLED):
            await demand(self._ask, "to enable the inventory", "ENABLE_ROSPEC", ROSpecID=self.number)
        if state != codec.ROSPEC_ACTIVE and not (self.loops and state in (None, codec.ROSPEC_DISABLED)):
            await self._insist("to start the inventory", self._start)
        await self.note_state()

    async def runs(self) -> tuple[bool | None, int | None]:
        """Return whether our inventory runs (None if the reader doesn't say) and its state (None if it doesn't
        exist)."""
        try:
            there = await self._there()
        except LinkFailure:
            there = None  # a reader that is dead is noticed by its silence
        if there is None:
            return None, None
        state = there.get(self.number)
        between = self.loops and state == codec.ROSPEC_INACTIVE
        return state == codec.ROSPEC_ACTIVE or between, state

    async def lost(self) -> bool | None:
        """Offer our inventory again to a reader that refuses to say what it has: True if it was lost, and is now there,
        not yet started; False if the reader still has it; None if that can't be told.

        A ROSpec that exists can't be added again (17.1.8), so a running inventory isn't disturbed.
        """
        if self._tells_rospecs or self._takes_doubles:
            return None
        if codec.refusal(await self._ask("ADD_ROSPEC", ROSpec=self._spec)) is not None:
            # It may have been stopped. What runs is left alone, or refuses to be started.
            await self._ask("ENABLE_ROSPEC", ROSpecID=self.number)
            await self._start()
            return False
        if codec.refusal(await self._ask("ADD_ROSPEC", ROSpec=self._spec)) is not None:
            return True
        self._takes_doubles = True  # so it says nothing, and must not be disturbed again
        await self.run(codec.ROSPEC_DISABLED)
        return None

    async def note_state(self) -> None:
        """Remember the state value of the reader's configuration."""
        if self._can.can_hold:
            self._memory.state_value = await self._state_value()

    def _wanted(self, profile: Profile, extended: bool) -> dict[str, Any]:
        """Build the ROSpec that the store file asks for, as far as the reader supports it."""
        settings, select = self._settings, self._settings.select
        if len(select) > (room := self._can.select_filters):
            self._tell(
                f"the reader has room for {room} select filters and {len(select)} are needed: it reports all tags"
            )
            select = ()
        mode = settings.search_mode if profile.search_modes and extended else None
        if settings.search_mode is not None and mode is None:
            self._tell(f"the reader has no search mode {settings.search_mode!r}: it keeps its own")
        return rospec(
            sorted(settings.ports),
            settings.report_tags,  # by default each at once: batching is done here, not in the reader
            antennas=allowed(settings.radio, self._can, self._tell),
            groups=self._groups(),
            group_s=settings.group_s,
            fine_rssi=profile.fine_rssi and extended,
            phase=settings.phase and profile.phase and extended,
            session=settings.session,
            search_mode=None if mode is None else SEARCH_MODES[mode],
            select=select,
        )

    def _groups(self) -> tuple[tuple[int, ...], ...]:
        groups, room = self._settings.groups, self._can.specs_a_rospec
        if 0 < room < len(groups):
            self._tell(f"the reader takes {room} groups of antennas, not {len(groups)}: it searches all at once")
            return ()
        return groups

    async def _there(self) -> dict[int, int] | None:
        """Return the state of each ROSpec on the reader by id; None if it doesn't say."""
        answer = await self._ask("GET_ROSPECS")
        self._tells_rospecs = codec.refusal(answer) is None
        if not self._tells_rospecs:
            return None
        there = {spec["ROSpecID"]: spec["CurrentState"] for spec in answer.fields.get("ROSpec", ())}
        self._others = [rospec_id for rospec_id in there if not is_ours(rospec_id)]
        return there

    async def _state_value(self) -> int | None:
        answer = await self._ask("GET_READER_CONFIG", RequestedData=_STATE_VALUE)
        value = answer.fields.get("LLRPConfigurationStateValue", {})
        return value.get("LLRPConfigurationStateValue") if isinstance(value, Mapping) else None

    async def _insist(self, what: str, attempt: Attempt) -> None:
        """Try, and once more after taking the reader over; LinkFailure names what blocks us."""
        refused = await attempt()
        if refused and self._others and self._settings.takeover:
            await self._take_over()
            refused = await attempt()
        if not refused:
            return
        others = ", ".join(map(str, self._others))
        if self._others and 0 < self._can.rospecs <= len(self._others):
            raise LinkFailure(
                f"ROSpec {others} of another program is on the reader, which has room for no more: restart the reader, "
                f"or set takeover = true to have it deleted (the reader refused {what}: {refused})"
            )
        if self._others:
            raise LinkFailure(
                f"the reader refused {what} ({refused}); ROSpec {others} of another program is on it too, "
                "and may be in the way"
            )
        if not self._tells_rospecs:
            raise LinkFailure(
                f"the reader refused {what} ({refused}); it does not say whether another program's ROSpec is in the way"
            )
        raise LinkFailure(f"the reader refused {what} ({refused})")

    async def _add(self) -> str | None:
        """Add our ROSpec, or the plain one if the reader refuses it; returns the error if it refuses both."""
        refused = codec.refusal(await self._ask("ADD_ROSPEC", ROSpec=self._spec))
        plain = instead_of(self._spec)
        if refused is None or plain["ROSpecID"] == self.number:
            return refused
        refused_too = codec.refusal(await self._ask("ADD_ROSPEC", ROSpec=plain))
        if refused_too is None:
            self._spec = plain
            self._tell(
                "the reader refuses power, mode, session, search mode, groups, filters or what is its make's own "
                f"({refused}): it takes a plain inventory"
            )
        return refused_too

    async def _start(self) -> str | None:
        return codec.refusal(await self._ask("START_ROSPEC", ROSpecID=self.number))

    async def _take_over(self) -> None:
        for rospec_id in self._others:
            await demand(self._ask, f"to delete ROSpec {rospec_id}", "DELETE_ROSPEC", ROSpecID=rospec_id)
        others = ", ".join(map(str, self._others))
        self._tell(f"ROSpec {others} of another program was deleted from the reader to make room (takeover)")
        self._others = []


async def demand(ask: Ask, what: str, name: str, **fields: Any) -> Message:
    """Check that a response is a success; LinkFailure."""
    answer = await ask(name, **fields)
    if reason := codec.refusal(answer):
        raise LinkFailure(f"the reader refused {what} ({reason})")
    return answer
