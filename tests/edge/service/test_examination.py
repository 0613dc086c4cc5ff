"""The service examines its gateway: told on the page, once to the CRM, and each fault once in the journal."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from gateways import Gateway
from hands import Machine

from config.check import load
from edge.intake.health import Elsewhere, EngineNow, HealthNews
from edge.service.examination import Examination
from edge.store.clock import Clock
from edge.store.live_state import DoctorNow
from sync.contract import Found, GatewayHealth

NOON_US = 1_773_460_800_000_000


@pytest.fixture
def live() -> dict[str, Any]:
    return {
        "as_of_us": NOON_US,
        "version": "1",
        "readers": [{"id": "r1", "link": "up", "reason": "", "since_us": NOON_US}],
        "broker": {"connected": True, "reason": ""},
        "clock": {"trust": "trusted", "reason": ""},
        "database": {"trouble": None},
        "outbox": {},
        "failing": [],
        "certificates": [],
    }


def examination(gateway: Gateway, live: dict[str, Any]) -> Examination:
    gateway.configure()
    return Examination(load(gateway.file), gateway.file, "1", lambda: live, lambda: {"r1": []})


def names(examination: Examination) -> set[tuple[str, str]]:
    return {(one.what, one.state) for one in examination.found or ()}


async def test_what_is_wrong_is_told_until_it_is_put_right(
    gateway: Gateway, live: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    examined = examination(gateway, live)
    assert examined.found is None
    assert DoctorNow.model_validate(examined.told()) == DoctorNow()
    await examined.examine()
    assert not {what for what, _ in names(examined)} & {"reader", "broker"}
    live["readers"][0] |= {"link": "down", "reason": "no route"}
    live["broker"] = {"connected": False, "reason": "refused"}
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tagtrail.doctor"):
        await examined.examine()
        await examined.examine()
    assert {("reader", "error"), ("broker", "error")} <= names(examined)
    assert len([text for text in caplog.messages if "no route" in text]) == 1, "once"
    told = DoctorNow.model_validate(examined.told())
    assert told.at_us == NOON_US
    assert told.found[0].state == "error", "the worst first"
    assert all(one.todo for one in told.found)
    live["readers"][0] |= {"link": "up", "reason": ""}
    await examined.examine()
    assert ("reader", "error") not in names(examined)


async def test_nothing_of_the_gateway_is_changed_by_it(gateway: Gateway, live: dict[str, Any]) -> None:
    examined = examination(gateway, live)
    before = {file: file.read_bytes() for file in gateway.folder.iterdir() if file.is_file()}
    await examined.examine()
    assert {file: file.read_bytes() for file in gateway.folder.iterdir() if file.is_file()} == before


def test_the_crm_is_told_once_after_each_examination() -> None:
    told: list[GatewayHealth] = []
    machine = Machine()
    found: list[tuple[Found, ...] | None] = [None]
    news = HealthNews(
        SimpleNamespace(add_health=told.append),  # type: ignore[arg-type]
        {},
        {},
        machine.keeper,
        SimpleNamespace(left_out=0),  # type: ignore[arg-type]
        Clock(),
        Elsewhere("1", findings=lambda: found[0]),
    )
    engine = EngineNow(dict.fromkeys(("reads", "late", "unknown_antenna"), 0), 0)
    wrong = (Found(what="clock", state="warning", said="late", todo="Set it."),)
    for now, expected in ((None, None), (wrong, wrong), (wrong, None), ((), ()), ((), None), (wrong, wrong)):
        found[0] = now
        news.tell_gateway("periodic", engine)
        assert told[-1].findings == expected
    assert GatewayHealth.model_validate_json(told[1].model_dump_json()).findings == wrong


async def test_a_long_list_is_cut(gateway: Gateway, live: dict[str, Any]) -> None:
    live["readers"] = [{"id": f"r{n}", "link": "down", "reason": "no route", "since_us": NOON_US} for n in range(64)]
    examined = examination(gateway, live)
    await examined.examine()
    assert len(examined.found or ()) == len(examined.told()["found"]) == 16
