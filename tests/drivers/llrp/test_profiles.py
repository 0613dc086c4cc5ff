"""Profiles of makers and reader-side filters: what goes over the wire, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from llrp_peers import CARD, OK, Obedient, forever, now_us, peer, report, session
from llrpkit.protocol import enums, impinj, messages, params

from drivers.llrp.profiles import GENERIC, PROFILES, choose
from drivers.llrp.rospec import instead_of, rospec
from drivers.llrp.state import Timing
from drivers.session import Link, Radio, ReaderStatus, Select, Tables
from simulators.readers import llrp_replies
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation


def reader_of(maker: int, filters: int = 2, **more: Any) -> Obedient:
    """A reader that says it is of some maker and has room for some select filters."""
    capabilities = llrp_replies.capabilities(0, 4, False)
    capabilities.general_device_capabilities.device_manufacturer_name = maker
    capabilities.air_protocol_llrp_capabilities.max_num_select_filters_per_query = filters
    extended = impinj.IMPINJ_ENABLE_EXTENSIONS_RESPONSE(llrp_status=OK)
    answers = {"GET_READER_CAPABILITIES": capabilities, "IMPINJ_ENABLE_EXTENSIONS": extended}
    return Obedient(answers=answers, **more)


async def inventory(reader: Obedient, **settings: Any) -> tuple[params.ROSpec, list[str], ReaderStatus]:
    """The ROSpec that the reader gets, what health hears, and what is known of the reader."""
    async with peer(reader) as (port, _), session(port, **settings) as sink:
        await sink.until(lambda: Link.UP in sink.links)
        (spec,) = (m.ro_spec for m in reader.got if isinstance(m, messages.ADD_ROSPEC))
        return spec, sink.notices, sink.statuses[-1]


def command_of(spec: params.ROSpec) -> params.C1G2InventoryCommand:
    (parameters,) = spec.spec_parameters[0].inventory_parameter_specs
    assert [antenna.antenna_id for antenna in parameters.antenna_configurations] == [1, 2, 3, 4]
    commands = [c for a in parameters.antenna_configurations for c in a.air_protocol_inventory_command_settings]
    assert all(command == commands[0] for command in commands)
    return commands[0]


async def test_impinj_gets_extensions_link_monitor_and_fine_rssi() -> None:
    reader = reader_of(25882)
    spec, _, status = await inventory(reader)
    assert status.detail["profile"] == "impinj"
    assert "IMPINJ_ENABLE_EXTENSIONS" in reader.asked[: reader.asked.index("ADD_ROSPEC")]
    customs = [c for m in reader.got if isinstance(m, messages.SET_READER_CONFIG) for c in m.custom]
    (monitor,) = customs
    assert isinstance(monitor, impinj.ImpinjLinkMonitorConfiguration)
    assert (monitor.link_monitor_mode, monitor.link_down_threshold) == (1, 3)
    (selector,) = spec.ro_report_spec.custom
    assert isinstance(selector, impinj.ImpinjTagReportContentSelector)
    assert selector.impinj_enable_peak_rssi.peak_rssi_mode == 1


async def test_impinj_that_refuses_extensions_is_asked_for_nothing_of_them() -> None:
    spec, notices, _ = await inventory(reader_of(25882, refuse="IMPINJ_ENABLE_EXTENSIONS"), search_mode="tagfocus")
    assert spec.ro_report_spec.custom == []
    assert notices == ["the reader has no search mode 'tagfocus': it keeps its own"]


async def test_session_and_search_mode_go_to_each_antenna() -> None:
    spec, notices, _ = await inventory(reader_of(25882), session=2, search_mode="dual")
    command = command_of(spec)
    assert command.c1_g2_singulation_control.session == 2
    assert command.custom[0].inventory_search_mode == 2
    assert notices == []


@pytest.mark.parametrize("maker", [161, 26554, 17996, 32473])
async def test_other_makers_get_nothing_custom(maker: Any) -> None:
    reader = reader_of(maker)
    spec, _, status = await inventory(reader)
    assert status.detail["profile"] == choose(maker, None).name
    assert spec.ro_report_spec.custom == []
    assert spec.spec_parameters[0].inventory_parameter_specs[0].antenna_configurations == []
    assert not any("IMPINJ" in name for name in reader.asked)


async def test_a_profile_of_the_store_file_wins_and_kathrein_is_asked_for_no_events() -> None:
    reader = reader_of(25882)
    _, _, status = await inventory(reader, profile="kathrein")
    assert status.detail["profile"] == "kathrein"
    events = [m.reader_event_notification_spec for m in reader.got if isinstance(m, messages.SET_READER_CONFIG)]
    wished = [state.event_type for spec in events if spec for state in spec.event_notification_states]
    assert [int(event) for event in wished] == [3]  # the buffer warning, which its capabilities offer


def test_profiles_are_chosen_by_maker() -> None:
    assert [choose(maker, None).name for maker in (25882, 161, 388, 26554, 17996, 6437)] == [
        "impinj", "zebra", "zebra", "thingmagic", "alien", "kathrein",
    ]  # fmt: skip
    assert choose(1, None) is GENERIC
    assert choose(1, "zebra") is PROFILES["zebra"]


MEMBERS, STAFF = Select(0, 14, b"\x2d\x14"), Select(0, 8, b"\x2e")


async def test_filters_are_sent_when_the_reader_has_room() -> None:
    spec, notices, _ = await inventory(reader_of(0), select=(MEMBERS, STAFF))
    first, second = command_of(spec).c1_g2_filters
    assert (first.c1_g2_tag_inventory_mask.mb, first.c1_g2_tag_inventory_mask.pointer) == (1, 32)
    assert [f.c1_g2_tag_inventory_mask.tag_mask.bit_len for f in (first, second)] == [14, 8]
    assert [bytes(f.c1_g2_tag_inventory_mask.tag_mask.data) for f in (first, second)] == [b"\x2d\x14", b"\x2e"]
    actions = [f.c1_g2_tag_inventory_state_unaware_filter_action.action for f in (first, second)]
    assert [int(action) for action in actions] == [0, 1]
    assert notices == []


async def test_without_room_all_tags_are_reported_and_health_says_so() -> None:
    reader = reader_of(0, filters=1, then=lambda _, writer: forever(writer, report(CARD)))
    spec, notices, _ = await inventory(reader, select=(MEMBERS, STAFF))
    assert spec.spec_parameters[0].inventory_parameter_specs[0].antenna_configurations == []
    assert notices == ["the reader has room for 1 select filters and 2 are needed: it reports all tags"]


async def test_impinj_gives_the_phase_only_if_it_is_wanted() -> None:
    plain, _, _ = await inventory(reader_of(25882))
    assert plain.ro_report_spec.custom[0].impinj_enable_rf_phase_angle is None
    spec, _, _ = await inventory(reader_of(25882), phase=True)
    assert spec.ro_report_spec.custom[0].impinj_enable_rf_phase_angle.rf_phase_angle_mode == 1
    other, _, _ = await inventory(reader_of(161), phase=True)
    assert other.ro_report_spec.custom == []


class Plain(LlrpReader):
    """Refuses inventories with a command for its antennas."""

    refused = 0

    def _add(self, spec: Any) -> Any:
        (parameters,) = spec.spec_parameters[0].inventory_parameter_specs
        if parameters.antenna_configurations:
            self.refused += 1
            return params.LLRPStatus(status_code=101, error_description="no such session")
        return super()._add(spec)


async def test_a_reader_that_refuses_the_refined_inventory_gets_a_plain_one_and_health_says_so() -> None:
    reader = Plain(now_us)
    port = int((await reader.start()).rpartition(":")[2])
    try:
        async with session(port, session=2) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            (text,) = sink.notices
            assert "takes a plain inventory" in text
            assert "no such session" in text
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 1)
            # It survives an interruption as any other: what was kept is not thrown away for another try.
            reader.cut()
            await sink.until(lambda: sink.links[-1] is Link.DOWN)
            reader.push([Observation(now_us(), 1, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 2)
            assert reader.refused == 1
    finally:
        await reader.stop()


async def test_ports_that_even_a_plain_inventory_must_not_have_are_told() -> None:
    reader = LlrpReader(now_us)
    port = int((await reader.start()).rpartition(":")[2])
    try:
        async with session(port, ports={9: 1}, session=1) as sink:
            assert "refused an inventory on antenna ports 9" in await sink.until_down()
    finally:
        await reader.stop()


def test_the_plain_inventory_is_another_for_each_that_it_stands_for() -> None:
    plain, one, two = rospec([1], 1), rospec([1], 1, session=1), rospec([1], 1, session=2)
    assert instead_of(plain) == plain
    ids = {spec["ROSpecID"] for spec in (plain, one, two, instead_of(one), instead_of(two))}
    assert len(ids) == 5


# Power, mode and population of each antenna.


def configured(spec: params.ROSpec) -> dict[int, params.AntennaConfiguration]:
    return {
        each.antenna_id: each
        for ai in spec.spec_parameters
        for parameters in ai.inventory_parameter_specs
        for each in parameters.antenna_configurations
    }


async def test_each_antenna_gets_its_power_mode_and_population() -> None:
    radio = {1: Radio(power_cdbm=2050), 3: Radio(mode=2, population=16)}
    spec, notices, status = await inventory(reader_of(0), radio=radio, session=1)
    told = configured(spec)
    assert sorted(told) == [1, 2, 3, 4]
    power = told[1].rf_transmitter
    assert (power.hop_table_id, power.channel_index, power.transmit_power) == (1, 0, 43), "20.5 dBm is the 43rd"
    assert told[2].rf_transmitter is None
    (command,) = told[3].air_protocol_inventory_command_settings
    assert command.c1_g2_rf_control.mode_index == 2
    assert command.c1_g2_singulation_control.tag_population == 16
    (command,) = told[2].air_protocol_inventory_command_settings
    assert (command.c1_g2_rf_control, command.c1_g2_singulation_control.tag_population) == (None, 32)
    assert notices == []
    assert status.detail["powers"] == "10 to 30 dBm"
    assert status.detail["modes"].startswith("0 (640 kb/s), 1 (320 kb/s), 2 (68.5 kb/s), 3 (21.325 kb/s)")
    powers = status.tables.powers_cdbm
    assert (powers[0], powers[42], powers[-1], len(powers)) == (1000, 2050, 3000, 81)
    assert status.tables.modes == {0: 640_000, 1: 320_000, 2: 68_500, 3: 21_325, 4: 160_000}


async def test_the_readers_own_tables_are_the_limits() -> None:
    radio = {1: Radio(power_cdbm=3300), 2: Radio(power_cdbm=500), 3: Radio(mode=7)}
    spec, notices, _ = await inventory(reader_of(0), radio=radio)
    told = configured(spec)
    assert [told[port].rf_transmitter.transmit_power for port in (1, 2)] == [81, 1]
    assert 3 not in told
    assert notices == [
        "the reader's powers are 10 to 30 dBm, not 33: port 1 has 30 dBm",
        "the reader's powers are 10 to 30 dBm, not 5: port 2 has 10 dBm",
        "the reader has no mode 7 (its modes: 0, 1, 2, 3, 4): port 3 keeps its own",
    ]


async def test_a_reader_without_tables_keeps_its_own() -> None:
    reader = reader_of(0)
    reader.answers["GET_READER_CAPABILITIES"].regulatory_capabilities = None
    spec, notices, status = await inventory(reader, radio={2: Radio(power_cdbm=2000, mode=2)})
    assert configured(spec) == {}
    assert notices == [
        "the reader has no table of powers: port 2 keeps its own",
        "the reader has no mode 2 (its modes: not told): port 2 keeps its own",
    ]
    assert "powers" not in status.detail
    assert status.tables == Tables()


async def test_what_the_reader_refuses_of_it_gives_way_to_a_plain_inventory() -> None:
    reader = LlrpReader(now_us, tcp_port=0)
    add = reader._add

    def picky(spec: params.ROSpec) -> params.LLRPStatus:
        return llrp_replies.status(101, "no such power") if configured(spec) else add(spec)

    reader._add = picky  # type: ignore[method-assign]
    port = int((await reader.start()).rpartition(":")[2])
    try:
        async with session(port, radio={1: Radio(power_cdbm=2000)}) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            assert any("it takes a plain inventory" in notice for notice in sink.notices)
    finally:
        await reader.stop()


async def test_tags_are_gathered_on_demand() -> None:
    spec, _, _ = await inventory(reader_of(0), report_tags=8)
    assert spec.ro_report_spec.n == 8


# Groups of antennas, and readers that take their time.


async def test_groups_are_searched_one_after_the_other_and_again() -> None:
    reader = reader_of(0, beside=lambda _, writer: forever(writer, report(CARD)))
    spec, notices, _ = await inventory(reader, groups=((1, 2), (3,), (4,)), group_s=0.5, session=1)
    assert [list(ai.antenna_ids) for ai in spec.spec_parameters] == [[1, 2], [3], [4]]
    assert [ai.ai_spec_stop_trigger.duration_trigger for ai in spec.spec_parameters] == [500] * 3
    assert {int(ai.ai_spec_stop_trigger.ai_spec_stop_trigger_type) for ai in spec.spec_parameters} == {1}
    assert int(spec.ro_boundary_spec.ro_spec_start_trigger.ro_spec_start_trigger_type) == 1
    assert sorted(configured(spec)) == [1, 2, 3, 4]
    assert "START_ROSPEC" not in reader.asked, "it starts by itself"
    assert notices == []


async def test_a_reader_without_room_for_the_groups_searches_all_at_once() -> None:
    reader = reader_of(0)
    reader.answers["GET_READER_CAPABILITIES"].llrp_capabilities.max_num_specs_per_ro_spec = 1
    spec, notices, _ = await inventory(reader, groups=((1, 2), (3, 4)))
    assert [list(ai.antenna_ids) for ai in spec.spec_parameters] == [[1, 2, 3, 4]]
    assert notices == ["the reader takes 1 groups of antennas, not 2: it searches all at once"]


async def test_the_end_of_a_turn_through_the_groups_is_no_outage() -> None:
    reader = LlrpReader(now_us, tcp_port=0)
    port = int((await reader.start()).rpartition(":")[2])
    try:
        async with session(port, groups=((1, 2), (3, 4)), group_s=0.1) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            for _ in range(3):
                (spec,) = reader._rospecs.values()
                reader._ro_spec_event(spec, enums.ROSpecEventType.End_Of_ROSpec)
            reader.push([Observation(now_us(), 3, CARD, -5000)])
            await sink.until(lambda: len(sink.all) == 1)
            assert Link.DOWN not in sink.links
    finally:
        await reader.stop()


async def test_a_slow_reader_is_given_long() -> None:
    slow, usual = Timing().patient(PROFILES["slow"].patience), Timing()
    assert (slow.answer_s, slow.keepalive_s, slow.look_s) == (60, 30, 45)
    assert (slow.retry_cap_s, slow.gather_s, slow.steady_s) == (usual.retry_cap_s, usual.gather_s, usual.steady_s)
    reader = reader_of(25882)
    _, _, status = await inventory(reader, profile="slow")
    assert status.detail["profile"] == "slow"
    assert "IMPINJ_ENABLE_EXTENSIONS" not in reader.asked
    (period,) = {m.keepalive_spec.periodic_trigger_value for m in reader.got if getattr(m, "keepalive_spec", None)}
    assert period == 3000
