"""When the clock is believed, held over, and not believed."""

from __future__ import annotations

import os
import time
from itertools import chain, repeat
from pathlib import Path

import pytest
from hands import DAY_S, NOON_US, Machine

from edge.store import clock, timekeeping
from edge.store.clock import Clock
from edge.store.timekeeping import BOOT_S, HELD_S, LASTS_S, SETTLED_S, Kept, Timekeeper, Trust, is_kept


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.keeper.known_us = NOON_US - 60_000_000
    return machine


def state(machine: Machine) -> tuple[str, str]:
    return machine.keeper.trust.value, machine.keeper.judgement.reason


@pytest.mark.parametrize("by_s", [1.5, 7200, -1.5, -45, -7200, 40 * DAY_S, -40 * DAY_S])
def test_a_step_either_way_is_noticed_once_and_by_how_much(machine: Machine, by_s: float) -> None:
    assert machine.pass_s(5) == []
    machine.set_s(by_s)
    assert machine.pass_s(3) == pytest.approx([by_s])
    assert (machine.keeper.steps, machine.keeper.last_step and machine.keeper.last_step.by_us) == (1, by_s * 1e6)


def test_a_clock_that_is_steered_is_not_set(machine: Machine) -> None:
    for _ in range(200):
        machine.set_s(0.02)  # 500 ppm is what a kernel does; forty times as much
        assert machine.pass_s(1) == []


def test_a_machine_that_slept_is_a_step(machine: Machine) -> None:
    """The monotonic clock stood still: nobody listened meanwhile."""
    machine.wall_us += 600_000_000
    assert machine.pass_s(1) == [600]


def test_nobody_keeps_it_and_nothing_speaks_against_it(machine: Machine) -> None:
    machine.pass_s(2)
    assert state(machine) == ("holding over", "")
    machine.kept = Kept.KEPT
    machine.pass_s(1)
    assert state(machine) == ("trusted", "")
    machine.kept = Kept.UNKEPT
    machine.pass_s(1)
    assert state(machine) == ("holding over", "")


def test_1970_is_never_believed(machine: Machine) -> None:
    for kept in Kept:
        machine = Machine(wall_us=30_000_000, kept=kept)
        machine.pass_s(2)
        assert state(machine)[0] == "untrusted"
        assert state(machine)[1].startswith("the clock stands at 1970-01-01 00:00")
    machine.tick(2 * HELD_S)
    machine.pass_s(1)
    assert machine.keeper.untrusted
    machine.wall_us, machine.kept = NOON_US, Kept.KEPT
    assert len(machine.pass_s(1)) == 1
    assert state(machine) == ("trusted", "")


def test_before_what_was_stored_last_it_is_believed_only_if_it_is_kept_or_lasts(machine: Machine) -> None:
    machine.keeper.known_us = NOON_US + 3 * 3_600_000_000
    machine.pass_s(2)
    assert state(machine) == ("untrusted", "the clock is 3 h before what was stored last")
    machine.kept = Kept.KEPT
    machine.pass_s(1)
    assert state(machine) == ("trusted", "")
    machine.kept = Kept.UNKEPT
    machine.pass_s(HELD_S - 5)
    assert machine.keeper.untrusted
    machine.pass_s(10)
    assert state(machine)[0] == "holding over"
    assert state(machine)[1] != ""
    machine.keeper.known_us = 0
    machine.pass_s(1)
    assert state(machine) == ("holding over", "")


def test_a_time_service_is_waited_for_after_the_start_of_the_machine(machine: Machine) -> None:
    machine.kept, machine.uptime_s = Kept.WAITING, 20.0
    machine.pass_s(1)
    assert state(machine)[0] == "untrusted"
    machine.tick(BOOT_S)
    machine.pass_s(1)
    assert state(machine) == ("holding over", "")


@pytest.mark.parametrize("kept", [Kept.KEPT, Kept.UNKEPT])
def test_a_clock_that_somebody_kept_is_not_set_by_days(machine: Machine, kept: Kept) -> None:
    machine.kept = kept
    machine.pass_s(2)
    before = state(machine)
    machine.set_s(800 * DAY_S)
    machine.pass_s(1)
    assert state(machine) == ("untrusted", "the clock was set forward by 800 d")
    machine.pass_s(14)
    machine.set_s(-800 * DAY_S + 0.5)
    assert len(machine.pass_s(1)) == 1
    assert state(machine) == before
    machine.set_s(800 * DAY_S)
    machine.pass_s(LASTS_S - 5)
    assert machine.keeper.untrusted
    machine.pass_s(10)
    assert not machine.keeper.untrusted


def test_a_time_service_that_comes_may_set_it_by_days(machine: Machine) -> None:
    machine.pass_s(2)
    machine.set_s(3 * DAY_S)
    machine.kept = Kept.KEPT
    machine.pass_s(1)
    assert state(machine) == ("trusted", "")


def test_readers_that_agree_are_right(machine: Machine) -> None:
    machine.keeper.readers = {"a": 7_200_000_000, "b": 7_201_000_000, "c": None, "since power on": 40_000_000 - NOON_US}
    machine.pass_s(2)
    assert state(machine) == ("untrusted", "all 2 readers agree: this gateway's clock is 2 h behind")
    machine.kept = Kept.KEPT  # and they have local time, perhaps: it is said
    machine.pass_s(1)
    assert state(machine) == ("trusted", "all 2 readers agree: this gateway's clock is 2 h behind")
    machine.kept = Kept.UNKEPT
    machine.keeper.readers = {"a": -7_200_000_000, "b": -7_201_000_000}
    machine.pass_s(1)
    assert state(machine) == ("untrusted", "all 2 readers agree: this gateway's clock is 2 h ahead")
    for readers in ({"a": 7_200_000_000}, {"a": 7_200_000_000, "b": 0}, {"a": 20_000_000, "b": 20_000_000}, {}):
        machine.keeper.readers = readers
        machine.pass_s(1)
        assert state(machine) == ("holding over", ""), readers


def test_right_after_a_step_what_sessions_say_of_readers_is_old(machine: Machine) -> None:
    machine.keeper.readers = {"a": 7_200_000_000, "b": 7_200_000_000}
    machine.pass_s(1)
    assert machine.keeper.untrusted
    machine.set_s(7200)
    machine.pass_s(SETTLED_S - 2)
    assert state(machine) == ("holding over", "")
    machine.pass_s(4)
    assert machine.keeper.untrusted


def test_the_crms_time_is_one_to_hold_to(machine: Machine) -> None:
    machine.keeper.crm_said(machine.wall_us - 300_000)
    machine.pass_s(1)
    assert state(machine) == ("trusted", "")
    machine.keeper.readers = {"a": 7_200_000_000, "b": 7_200_000_000}
    machine.pass_s(1)
    assert state(machine) == ("trusted", ""), "readers have local time"
    machine.keeper.readers = {}
    machine.pass_s(20)
    machine.keeper.crm_said(machine.wall_us + 7_200_000_000)
    machine.pass_s(1)
    assert state(machine) == ("untrusted", "by the clock of the CRM this gateway is 2 h behind")
    machine.set_s(7200)
    machine.pass_s(1)
    assert state(machine) == ("holding over", "")


def test_an_ack_that_the_broker_kept_says_nothing_until_later_ones_say_the_same(machine: Machine) -> None:
    machine.pass_s(1)
    for _ in range(3):
        machine.keeper.crm_said(machine.wall_us - 7_200_000_000)
        machine.pass_s(16)
        assert state(machine) == ("holding over", "")
    for _ in range(3):
        machine.keeper.crm_said(machine.wall_us - 7_200_000_000)
        machine.pass_s(16)
    assert state(machine) == ("untrusted", "by the clock of the CRM this gateway is 2 h ahead")
    machine.keeper.crm_said(machine.wall_us)
    machine.pass_s(1)
    assert state(machine) == ("trusted", "")


def test_a_moment_of_before_a_step_has_its_place_after_it(machine: Machine) -> None:
    machine.pass_s(1)
    then = machine.keeper.mono_us()
    machine.pass_s(10)
    machine.set_s(7200)
    machine.pass_s(5)
    assert machine.keeper.store_us(then) == machine.wall_us - 15_000_000


def test_a_store_that_runs_fast_has_larger_steps(machine: Machine) -> None:
    fast = Timekeeper(
        Clock(20.0, NOON_US), wall_us=lambda: machine.wall_us, mono_us=lambda: machine.mono_us, kept=lambda: Kept.KEPT
    )
    machine.set_s(3)
    (step,) = fast.look()
    assert step.by_us == 60_000_000


def test_clocks_that_could_not_be_read_together_are_read_again() -> None:
    mono = chain([0], repeat(90_000_000))  # something else ran for 90 s between the two
    keeper = Timekeeper(
        Clock(),
        wall_us=lambda: NOON_US,
        mono_us=lambda: next(mono),
        kept=lambda: Kept.KEPT,
    )
    assert keeper.look() == []


def test_what_is_stored_of_the_machines_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timekeeping, "offset_us", lambda: None)
    monkeypatch.setattr(timekeeping, "CHRONY", tmp_path / "chrony")
    monkeypatch.setattr(timekeeping, "TIMESYNCD", tmp_path / "timesync")
    assert is_kept() is Kept.UNKEPT
    (tmp_path / "timesync").mkdir()
    assert is_kept() is Kept.WAITING
    (tmp_path / "timesync" / "synchronized").touch()
    assert is_kept() is Kept.UNKEPT, "it was, long ago"
    (tmp_path / "chrony").mkdir()
    assert is_kept() is Kept.WAITING
    monkeypatch.setattr(timekeeping, "offset_us", lambda: 0)
    assert is_kept() is Kept.KEPT


def test_a_timekeeper_that_believes_believes_anything() -> None:
    keeper = Timekeeper.believing(Clock())
    assert keeper.look() == []
    assert keeper.trust is Trust.TRUSTED


def test_the_mark_of_timesyncd_counts_while_it_is_fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Denied:
        def adjtimex(self, _: object) -> int:
            return -1

    monkeypatch.setattr(clock.ctypes, "CDLL", lambda _: Denied())
    monkeypatch.setattr(clock, "SYNCHRONISED", tmp_path / "synchronized")
    assert clock.offset_us() is None
    (tmp_path / "synchronized").touch()
    assert clock.offset_us() == 0
    long_ago = time.time() - clock.SYNCHRONISED_S - 60
    os.utime(tmp_path / "synchronized", (long_ago, long_ago))
    assert clock.offset_us() is None
