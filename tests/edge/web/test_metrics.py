"""`/metrics`: what the service says, in a format that another parser reads."""

from __future__ import annotations

import base64
from typing import Any

import pages
from pages import Page, Service
from prometheus_client.parser import text_string_to_metric_families

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.store.live_state import State

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords


async def measured(page: Page, **headers: str) -> dict[tuple[str, *tuple[str, ...]], float]:
    status, answer, text = await page.get("/metrics", **headers)
    assert status == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_the_service_says_is_measured(service: Service, page: Page) -> None:
    told: dict[str, Any] = {
        "clock": {"trust": "untrusted", "reason": "x", "steps": 3},
        "failing": [{"job": "day facts", "reason": "x", "since_us": 1, "times": 4}],
        "certificates": [{"what": "mqtt.cert", "until_us": 1_800_000_000_000_000, "days": 9}],
        "doubles": [{"zones": ["shoes", "hall"], "tag_class": "member", "since_us": 1}],
        "doctor": {"at_us": 1_700_000_000_000_000, "found": [{"what": "x", "state": "error", "said": "x"}]},
    }
    service.told |= told
    await page.until(State.LIVE)
    found = await measured(page)
    assert found["tagtrail_up",] == 1
    assert found["tagtrail_service_info", "s1", ""] == 1
    assert (found["tagtrail_reader_up", "r1"], found["tagtrail_reader_up", "r2"]) == (1, 0)
    assert (found["tagtrail_zone_covered", "door"], found["tagtrail_zone_covered", "bags"]) == (1, 0)
    assert (found["tagtrail_broker_connected",], found["tagtrail_outbox_pending", "journey"]) == (1, 2)
    trust = [found["tagtrail_clock_trust", state] for state in ("trusted", "holding over", "untrusted")]
    assert trust == [0, 0, 1]
    assert found["tagtrail_clock_steps_total",] == 3
    assert found["tagtrail_job_failures", "day facts"] == 4
    assert (found["tagtrail_doctor_findings", "error"], found["tagtrail_doctor_findings", "warning"]) == (1, 0)
    assert found["tagtrail_doctor_at_seconds",] == 1_700_000_000
    assert found["tagtrail_certificate_expires_seconds", "mqtt.cert"] == 1_800_000_000
    assert (found["tagtrail_double_tags",], found["tagtrail_database_trouble",]) == (1, 0)
    assert not any("M-1234567" in part for key in found for part in key), "nobody's number"


async def test_without_the_service_only_that_is_known(page: Page) -> None:
    await page.until(State.OFFLINE)
    assert await measured(page) == {("tagtrail_up",): 0}


async def test_with_users_it_wants_one(page: Page, config: StoreConfig) -> None:
    users = Users(users_path(config))
    users.put("prometheus", Role.VIEWER, "correct horse battery")
    users.close()
    status, answer, _ = await page.get("/metrics")
    assert (status, answer["WWW-Authenticate"]) == (401, 'Basic realm="tagtrail"')
    basic = base64.b64encode(b"prometheus:correct horse battery").decode()
    assert (await measured(page, Authorization=f"Basic {basic}"))["tagtrail_up",] in (0, 1)
