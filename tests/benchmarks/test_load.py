"""The whole service under load: readers on real TCP, a broker and a CRM, each a process; CPU, memory, delay, losses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from brokers import CrmProcess
from gateways import WAIT_S, Gateway

from config.tags import gsrn96
from simulators.headquarters.broker import NatsBroker

READERS, RATE, SECONDS = 64, 1_000, 60
MIXED = "40,16,8"
"""LLRP, pushed JSON and serial readers."""
RATES, RATE_SECONDS = (0, 250, 500, 750), 20
ZONES = 200
TAGS = 5_000
RULES = {
    "rules": [
        {"id": "vip", "kind": "arrival", "tiers": ["B"]},
        {"id": "vip-waits", "kind": "waiting", "tiers": ["B"], "wait_s": 10},
    ]
}
"""Who comes in while it is measured is of tier B."""
CPU_BUDGET, RSS_BUDGET_MIB, P99_BUDGET_MS = 0.25, 220, 300


def store(entries: dict[str, dict[str, str]]) -> dict[str, Any]:
    """200 counters of 5 × 5 m in rows, 256 antennas over them."""
    zones: list[dict[str, Any]] = [
        {
            "id": f"z{n}",
            "name": f"z{n}",
            "kind": "counter" if n else "entrance",
            "floor": f"F{n // 50}",
            "polygon": [[x, y], [x + 5, y], [x + 5, y + 5], [x, y + 5]],
        }
        for n in range(ZONES)
        for x, y in [(6 * (n % 50 % 10), 6 * (n % 50 // 10))]
    ]
    readers = []
    for r, (id_, entry) in enumerate(entries.items()):
        ports = []
        for port in range(1, 5):
            zone = zones[(4 * r + port - 1) % ZONES]
            x, y = zone["polygon"][0]
            ports.append({"port": port, "zone": zone["id"], "position": [x + 2.5, y + 2.5]})
        readers.append({"id": id_, "driver": "llrp", "antennas": ports} | entry)
    floors = [{"id": f"F{n}", "name": f"F{n}"} for n in range(4)]
    return {"floors": floors, "zones": zones, "readers": readers, "cues": RULES}


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> tuple[int, int]:
    """At rest, and at the peak since the start."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss, peak = (next(x for x in lines if x.startswith(name)).split()[1] for name in ("VmRSS", "VmHWM"))
    return int(rss) // 1024, int(peak) // 1024


@pytest.mark.benchmark_suite
async def test_load(tmp_path: Path, nats: NatsBroker, until: Any, record_property: Any, capsys: Any) -> None:
    figures = await under_load(tmp_path, nats, until, RATE, SECONDS)
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print("\n" + json.dumps(figures))
    assert figures["reads_counted"] == figures["reads_sent"]


@pytest.mark.benchmark_suite
async def test_mixed_load(tmp_path: Path, nats: NatsBroker, until: Any, record_property: Any, capsys: Any) -> None:
    figures = await under_load(tmp_path, nats, until, RATE, SECONDS, MIXED)
    record_property("mixed_load", json.dumps(figures))
    with capsys.disabled():
        print("\n" + json.dumps(figures))
    assert figures["reads_counted"] == figures["reads_sent"]


@pytest.mark.benchmark_suite
async def test_rates(tmp_path: Path, nats: NatsBroker, until: Any, record_property: Any, capsys: Any) -> None:
    """What a read and an idle reader cost, and up to which rate nothing is lost and nobody waits."""
    points = []
    for rate in RATES:
        (tmp_path / str(rate)).mkdir()
        figures = await under_load(tmp_path / str(rate), nats, until, rate, RATE_SECONDS)
        points.append({"rate": rate} | figures)
        with capsys.disabled():
            print("\n" + json.dumps(points[-1]))
    record_property("rates", json.dumps(points))
    assert all(point["reads_counted"] == point["reads_sent"] for point in points)


async def under_load(
    folder: Path, nats: NatsBroker, until: Any, rate: int, seconds: int, readers: str = str(READERS)
) -> dict[str, Any]:
    """The service with so many reads a second from each reader; at 0 they only stay connected."""
    gateway = Gateway(folder)
    announce = folder / "readers.json"
    assert gateway.run("warmup", within_s=300).returncode == 0
    script = Path(__file__).with_name("load_readers.py")
    shop = subprocess.Popen(
        [sys.executable, str(script), readers, str(rate), str(seconds), str(announce)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    crm = CrmProcess(folder, nats.url)
    try:
        await until(announce.exists, within_s=WAIT_S)
        database = {"path": str(gateway.database), "checkpoint_s": 5.0}
        gateway.configure(mqtt={"url": nats.url}, database=database, **store(json.loads(announce.read_text())))
        cards = "".join(
            f"{gsrn96('0614141', n).hex()},M{n},{'A' if n < TAGS else 'B'},1,\n" for n in range(TAGS + SECONDS + 10)
        )
        (folder / "members.csv").write_text("epc,member,tier,consent,hint\n" + cards)
        assert gateway.run("directory", "import", str(folder / "members.csv"), "-c", str(gateway.file)).returncode == 0
        await crm.start()
        await until(crm.ready, within_s=WAIT_S)
        gateway.start("--no-web", cold=True)  # a fork has the memory of these tests, too
        state = await gateway.until(lambda s: all(r["link"] == "up" for r in s["readers"]))
        # The first seconds announce 5,000 members at once; measured is what follows.
        if rate:
            await gateway.until(lambda s: s["recognised"] >= TAGS and s["outbox"]["member"]["pending"] == 0)
        pid, loop = state["pid"], asyncio.get_running_loop()
        used_s, began_s = cpu_s(pid), loop.time()
        result = json.loads(await asyncio.to_thread(shop.stdout.readline))
        share = (cpu_s(pid) - used_s) / (loop.time() - began_s)
        memory, peak = memory_mib(pid)
        state = await gateway.until(lambda s: s["reads"] >= result["sent"])
        cues = state["cues"]["took_ms"]
        await gateway.until(lambda s: s["outbox"]["member"]["pending"] == 0)
        latencies = sorted(seen["ms"] for seen in json.loads((folder / "crm.json").read_text())["recognitions"])
        assert gateway.end() == 0
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.end(signal.SIGKILL)
        if shop.stdin is not None:
            shop.stdin.close()
        shop.wait(30)
        await crm.close()
    return {
        "reads_sent": result["sent"],
        "reads_counted": state["reads"],
        "kept_back": result["kept_back"],
        "seconds": result["seconds"],
        "late": state["counters"]["late"],
        "core": round(share, 3),
        "rss_mib": memory,
        "peak_mib": peak,
        "last_recognitions_ms": latencies,
        "cues": cues["arrival"]["n"],
        "cue_p95_ms": cues["arrival"]["p95"],
        "waiting_cue_p95_ms": cues["waiting"]["p95"],
        "generator_behind_s": result["behind_s"],
    }
