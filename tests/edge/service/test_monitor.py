"""Health, readiness and metrics on a socket of their own, read by another parser."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from measured import ANTENNAS, FULL
from prometheus_client.parser import text_string_to_metric_families

from edge.doctor.health import judge
from edge.service import monitor as module
from edge.service.monitor import MOST_CLIENTS, Monitor, Phase
from edge.service.totals import STEPS, Wait
from edge.store.live_state import Now

BASE_UNITS = ("seconds", "bytes", "total", "info", "count", "sum", "up", "fds")
COUNTED = {"zone_covered", "tags_present", "double_tags", "broker_connected", "outbox_pending", "database_trouble",
           "job_failures", "doctor_findings", "clock_trust", "queue_reads", "held_reads",
           "standby_protected", "lease_valid"}  # fmt: skip
"""Gauges of things that have no unit: what is counted stands in the name."""


class Asked:
    """A monitor on a Unix socket, asked by a program."""

    def __init__(self, folder: Path) -> None:
        self.told: dict[str, Any] = json.loads(json.dumps(FULL)) | {"failing": []}
        self.path = folder / "monitor"
        self.monitor = Monitor(lambda: self.told, lambda: ANTENNAS)
        self.monitor.phase = "serving"

    async def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, head and content of an answer."""
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, content = answer.partition("\r\n\r\n")
        return int(head.split()[1]), head, content

    async def send(self, request: bytes) -> str:
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(request)
            return (await reader.read()).decode()
        finally:
            writer.close()

    async def metrics(self) -> dict[tuple[str, *tuple[str, ...]], float]:
        status, head, text = await self.get("/metrics")
        assert status == 200
        assert "Content-Type: text/plain; version=" in head
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    asked = Asked(tmp_path)
    running = asyncio.create_task(asked.monitor.on_socket(asked.path))
    while not asked.path.exists():
        await asyncio.sleep(0)
    yield asked
    running.cancel()
    await asyncio.wait([running])
    assert not asked.path.exists()


async def test_what_the_service_says_is_measured(asked: Asked) -> None:
    asked.told |= {
        "clock": {"trust": "untrusted", "reason": "x", "steps": 3},
        "failing": [{"job": "day facts", "reason": "x", "since_us": 1, "times": 4}],
        "doctor": {"at_us": 1_700_000_000_000_000, "found": [{"what": "x", "state": "error", "said": "x"}]},
        "members": [{"member": "M-1234567", "tier": "A", "zone": "z", "since_us": 1}],
        "as_of_us": 9_000_000,
        "watermark_us": 5_000_000,
        "page_took_s": None,
    }
    found = await asked.metrics()
    assert found["tagtrail_up",] == 1
    assert found["tagtrail_service_info", "s1", "1.2"] == 1
    assert (found["tagtrail_reader_up", "r"], found["tagtrail_zone_covered", "z"]) == (1, 1)
    assert (found["tagtrail_reader_reads_total", "r"], found["tagtrail_antenna_reads_total", "2", "r", "z"]) == (8, 7)
    assert (found["tagtrail_engine_lag_seconds",], found["tagtrail_late_reads_total",]) == (4, 2)
    assert (found["tagtrail_queue_reads",], found["tagtrail_queue_age_seconds",]) == (5, 0.5)
    waits = [found[f"tagtrail_{name}", "member"] for name in ("outbox_pending", "outbox_age_seconds")]
    assert (waits, found["tagtrail_crm_ack_age_seconds", "member"]) == ([1, 3], 12)
    commits = (found["tagtrail_database_commit_seconds_count",], found["tagtrail_database_commit_seconds_sum",])
    assert (commits, found["tagtrail_checkpoint_bytes",]) == ((9, 0.25), 4096)
    trust = [found["tagtrail_clock_trust", state] for state in ("trusted", "holding over", "untrusted")]
    assert trust == [0, 0, 1]
    assert (found["tagtrail_clock_steps_total",], found["tagtrail_job_failures", "day facts"]) == (3, 4)
    assert (found["tagtrail_doctor_findings", "error"], found["tagtrail_doctor_findings", "warning"]) == (1, 0)
    assert found["tagtrail_page_up",] == 0
    assert ("tagtrail_page_latency_seconds",) not in found
    assert found["process_resident_memory_bytes",] > 1e6
    assert not any("M-1234567" in part for key in found for part in key), "nobody's number"


async def test_names_and_types_are_those_that_prometheus_asks_for(asked: Asked) -> None:
    """The rules of promtool's linter: https://prometheus.io/docs/practices/naming/."""
    _, _, text = await asked.get("/metrics")
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) > 30
    for family in families:
        assert re.fullmatch("(tagtrail|process)(_[a-z0-9]+)+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter", "summary"), family.name
        names = {sample.name for sample in family.samples}
        assert names <= {family.name, *(family.name + end for end in ("_total", "_count", "_sum"))}
        if family.type == "counter":
            assert names in (set(), {f"{family.name}_total"})
        elif family.name.removeprefix("tagtrail_") not in COUNTED:
            assert family.name.endswith(BASE_UNITS), family.name
        for sample in family.samples:
            assert not any(label in ("job", "instance", "le", "quantile") for label in sample.labels)


async def test_health_tells_what_fails_from_what_is_missing(asked: Asked) -> None:
    status, _, content = await asked.get("/health")
    assert (status, json.loads(content)["status"]) == (200, "ok")
    asked.told["readers"][0] |= {"link": "down", "reason": "no route"}
    asked.told["broker"] = {"connected": False, "reason": "refused", "since_us": 1}
    status, _, content = await asked.get("/health")
    told = json.loads(content)
    assert (status, told["status"], told["fails"]) == (200, "degraded", [])
    assert told["missing"] == ["the broker is away: refused", "reader r is away: no route"]
    asked.told["database"] = {"trouble": "disk full"}
    status, _, content = await asked.get("/health")
    told = json.loads(content)
    assert (status, told["status"], told["fails"]) == (503, "failing", ["the database can't be written: disk full"])
    assert (await asked.get("/ready"))[0] == 200


@pytest.mark.parametrize(("trust", "behind_s", "status"), [("trusted", 901, "failing"), ("trusted", 899, "ok"),
                                                           ("untrusted", 901, "degraded")])  # fmt: skip
def test_an_engine_that_waits_for_the_time_does_not_fail(trust: str, behind_s: int, status: str) -> None:
    told = FULL | {"failing": [], "clock": {"trust": trust}, "as_of_us": behind_s * 1_000_000 + 1, "watermark_us": 1}
    assert judge(Now.model_validate(told)).status == status


async def test_it_is_ready_only_while_it_takes_reads(asked: Asked) -> None:
    phases: tuple[tuple[Phase, int], ...] = (("starting", 503), ("serving", 200), ("stopping", 503))
    for phase, expected in phases:
        asked.monitor.phase = phase
        status, _, content = await asked.get("/ready")
        assert (status, json.loads(content)) == (expected, {"ready": expected == 200, "phase": phase})


async def test_while_it_starts_the_engine_is_not_asked(asked: Asked) -> None:
    asked.monitor.phase = "starting"
    asked.told = {}
    assert [(await asked.get(path))[0] for path in ("/health", "/metrics")] == [200, 503]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /members HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\xfc\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ],
)
async def test_what_is_no_question_is_refused(asked: Asked, request_: bytes, status: int) -> None:
    assert (await asked.send(request_)).startswith(f"HTTP/1.1 {status} ")
    assert (await asked.get("/ready"))[0] == 200


async def test_a_state_that_can_not_be_told_is_logged_once(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    asked.told = {"nonsense": 1}
    assert [(await asked.get(path))[0] for path in ("/health", "/metrics", "/metrics", "/ready")] == [
        500,
        500,
        500,
        200,
    ]
    assert len(caplog.records) == 1


async def test_head_has_the_length_and_no_content(asked: Asked) -> None:
    status, head, content = await asked.get("/ready", "HEAD")
    assert (status, content) == (200, "")
    assert re.search(r"Content-Length: [1-9]", head)


async def test_who_says_nothing_is_dropped_and_many_take_nothing_from_the_service(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.3)
    idle = [await asyncio.open_unix_connection(asked.path) for _ in range(MOST_CLIENTS)]
    await asyncio.sleep(0)
    assert await asked.send(b"") == "", "closed at once"
    for reader, writer in idle:
        assert await reader.read() == b""
        writer.close()
    assert (await asked.get("/health"))[0] == 200


def test_how_long_the_oldest_event_has_waited() -> None:
    wait = Wait()
    assert wait.oldest_s(9) == 0
    wait.note(3, 3, 10)
    wait.note(5, 5, 20)
    assert wait.oldest_s(30) == 20
    wait.note(5, 3, 31)  # two of the first three are acknowledged
    assert wait.oldest_s(31) == 21
    wait.note(5, 2, 32)
    assert wait.oldest_s(32) == 12
    wait.note(5, 0, 33)
    assert wait.oldest_s(33) == 0
    for second in range(4 * STEPS):
        wait.note(5 + second, second, 100 + second)
    assert wait.oldest_s(5000) == 5000 - 101, "the oldest is not forgotten"
