"""The service learns its radio: in a process of its own, what is better is adopted and kept, and it is told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gateways import Gateway
from rigs import HandClock, running, shop_of

from drivers.read import READ, Reads
from dwell.layout import Layout
from dwell.markov.field import Field
from dwell.markov.learning import Learnt
from edge.readers.radio import tell_radio
from edge.service import learning
from edge.service.learning import Learning, learner_of, with_kept
from edge.store import calibration_file
from edge.store.calibration_file import Calibration
from edge.store.compose import Shop
from edge.store.live_state import RadioNow

T0 = 1_800_000_000_000_000
MINUTE_US = 60_000_000


def crowd(start_us: int, seconds: int, tags: int = 5) -> Reads:
    """Tags that stand before an antenna each, read once a second."""
    reads = np.zeros(seconds * tags, READ)
    number = np.arange(len(reads))
    reads["time_us"] = start_us + number // tags * 1_000_000
    reads["epc"][:, 0] = 77 + number % tags
    reads["antenna"], reads["epc_bits"], reads["count"] = number % tags % 4, 96, 1
    reads["rssi_cdbm"] = -5500 - 100 * (number % 7)
    return reads


def found(layout: Layout, level_dbm: float, after: float) -> Learnt:
    return Learnt(replace(Field.prior(layout), level_3m_dbm=level_dbm), 5, 300, -3.0, after)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "LOOK_S", 0.01)


async def lived(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    answers: Sequence[Learnt | None],
    waits: Sequence[int] = (3, 8, 30),
    people: Sequence[int] = (5, 5, 5),
    asks: Sequence[int] = (2, 3, 4),
) -> Any:
    """A service's life of some minutes; what it asked, and what it tells at the end.

    `people` come for a minute at the beginning of each wait; at its end it has asked so often (the first time twice).
    """
    shop = with_kept(shop_of(gateway))
    asked: list[tuple[int, Field | None]] = []

    async def learn(_: Shop, reads: Reads, known: Field | None) -> Learnt | None:
        asked.append((len(reads), known))
        return answers[len(asked) - 1]

    monkeypatch.setattr(learning, "learn", learn)
    clock = HandClock(time=[T0])
    reservoir = learner_of(shop)
    async with running(shop, clock, reservoir) as rig:
        learner = Learning(shop, rig.pipeline, reservoir, clock)
        task = asyncio.create_task(learner.run())
        begun = rig.pipeline.engine.field
        for minutes, tags, times in zip(waits, people, asks, strict=False):
            await rig.inbox.reads("r1", crowd(clock.time[0], 60, tags))
            await rig.wait(60.0 * minutes)
            if answers:
                await rig.until(lambda: len(asked) >= times or task.done())  # noqa: B023
            await asyncio.sleep(0.05)
        field, told = rig.pipeline.engine.field, learner.told()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    RadioNow.model_validate_json(json.dumps(told))
    return shop, asked, begun, field, told


async def test_what_is_learnt_is_adopted_if_it_is_better_kept_and_begun_with(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = shop_of(gateway).layout
    told_dbm = {-50.0: -3.5, -51.0: -2.0, -52.0: -1.0, -70.0: -4.0}
    answers = [found(layout, level_dbm, after) for level_dbm, after in told_dbm.items()]
    shop, asked, begun, field, told = await lived(gateway, monkeypatch, answers)
    assert shop.field is None
    assert begun.level_3m_dbm == Field.prior(layout).level_3m_dbm
    assert [known and known.level_3m_dbm for _, known in asked] == [None, -50.0, -51.0, -52.0]
    assert asked[0][0] == asked[1][0] < asked[2][0] < asked[3][0]
    assert field.level_3m_dbm == -52.0
    assert told["source"] == "learnt"
    assert (told["before"], told["after"], told["tags"]) == (-3.0, -1.0, 5)
    # The next start begins with it and has nothing to do before the night.
    again, asked, begun, _, told = await lived(gateway, monkeypatch, [])
    assert again.field is not None
    assert begun.level_3m_dbm == -52.0
    assert not asked
    assert told["source"] == "kept"
    assert told["next_us"] > T0 + 41 * MINUTE_US


async def test_what_two_minutes_tell_is_used_but_not_kept(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = shop_of(gateway).layout
    answers = [found(layout, -50.0, -3.5), found(layout, -51.0, -1.0)]
    shop, _, _, field, told = await lived(gateway, monkeypatch, answers, (3,))
    assert field.level_3m_dbm == -51.0
    assert told["source"] == "learnt"
    assert not calibration_file.kept_at(shop.config.database.path).exists()


async def test_a_store_that_opens_hours_after_the_start_is_learnt_when_people_come(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = shop_of(gateway).layout
    answers = [found(layout, -50.0, -3.5), found(layout, -51.0, -1.0)]
    _, asked, _, field, told = await lived(gateway, monkeypatch, answers, (3, 90, 3), (1, 1, 5), (1, 1, 2))
    assert [known is None for _, known in asked] == [True, False]
    assert asked[1][0] > 5 * 60
    assert (field.level_3m_dbm, told["source"]) == (-51.0, "learnt")


async def test_what_was_kept_for_another_layout_or_damaged_is_no_obstacle(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    shop = shop_of(gateway)
    path = calibration_file.kept_at(shop.config.database.path)
    path.write_text("{")
    assert with_kept(shop).field is None
    assert "learnt anew" in caplog.text


async def test_a_calibration_that_the_file_names_stays_and_its_being_worse_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop = shop_of(gateway)
    file = gateway.folder / "calibration.json"
    made = Calibration(Field.prior(shop.layout), T0, 9000, 10, 300, -2.0, -1.0)
    calibration_file.save(file, shop.config.store.id, shop.layout, shop.zones, shop.ports, made)
    shop = shop_of(gateway, calibration={"file": str(file)})
    assert with_kept(shop) is shop
    clock = HandClock(time=[T0])
    reservoir = learner_of(shop)
    async with running(shop, clock, reservoir) as rig:
        learner = Learning(shop, rig.pipeline, reservoir, clock)
        with caplog.at_level(logging.WARNING):
            await learner._judge(found(shop.layout, -40.0, -2.8), np.array([T0]), False)
            assert learner.told()["worse_nats"] is None
            await learner._judge(found(shop.layout, -40.0, 1.5), np.array([T0]), False)
        told = learner.told()
        assert rig.pipeline.engine.field.level_3m_dbm == Field.prior(shop.layout).level_3m_dbm
    assert told["source"] == "named"
    assert told["worse_nats"] == 4.5
    assert "calibrate again" in caplog.text
    lines = list(tell_radio(told))
    assert "from the store file's calibration" in lines[0]
    assert "9000 reads of 10 tags" in lines[1]
    assert "4.5 nats a second worse" in lines[2]
    assert not calibration_file.kept_at(shop.config.database.path).exists()


@pytest.mark.timeout(600)  # it learns only while nobody else wants to compute
async def test_the_process_learns_as_one_would_here(gateway: Gateway) -> None:
    shop = shop_of(gateway)
    assert await learning.learn(shop, crowd(T0, 2, tags=2), None) is None
    made = await learning.learn(shop, crowd(T0, 60), None)
    assert made is not None
    assert made.tags == 5
    assert made.ticks == 300
    assert np.isfinite((made.before, made.after)).all()
    with pytest.raises(OSError, match="ended with code"):
        await learning.learn(shop, np.zeros(3), None)
