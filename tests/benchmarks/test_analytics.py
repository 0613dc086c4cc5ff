"""What the page asks, of 90 days of a store with 64 readers and 38,000 visits a day; past days stored summed up."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pages import Service
from shopdays import DATE, Day, store_values

from config import StoreConfig
from config.facts import WINDOW_US
from edge.crm.sales import HOUR_US, Sold, Terms, take
from edge.days import kept, sold
from edge.store.live_socket import socket_path

pytestmark = pytest.mark.benchmark_suite
DAYS = int(os.environ.get("ANALYTICS_DAYS", "90"))
ZONES, JOURNEYS, STOPS, MEMBERS, BADGES = 64, 3_000, 12, 2_000, 40
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    values = store_values(tmp_path_factory.mktemp("days"))
    values["floors"] = [{"id": f"F{n}", "name": f"F{n}"} for n in range(4)]
    values["zones"] = [
        {
            "id": f"z{n}",
            "name": f"z{n}",
            "floor": f"F{n // 16}",
            "kind": "entrance" if n == 0 else "aisle" if n % 8 == 1 else "counter",
            "polygon": [[n * 5, 0], [n * 5 + 4, 0], [n * 5 + 4, 4]],
        }
        for n in range(ZONES)
    ]
    values["readers"] = [
        {
            "id": f"r{n}",
            "driver": "llrp",
            "address": f"10.0.0.{n + 1}",
            "antennas": [{"port": 1, "zone": f"z{n}", "position": [n * 5, 0]}],
        }
        for n in range(ZONES)
    ]
    first = DATE - 35 * kept.DAY
    values["promotions"] = [
        {"id": "p", "name": "P", "first_day": first, "last_day": first + 9 * kept.DAY, "zones": ["z3", "z4"]}
    ]
    values["database"]["quota_mb"] = 4096
    day = Day(StoreConfig.model_validate(values))
    file = day.config.database.path.with_name("store.toml")
    file.write_text(tomli_w.dumps(values), encoding="utf-8")
    for back in range(DAYS):
        _fill(day, back)
    day.watermark("22:30")
    day.conn.execute("DELETE FROM aggregate WHERE window_us >= ?", (day.us("22:30"),))
    made = day.past.make(DATE - kept.DAY)
    for back in range(1, DAYS):
        kept.save(day.conn, day.config, replace(made, date=DATE - back * kept.DAY))
    found = sold.make(day.past, DATE - kept.DAY)
    while (missing := sold.missing(day.past)) is not None:
        sold.save(day.conn, day.config, *missing, found)
    yield day
    day.conn.close()


def _fill(day: Day, back: int) -> None:
    rng = random.Random(back)
    start_us, rows = day.us("10:00") - back * DAY_US, []
    for number in range(JOURNEYS):
        member = number % 20 == 0
        who = rng.randrange(MEMBERS)
        tag = b"m%015d" % who if member else rng.randbytes(16)
        at = journey = start_us + rng.randrange(10 * 3600) * 1_000_000
        for _ in range(STOPS):
            end = at + rng.choice((4, 20, 60, 200)) * 1_000_000
            rows.append((tag, int(member), f"M{who}" if member else None, f"z{rng.randrange(ZONES)}", at, end, journey))
            at = end + 1_000_000
    for _ in range(BADGES):
        tag, at = rng.randbytes(16), start_us
        for _ in range(50):
            rows.append((tag, 3, None, f"z{rng.randrange(ZONES)}", at, at + 700_000_000, start_us))
            at += 700_000_000
    rows.sort(key=lambda row: row[4])
    morning_us = day.us("04:00") - back * DAY_US
    day.conn.execute("BEGIN")
    day.conn.executemany(
        "INSERT INTO visit (tag, tag_class, member, zone, enter_us, exit_us, journey_us, reads, censored, confidence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 9, 0, 0.9)",
        rows,
    )
    day.conn.executemany(
        "INSERT OR REPLACE INTO aggregate VALUES (?, ?, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, x'')",
        [(at, f"z{n}") for at in range(morning_us, morning_us + DAY_US, WINDOW_US) for n in range(ZONES)],
    )
    day.conn.execute("COMMIT")
    hours = [day.us("10:00") - back * DAY_US + h * HOUR_US for h in range(12)]
    tills = [
        Sold(f"z{n}", at, rng.randrange(20), rng.randrange(40), rng.randrange(10**6))
        for at in hours
        for n in range(ZONES)
    ]
    take(day.conn, day.config, tills, Terms(hours[-1] + HOUR_US, "CNY"))


@pytest.mark.parametrize(
    ("ask", "days"),
    [
        *(("counters", days) for days in (1, 7, 28)),
        ("flows", 1),
        ("flows", 7),
        ("tiers", 7),
        ("service", 7),
        ("sales", 28),
    ],
)
def test_answers_over_days(benchmark: Any, day: Day, ask: str, days: int) -> None:
    """With today's visits made into facts anew each time, as after every commit of the service."""
    _measure(benchmark, lambda: getattr(day.past, ask)(DATE, days))


@pytest.mark.parametrize("ask", ["summary", "occupancy", "comparison"])
def test_answers_of_a_day(benchmark: Any, day: Day, ask: str) -> None:
    _measure(benchmark, lambda: getattr(day.past, ask)(DATE))


def test_how_counters_fare(benchmark: Any, day: Day) -> None:
    _measure(benchmark, lambda: day.past.performance(DATE, 28, DATE - 28 * kept.DAY))


def test_promotions(benchmark: Any, day: Day) -> None:
    _measure(benchmark, lambda: day.past.promotions())


OPENED = (
    *(
        "/today",
        "/counters",
        "/counters?days=7",
        "/counters?days=28",
        "/counters?view=trend&days=28",
        "/flows",
        "/flows?days=7",
        "/members",
        "/plan",
        "/plan?days=7&measure=dwell",
        "/plan?days=28&zone=z3",
        "/plan?days=28&measure=per_visit",
        "/plan?measure=change&against=before",
    ),
    *(
        "/service",
        "/service?days=7",
        "/quality",
        "/promotions",
        "/layout",
        "/",
        "/readers",
        "/about",
        "/today?date=2026-03-10",
    ),
    *("/counters?date=2026-02-10", "/export/traffic.csv", "/export/hours.csv", "/api/tables/counters"),
)
OPENS = 500
BUDGET_MIB = 80
SCREENS = 10
SCREENS_S = 10.0


@pytest.fixture
def page_process(day: Day) -> Iterator[tuple[int, int]]:
    """The page as the service starts it: its port and process id."""
    file = day.config.database.path.with_name("store.toml")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-m", "edge.web", "--config", str(file), "--fd", str(listening.fileno())]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()])
        port = listening.getsockname()[1]
    try:
        _open(port, "/about")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def test_pages_opened(benchmark: Any, day: Day, page_process: tuple[int, int]) -> None:
    """500 opens of every page while visits go on being committed: CPU time of each, and memory afterwards."""
    port, pid = page_process
    taken: list[float] = []

    def opens() -> None:
        for number in range(OPENS):
            path = OPENED[number % len(OPENED)]
            if "date=" not in path:
                path += f"{'&' if '?' in path else '?'}date={DATE}"
            if number % len(OPENED) == 0:
                day.visit(f"fresh {number}", "z3", "20:00", 90)
            if number % (5 * len(OPENED)) == 0:  # as the service does every five minutes
                kept.save(day.conn, day.config, day.past.make(DATE), so_far=True)
            before = _cpu_s(pid)
            _open(port, path)
            taken.append(_cpu_s(pid) - before)

    benchmark.pedantic(opens, rounds=1)
    taken.sort()
    benchmark.extra_info["cpu_p95_s"] = taken[int(0.95 * (len(taken) - 1))]
    benchmark.extra_info["rss_mib"] = _rss_mib(pid)
    assert benchmark.extra_info["rss_mib"] <= BUDGET_MIB


def test_ten_wall_screens(benchmark: Any, day: Day, page_process: tuple[int, int]) -> None:
    """What ten open screens cost the page; the service has one listener however many there are."""
    port, pid = page_process

    async def look() -> tuple[float, int]:
        service = Service(socket_path(day.config))
        telling = asyncio.create_task(service.run())
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SCREENS)]
        for _, writer in streams:
            writer.write(b"GET /events?lang=en HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.sleep(3)  # the page finds the service within a second
        before = _cpu_s(pid)
        for step in range(round(SCREENS_S * 2)):
            service.told["zones"][step % 4]["people"] += 1
            await asyncio.sleep(0.5)
        used, listeners = _cpu_s(pid) - before, len(service.server._clients)
        for _, writer in streams:
            writer.close()
        telling.cancel()
        return used / SCREENS_S, listeners

    share, listeners = benchmark.pedantic(lambda: asyncio.run(look()), rounds=1)
    benchmark.extra_info["page_core_share"] = share
    benchmark.extra_info["listeners"] = listeners
    assert listeners == 1


def _open(port: int, path: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, path
        answer.read()


def _cpu_s(pid: int) -> float:
    """CPU time of all threads of a process so far (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _measure(benchmark: Any, ask: Callable[[], Any]) -> None:
    taken = []

    def once() -> None:
        kept._made.clear()
        started = time.process_time()
        ask()
        taken.append(time.process_time() - started)

    benchmark.pedantic(once, rounds=20, warmup_rounds=1)
    taken.sort()
    benchmark.extra_info["cpu_p95_s"] = taken[int(0.95 * (len(taken) - 1))]
