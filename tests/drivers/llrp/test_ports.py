"""Contacts and outputs of LLRP readers, over real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from llrp_peers import CARD, QUICK, Obedient, Recorder, now_us, peer, session
from llrpkit.protocol import decode_message, messages, params

from drivers.llrp import codec
from drivers.session import Link
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation


async def port_of(reader: LlrpReader) -> int:
    return int((await reader.start()).rpartition(":")[2])


async def until(true: Any, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_contacts_are_told_with_the_readers_corrected_time() -> None:
    reader = LlrpReader(lambda: now_us() - 3_600_000_000)
    try:
        async with session(await port_of(reader), inputs=(1, 3)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            assert sink.statuses[-1].inputs == {1, 3}
            began_us = now_us()
            for port, high in ((1, True), (2, True), (3, True), (1, False)):
                reader.gpi(port, high)
            await sink.until(lambda: len(sink.contacts) == 3)
            assert [(c.port, c.high) for c in sink.contacts] == [(1, True), (3, True), (1, False)]
            assert all(began_us - 1_000_000 < c.at_us <= now_us() for c in sink.contacts)
    finally:
        await reader.stop()


async def test_without_inputs_nothing_is_asked_of_them() -> None:
    reader = Obedient()
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: Link.UP in sink.links)
    asked = [m for m in reader.got if isinstance(m, messages.SET_READER_CONFIG)]
    states = [s for m in asked if (n := m.reader_event_notification_spec) for s in n.event_notification_states]
    assert not any(m.gpi_port_current_states or m.gpo_write_datas for m in asked)
    assert 1 not in {int(state.event_type) for state in states}


async def test_contacts_that_the_reader_kept_come_with_their_own_times() -> None:
    reader = LlrpReader(now_us)
    try:
        async with session(await port_of(reader), inputs=(1,)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 1)
            reader.cut()
            await until(lambda: not reader.connected)
            kept_us = now_us()
            reader.gpi(1, True)
            reader.push([Observation(kept_us, 1, CARD, -5000)])
            await sink.until(lambda: len(sink.contacts) == 1)
            assert abs(sink.contacts[0].at_us - kept_us) < 500_000
    finally:
        await reader.stop()


async def test_a_reader_that_refuses_an_input_is_told_and_reads_on() -> None:
    reader = LlrpReader(now_us)
    try:
        async with session(await port_of(reader), inputs=(2, 9)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            assert sink.statuses[-1].inputs == {2}
            (text,) = sink.notices
            assert "refuses to watch its input 9" in text
            assert "this reader has 1 to 4" in text
    finally:
        await reader.stop()


async def test_a_reader_that_refuses_events_counts_nothing() -> None:
    class Choosy(LlrpReader):
        def _configure(self, message: Any) -> Any:
            if message.reader_event_notification_spec is not None:
                return params.LLRPStatus(status_code=101, error_description="no events")
            return super()._configure(message)

    reader = Choosy(now_us)
    try:
        async with session(await port_of(reader), inputs=(1,)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            assert sink.statuses[-1].inputs == frozenset()
            (text,) = sink.notices
            assert "it does not tell of changes" in text
    finally:
        await reader.stop()


async def test_outputs_are_off_at_first_follow_the_switch_and_are_off_at_the_end() -> None:
    reader = LlrpReader(now_us)
    try:
        async with session(await port_of(reader), outputs=(1, 2)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            assert reader.gpo == {1: False, 2: False}
            sink.session.switch(2, True)
            await until(lambda: reader.gpo == {1: False, 2: True})
        await until(lambda: reader.gpo == {1: False, 2: False})
        assert sink.notices == []
    finally:
        await reader.stop()


async def test_an_output_is_brought_up_to_date_by_the_next_connection() -> None:
    reader = LlrpReader(now_us)
    try:
        async with session(await port_of(reader), outputs=(1,)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            sink.session.switch(1, True)
            await until(lambda: reader.gpo[1])
            reader.cut()
            sink.session.switch(1, False)
            await until(lambda: not reader.gpo[1])
    finally:
        await reader.stop()


async def test_switching_is_no_foreign_change_so_kept_reads_survive() -> None:
    reader = LlrpReader(now_us)
    try:
        async with session(await port_of(reader), outputs=(1,)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            sink.session.switch(1, True)
            await until(lambda: reader.gpo[1])
            # Its state value is asked for behind the switch.
            await until(lambda: sink.session._memory.state_value == reader._state_value)
            reader.cut()
            await until(lambda: not reader.connected)
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 1)
            assert sink.links.count(Link.UP) == 2
    finally:
        await reader.stop()


async def test_an_output_that_the_reader_refuses_is_told_once_and_not_fatal() -> None:
    reader = LlrpReader(now_us)
    try:
        async with session(await port_of(reader), outputs=(7,)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            sink.session.switch(7, True)
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 1)
            (text,) = sink.notices
            assert "refuses to switch its output 7" in text
            assert sink.links[-1] is Link.UP
    finally:
        await reader.stop()


def test_the_codec_agrees_with_llrpkit_on_contacts_and_outputs() -> None:
    on = codec.encode("SET_READER_CONFIG", 5, GPOWriteData=[{"GPOPortNumber": 3, "GPOData": True}])
    (write,) = decode_message(on).gpo_write_datas
    assert (write.gpo_port_number, write.gpo_data) == (3, True)
    watched = codec.encode("SET_READER_CONFIG", 5, GPIPortCurrentState=[{"GPIPortNum": 2, "GPIConfig": True}])
    (state,) = decode_message(watched).gpi_port_current_states
    assert (state.gpi_port_num, state.config) == (2, True)


@pytest.mark.parametrize(
    ("trigger", "name"),
    [
        (params.PeriodicTriggerValue(offset=5, period=1000), "PeriodicTriggerValue"),
        (params.GPITriggerValue(gpi_port_num=2, gpi_event=True, timeout=7), "GPITriggerValue"),
    ],
)
def test_the_two_triggers_of_a_rospec_are_not_mistaken_for_each_other(trigger: Any, name: str) -> None:
    boundary = params.ROBoundarySpec(
        ro_spec_start_trigger=params.ROSpecStartTrigger(
            ro_spec_start_trigger_type=3 if name.startswith("GPI") else 2,
            **{"gpi_trigger_value" if name.startswith("GPI") else "periodic_trigger_value": trigger},
        ),
        ro_spec_stop_trigger=params.ROSpecStopTrigger(),
    )
    decoded, _ = codec.Param_struct["ROBoundarySpec"]["decode"](boundary.encode()[4:], "ROBoundarySpec")
    assert name in decoded["ROSpecStartTrigger"]


class Stuck(Recorder):
    """A pipeline that takes no more reads for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def reads(self, reader: str, batch: Any) -> None:
        await super().reads(reader, batch)
        await self.free.wait()


async def test_an_answer_behind_reads_that_nobody_takes_is_waited_for() -> None:
    reader, stuck = LlrpReader(now_us), Stuck()
    try:
        async with session(await port_of(reader), replace(QUICK, answer_s=0.2), sink=stuck, outputs=(1,)) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 1)
            sink.session.switch(1, True)
            await until(lambda: reader.gpo[1])
            await asyncio.sleep(0.6)  # thrice as long as an answer is waited for
            stuck.free.set()
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 2)
            assert sink.links.count(Link.UP) == 1
    finally:
        await reader.stop()
