"""Put the figures of a run into docs/benchmarks.md: `report.py bench.json bench.xml`. Run by `make bench`.

bench.xml (what tests recorded as properties) is merged into bench.json. In the document, blocks between
`<!-- name -->` and `<!-- end -->` are replaced; those that this run has no figures for stay as they are.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import statistics
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCUMENT, PLOT = ROOT / "docs/benchmarks.md", ROOT / "docs/engine-speed.svg"
Run = dict[str, Any]


def main(bench: Path, properties: Path) -> None:
    # Without a timing in it, a run of a part leaves no bench.json.
    run = json.loads(bench.read_text("utf-8")) if bench.exists() else {"benchmarks": []}
    told: dict[str, list[Any]] = {}
    for each in ElementTree.parse(properties).getroot().iter("property"):
        name, text = each.attrib["name"], each.attrib["value"]
        told.setdefault(name, []).append(_value(text))
    run["properties"] = told
    bench.write_text(json.dumps(run, indent=1), "utf-8")
    document = DOCUMENT.read_text("utf-8")
    for name, block in BLOCKS.items():
        if text := block(run):
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            if not pattern.search(document):
                raise ValueError(f"{DOCUMENT} has no block {name!r}")
            document = pattern.sub(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", document)
    DOCUMENT.write_text(document, "utf-8")
    if "sweep" in told:
        PLOT.write_text(plot(told["sweep"]), "utf-8")


SHARES = ("f1", "precision", "recall", "dwell_wape", "zone_dwell_wape", "right_zone_share", "path_similarity")
AXES = {"zones": "zones, 4 antennas each", "tags": "tags present", "reads": "reads a second and tag"}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def mean_of(result: dict[str, Any], *names: str) -> list[str]:
    return [f"{result[name]:.3f}" for name in names]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def whole(run: Run) -> bool:
    """A run of a part (ARGS) says nothing of the others' budgets."""
    return {"accuracy", "sweep", "core"} <= run["properties"].keys()


def machine(run: Run) -> str:
    if not whole(run):
        return ""
    cpu = run["machine_info"].get("cpu", {})
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    date = dt.datetime.fromisoformat(run["datetime"]).date()
    sllurp = next(b["extra_info"]["reports_per_s"] for b in run["benchmarks"] if b["name"] == "test_decode[sllurp-32]")
    loads = run["properties"]["load"]
    return (
        f"{date}: {cpu.get('brand_raw', platform.processor())}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}. "
        f"Load average when a timing began: {statistics.median(loads):.1f} in the median, {max(loads):.1f} at most "
        "(the benchmark before it makes about 1). "
        f"As a yardstick for rates, sllurp decodes {sllurp / 1e3:.0f} k reports/s."
    )


def budgets(run: Run) -> str:
    rows: list[tuple[str, str, str, bool]] = []

    def add(what: str, budget: str, value: float | None, text: str, met: bool) -> None:
        if value is not None:
            rows.append((what, budget, text, met))

    def extra(name: str, key: str) -> float | None:
        return next((b["extra_info"].get(key) for b in run["benchmarks"] if b["name"] == name), None)

    told = run["properties"]
    if not whole(run):
        return ""

    def one(key: str) -> Any:
        return told[key][-1] if key in told else None

    if (ratio := extra("test_ratio_to_sllurp[32]", "ratio_to_sllurp")) is not None:
        add("LLRP decode, 32 reports a message", "≥ 300 × sllurp", ratio, f"{ratio:.0f} ×", ratio >= 300)
    if (rate := extra("test_decode[ours-32]", "reports_per_s")) is not None:
        add("LLRP decode", "≥ 25 M reports/s", rate, f"{rate / 1e6:.0f} M/s", rate >= 25e6)
    if pushed := pushed_rates(run):
        profile, rate = min(pushed.items(), key=lambda item: item[1])
        add("pushed JSON, bytes to reads", "≥ 200 k reads/s", rate, f"{rate / 1e3:.0f} k/s ({profile})", rate >= 2e5)
    if (us := extra("test_full_load", "tag_second_us")) is not None:
        worst = extra("test_full_load", "worst_ms") or 0
        text = f"{us:.1f} µs a tag-second"
        add("engine, 200 zones, 800 antennas, 5,000 tags, mean", "≤ 8 µs a tag-second", us, text, us <= 8.0)
        add("… worst second", "≤ 60 ms", worst, f"{worst:.0f} ms", worst <= 60)
    if (ms := extra("test_silence", "ms")) is not None:
        worst = extra("test_silence", "worst_ms") or 0
        add("one second of silence, 5,000 tags", "≤ 5 ms", ms, f"{ms:.2f} ms (worst {worst:.1f})", ms <= 5)
    if (us := extra("test_one_read_a_call", "us")) is not None:
        add("engine, a call with one read", "< 5 µs", us, f"{us:.1f} µs", us < 5)
    if (size := extra("test_full_load", "tag_bytes")) is not None:
        add("engine, state of a tag", "≤ 16 KiB", size, f"{size:,} bytes", size <= 16_384)
    if rates := drains(run):
        rate = min(rates.values())
        add("outbox drain, CRM acknowledging", "≥ 10 k events/s", rate, f"{rate:,.0f}/s", rate >= 1e4)
    if (share := extra("test_slow_line", "kbit_16")) is not None:
        add("… of a line of 16 kbit/s, fresh events", "≥ 80 %", share, f"{share:.0%}", share >= 0.8)
    if (rate := extra("test_ingest", "postgresql_1")) is not None:
        add("the CRM's book in PostgreSQL, one event a batch", "≥ 5 k events/s", rate, f"{rate:,.0f}/s", rate >= 5000)
    if (mb := extra("test_flash", "mb_per_1000_windows")) is not None:
        mixed = extra("test_flash", "mb_per_1000_hundred") or 0
        text = f"{mb:.2f} MB (windows, 100 a commit), {mixed:.2f} MB (all classes)"
        add("written to flash per 1,000 events", "≤ 2 MB", mb, text, mixed <= 2)
    if (apply_s := extra("test_directory", "apply_s")) is not None:
        text = f"{apply_s:.1f} s ({extra('test_directory', 'apply_cpu_s'):.1f} s of a core)"
        add("directory of 1 M members applied", "≤ 10 s", apply_s, text, apply_s <= 10)
        us = extra("test_directory", "look_up_us") or 0
        add("… look-up", "≤ 50 µs", us, f"{us:.0f} µs", us <= 50)
    if (core := one("core")) is not None:
        behind = one("generator_behind_s")
        text = f"{core:.0%}" + " at less than that load" * (behind > 1)
        add("service, 64 readers × 1,000 reads/s over TCP", "≤ 20 % of a core", core, text, core <= 0.2 and behind <= 1)
        lost = one("reads_sent") - one("reads_counted")
        add("… reads lost", "none", lost, f"{lost:,} of {one('reads_sent'):,}", lost == 0)
        add("… readers behind their plan, at worst", "≤ 1 s", behind, f"{behind:.1f} s", behind <= 1)
        add("… memory at its peak", "≤ 220 MiB", one("peak_mib"), f"{one('peak_mib')} MiB", one("peak_mib") <= 220)
    if latencies := one("last_recognitions_ms"):
        p99 = latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))]
        text = f"{p99:.0f} ms (median {latencies[len(latencies) // 2]:.0f}, of the last {len(latencies)})"
        add("… wire → recognition at an MQTT subscriber, p99", "≤ 300 ms", p99, text, p99 <= 300)
    if mixed := one("mixed_load"):
        core, peak = mixed["core"], mixed["peak_mib"]
        what = "service, 40 LLRP, 16 JSON and 8 serial readers × 1,000 reads/s"
        add(what, "≤ 20 % of a core", core, f"{core:.0%}", core <= 0.2 and mixed["generator_behind_s"] <= 1)
        add("… memory at its peak", "≤ 220 MiB", peak, f"{peak} MiB", peak <= 220)
    if (ratio := one("ratio")) is not None:
        add("reads through a forwarder, CPU", "≤ 1.3 × direct", ratio, f"{ratio:.2f} ×", ratio <= 1.3)
    if "cue_p95_ms" in told and (p95 := one("cue_p95_ms")) is not None:
        waits = one("waiting_cue_p95_ms")
        text = f"{p95:.0f} ms (n = {one('cues')})" + (f"; a wait {waits:.0f} ms" if waits is not None else "")
        add("… read → cue of an arrival, p95", "≤ 3 s, aim 300 ms", p95, text, p95 <= 3000)
    answers = [b["extra_info"]["cpu_p95_s"] for b in run["benchmarks"] if b["name"].startswith("test_answers_")]
    if answers:
        add(
            "an answer over 90 days, CPU, p95 of the slowest",
            "≤ 300 ms",
            max(answers),
            f"{max(answers) * 1e3:.0f} ms",
            max(answers) <= 0.3,
        )
    if (cpu := extra("test_pages_opened", "cpu_p95_s")) is not None:
        rss, screens = (
            extra("test_pages_opened", "rss_mib") or 0,
            extra("test_ten_wall_screens", "page_core_share") or 0,
        )
        add("page, 90 days of a store with 64 readers, CPU, p95", "≤ 100 ms", cpu, f"{cpu * 1e3:.0f} ms", cpu <= 0.1)
        add("… memory after 500 opens", "≤ 80 MiB", rss, f"{rss:.1f} MiB", rss <= 80)
        add("… ten wall screens, of the page's core", "≤ 10 %", screens, f"{screens:.1%}", screens <= 0.1)
    chained = of_chain(run)
    if sunk := chained.get("rates"):
        alone = sunk["1 sinks"]
        for batch, least in (("1", 10_000), ("10", 40_000)):
            what = f"chain's sink with its log, events/s into PostgreSQL, {batch} a batch"
            add(what, f"≥ {least / 1e3:.0f} k", alone[batch], f"{alone[batch]:,}", alone[batch] >= least)
    if (seen := chained.get("recognitions")) is not None:
        p99 = seen["p99_ms"]
        add("… a recognition behind 250,000 events, p99", "≤ 100 ms", p99, f"{p99:.0f} ms", p99 <= 100)
    for what, budget, value, met in errors_beside_peers(told):
        add(what, budget, value, f"{value:.2f}" if isinstance(value, float) else str(value), met)
    for case in told.get("accuracy", ()):
        what = f"errors of visits, {case['layout']}, {case['world']}, out of the box"
        add(what, "≤ 1 × best peer", case["ratio"], f"{case['ratio']:.2f} ×", case["ratio"] <= 1)
    return table(("what", "budget", "measured", ""), [(*row[:3], "met" if row[3] else "**not met**") for row in rows])


SECONDS_RIGHT = {"quadrants": 0.8, "tracks": 0.88}
"""Goals, by what is judged; that of others is their best peer."""


def errors_beside_peers(told: dict[str, list[Any]]) -> list[tuple[str, str, float, bool]]:
    """Budgets of drawn shops, rooms and tracks."""
    rows: list[tuple[str, str, float, bool]] = []
    if shops := told.get("drawn"):
        ratios = {name: [it["rules"][name]["ratio"] for it in shops] for name in COLUMNS}
        median, worst = statistics.median(ratios["learnt"]), max(ratios["learnt"])
        early, box = max(ratios["first2"]), max(ratios["engine"])
        more = sum(it["rules"]["learnt"]["dwell"] >= it["peer"]["dwell"] for it in shops)
        ghosts = sum(it["rules"]["learnt"]["ghosts"] for it in shops)
        cost = max(it["cost"] for it in shops)
        rows += [
            ("errors of visits, drawn shops, learnt, median", "≤ 0.25 × best peer", median, median <= 0.25),
            ("… worst", "≤ 0.45 × best peer", worst, worst <= 0.45),
            ("… learnt from two minutes, worst", "≤ 0.6 × best peer", early, early <= 0.6),
            ("… out of the box, worst", "≤ 1 × best peer", box, box <= 1),
            ("… shops with more dwell error than the best peer", "none", more, more == 0),
            ("… ghosts", "none", ghosts, ghosts == 0),
            ("… F1 that learning costs in a case, at most", "≤ 0.005", cost, cost <= 0.005),
        ]
    for it in told.get("seconds_right", ()):
        goal = next((share for what, share in SECONDS_RIGHT.items() if it["what"].startswith(what)), None)
        least = goal or max(it["peers"].values())
        wanted = f"≥ {goal}" if goal else f"≥ {least:.2f}, the best peer's"
        rows.append((f"seconds right, {it['what']}", wanted, it["learnt"], it["learnt"] >= least))
    for room in told.get("recorded", ()):
        f1 = room["rows"][1]["f1"]
        rows.append((f"F1, body-worn, room {room['room']}", "≥ 0.85", f1, f1 >= 0.85))
    return rows


def load(run: Run) -> str:
    if not (told := run["properties"].get("rates")):
        return ""
    points = told[-1]
    rows = []
    for point in points:
        per_s = point["reads_sent"] / point["seconds"]
        fine = point["kept_back"] == 0 and point["generator_behind_s"] <= 1 and point["late"] == 0
        rows.append((f"{per_s:,.0f}", f"{point['core']:.1%}", f"{point['rss_mib']} MiB", "yes" if fine else "no"))
    idle, *busy = points
    low, high = busy[0], busy[-1]
    more = high["reads_sent"] / high["seconds"] - low["reads_sent"] / low["seconds"]
    cost = (high["core"] - low["core"]) / more * 1e6
    cell = table(("reads a second", "of a core", "memory", "nothing late, kept back or behind"), rows)
    each = idle["core"] / 64 * 1e3
    return f"{cell}\n\nA read costs {cost:.1f} µs of a core, an idle reader {each:.2f} ms of it a second."


def drains(run: Run) -> dict[str, float]:
    """Broker → events a second."""
    found = [b["extra_info"] for b in run["benchmarks"] if b["name"].startswith("test_drain[")]
    return {each["broker"].removesuffix("Broker"): each["events_per_s"] for each in found}


def sync(run: Run) -> str:
    found = {b["name"]: b["extra_info"] for b in run["benchmarks"]}
    rows = [(f"drain over {broker}", f"{rate:,.0f} events/s") for broker, rate in drains(run).items()]
    if lines := found.get("test_slow_line"):
        told = ", ".join(f"{lines[f'kbit_{kbit}']:.0%}" for kbit in (16, 32, 64))
        rows.append(("fresh events, plain, of a line of 16, 32, 64 kbit/s", told))
    if ingest := found.get("test_ingest"):
        for book, name in (("postgresql", "PostgreSQL"), ("sqlite", "SQLite")):
            told = ", ".join(f"{ingest[f'{book}_{n}']:,}" for n in (1, 10, 100))
            rows.append((f"the CRM's book in {name}, events/s at 1, 10, 100 a batch", told))
    if waits := found.get("test_recognitions_behind_a_backlog"):
        told = f"{waits['p50_ms']} ms, p99 {waits['p99_ms']} ms"
        rows.append(("recognition at the CRM while 100 stores drain 1,000 windows each, median", told))
    if flash := found.get("test_flash"):
        sizes = ", ".join(f"{flash[f'mb_per_1000_{name}']} MB" for name in ("one", "ten", "hundred", "windows"))
        rows.append(("written per 1,000 events: 1, 10, 100 a commit; 100 windows a commit", sizes))
    if day := found.get("test_flash_of_a_day"):
        told = f"{day['hour_mb']} MB; {day['day_mb']:,} MB in 12 h"
        rows.append((f"written by the service in an hour with 240 members ({day['events']} events)", told))
    if storm := found.get("test_storm"):
        rows.append((f"{storm['stores']:,} stores connected after the broker's end", f"{storm['connected_s']} s"))
        rows.append(("… and all but the newest events acknowledged", f"{storm['settled_s']} s"))
    if directory := found.get("test_directory"):
        applied = f"{directory['apply_s']} s, {directory['apply_cpu_s']} s of a core"
        rows.append(("directory of 1 M members applied", applied))
        rows.append(("… look-up", f"{directory['look_up_us']} µs"))
        rows.append(("… look-ups meanwhile, p99", f"{directory['wait_p99_ms']} ms"))
    if not rows:
        return ""
    text = table(("sync", "measured"), rows)
    if packing := found.get("test_packing"):
        columns = list(zip(*packing["rows"], strict=True))
        packed = [("plain, bytes", *(f"{n:,}" for n in columns[1])), ("packed, bytes", *(f"{n:,}" for n in columns[2]))]
        packed.append(("packing, µs", *columns[3]))
        text += "\n\n" + table(("events in a batch", *columns[0]), packed)
    return text


def decode(run: Run) -> str:
    rates = {
        b["name"]: b["extra_info"].get("reports_per_s") for b in run["benchmarks"] if b["name"].startswith("test_dec")
    }
    rows = [
        (codec, *(f"{(rates.get(f'test_decode[{codec}-{n}]') or 0) / 1e3:,.0f}" for n in (1, 32)))
        for codec in ("ours", "sllurp", "llrpkit")
    ]
    text = table(("decoder", "k reports/s, 1 a message", "32 a message"), rows) if rates else ""
    if pushed := pushed_rates(run):
        columns = [(profile, f"{rate / 1e3:,.0f}") for profile, rate in pushed.items()]
        text += "\n\n" + table(("pushed JSON, 64 KB at a time", "k reads/s"), columns)
    return text


def pushed_rates(run: Run) -> dict[str, float]:
    """Reads a second by profile."""
    return {
        b["name"][len("test_pushed_json[") : -1]: b["extra_info"]["reads_per_s"]
        for b in run["benchmarks"]
        if b["name"].startswith("test_pushed_json[")
    }


def engine(run: Run) -> str:
    told = run["properties"]
    if "rules" not in told:
        return ""
    rules = told["rules"][-1]
    rows = [(name, f"{rate / 1e6:,.2f}") for name, rate in rules["reads_per_s"].items()]
    rows.append(("dense reference (tests/support/dense.py)", f"{rules['dense_per_s'] / 1e6:,.4f}"))
    text = table(("the demo's store, half an hour", "M reads/s"), rows)
    for sweep in told.get("sweep", ()):
        head = (sweep["what"], *(f"{value:,}" for value, _, _ in sweep["points"]))
        text += "\n\n" + table(head, [("M reads/s, median second", *(f"{m / 1e6:.2f}" for _, m, _ in sweep["points"]))])
    return text


def accuracy(run: Run) -> str:
    rows = []
    for case in run["properties"].get("accuracy", ()):
        for result in case["rows"]:
            own = result["rule"] == "Tagtrail"
            name = f"{result['rule']}, {result['timeout_s']} s" if "timeout_s" in result else "**Tagtrail**"
            where = f"{case['layout']}, {case['world']}" if own else ""
            ratio = f"**{case['ratio']:.2f}**" if own else ""
            columns = (
                "f1",
                "precision",
                "recall",
                "dwell_wape",
                "zone_dwell_wape",
                "right_zone_share",
                "path_similarity",
            )
            rows.append((where, name, *mean_of(result, *columns), ratio))
    head = ("layout, world", "rule", "F1", "precision", "recall", "dwell WAPE", "zone dwell WAPE", "right zone")
    return table((*head, "paths", "ratio"), rows) if rows else ""


def calibration(run: Run) -> str:
    rows = []
    for case in run["properties"].get("calibration", ()):
        before, after = case["rows"]
        pairs = [
            f"{before[n]:.3f} → {after[n]:.3f}" for n in ("f1", "dwell_wape", "right_zone_share", "path_similarity")
        ]
        seeds = ", ".join(f"{b:.3f} → {a:.3f}" for b, a in case["f1"])
        rows.append((f"{case['layout']}, {case['world']}", *pairs, seeds))
    head = ("layout, world", "F1", "dwell WAPE", "right zone", "paths", "F1 seed by seed")
    return table(head, rows) if rows else ""


def recorded(run: Run) -> str:
    rows = []
    for room in run["properties"].get("recorded", ()):
        for n, each in enumerate(room["rows"]):
            shares = mean_of(each, "f1", "precision", "recall", "dwell_wape", "right_zone_share")
            rows.append(
                (f"{room['room']}, {each['true_visits']} true" if n == 0 else "", each["rule"], each["visits"], *shares)
            )
    head = ("room", "rule", "visits", "F1", "precision", "recall", "dwell WAPE", "right zone")
    return table(head, rows) if rows else ""


def seconds(run: Run) -> str:
    rows = []
    for each in run["properties"].get("seconds_right", ()):
        best = max(each["peers"], key=each["peers"].get)
        grids = f"{each['grids']:.3f}" if "grids" in each else "–"
        box, learnt, knowing = mean_of(each, "box", "learnt", "knowing")
        rows.append((each["what"], box, learnt, grids, knowing, f"{best} {each['peers'][best]:.3f}"))
    head = ("seconds in the right zone", "out of the box", "learnt", "… on seven grids", "with hindsight", "best peer")
    return table(head, rows) if rows else ""


COLUMNS = {"engine": "out of the box", "first2": "first 2 min", "learnt": "learnt"}


def drawn(run: Run) -> str:
    """A shop a row: errors beside the best peer's, dwell and seconds; median and worst below."""
    shops = sorted(run["properties"].get("drawn", ()), key=lambda shop: shop["shop"])
    if not shops:
        return ""
    rows, errors = [], []
    for it in shops:
        zones = f"{min(it['zones'])}–{max(it['zones'])}" + ", two floors" * (it["floors"] > 1)
        ratios = [it["rules"][name]["ratio"] for name in COLUMNS] + [it["oracle"]["ratio"]]
        errors.append(ratios)
        learnt, peer = it["rules"]["learnt"], it["peer"]
        dwell, right = (f"{learnt[name]:.3f} / {peer[name]:.3f}" for name in ("dwell", "right"))
        rows.append((
            it["shop"], zones + ("" if it["aisles"] else ", no aisles"), f"{peer['name']} {peer['f1']:.3f}",
            f"{learnt['f1']:.3f}", *(f"{ratio:.2f}" for ratio in ratios), dwell, right, learnt["ghosts"],
        ))  # fmt: skip
    for name, of in (("median", statistics.median), ("worst", max)):
        rows.append(
            ("", f"**{name}**", "", "", *(f"**{of(column):.2f}**" for column in zip(*errors, strict=True)), *[""] * 3)
        )
    head = (
        "shop",
        "zones",
        "best peer, F1",
        "F1",
        *COLUMNS.values(),
        "oracle",
        "dwell / peer",
        "seconds right / peer",
        "ghosts",
    )
    text = table(head, rows)
    means = ", ".join(
        f"{name} {statistics.mean(it['peers'][name]['f1'] for it in shops):.3f}" for name in shops[0]["peers"]
    )
    learnt_s = max(it["rules"]["learnt"]["learnt_s"] for it in shops)
    return f"{text}\n\nMean F1 of the peers: {means}. Learning took at most {learnt_s:.0f} s of CPU a shop."


def of_chain(run: Run) -> dict[str, Any]:
    """What the chain's benchmarks told, together."""
    told: dict[str, Any] = {}
    for each in run["properties"].get("chain", ()):
        told |= each
    return told


def chain(run: Run) -> str:
    told = of_chain(run)
    parts = []
    if "rates" in told:
        batches = list(next(iter(told["rates"].values())))
        rows = [(name, *(f"{by[batch]:,}" for batch in batches)) for name, by in told["rates"].items()]
        parts.append(table(("events/s at a batch of", *batches), rows))
    if "costs" in told:
        batches = list(next(iter(told["costs"].values())))
        rows = [(name, *by.values()) for name, by in told["costs"].items()]
        parts.append(table(("CPU, µs an event at a batch of", *batches), rows))
    if (seen := told.get("recognitions")) is not None:
        parts.append(
            f"Recognitions behind {seen['backlog']:,} windows, which took {seen['drained_s']} s: sent to acknowledged"
            f" in {seen['p50_ms']} ms (p50), {seen['p99_ms']} ms (p99), n = {seen['n']}."
        )
    if (storms := told.get("storm")) is not None:
        rows = [
            (name, f"{one['connected']:,}", f"{one['per_s']:,}/s", f"{one['p99_ms']:,} ms", f"{one['mib']} MiB")
            for name, one in zip(("at once", "again, after a kill"), storms, strict=True)
        ]
        parts.append(table(("stores on one Mosquitto", "connected", "rate", "p99", "memory"), rows))
    return "\n\n".join(parts)


BLOCKS: dict[str, Callable[[Run], str]] = {
    "machine": machine,
    "budgets": budgets,
    "decode": decode,
    "engine": engine,
    "accuracy": accuracy,
    "calibration": calibration,
    "drawn": drawn,
    "seconds": seconds,
    "recorded": recorded,
    "sync": sync,
    "load": load,
    "chain": chain,
}

WIDE, HIGH, LEFT, TOP, GAP = 250, 170, 46, 30, 30


def plot(sweeps: Sequence[dict[str, Any]]) -> str:
    """Three panels: microseconds a read by zones, tags and reads; logarithmic to the right."""
    worst = max(1e6 / median for sweep in sweeps for _, median, _ in sweep["points"])
    top = next(step * 10**k for k in range(-1, 5) for step in (1, 2, 5) if step * 10**k >= worst)
    width = LEFT + len(sweeps) * (WIDE + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HIGH + 40}" font-family="sans-serif" '
        'font-size="11" fill="#333">',
        f'<rect width="{width}" height="{TOP + HIGH + 40}" fill="white"/>',
    ]
    for n, sweep in enumerate(sweeps):
        left, points = LEFT + n * (WIDE + GAP), sweep["points"]
        for k in range(5):
            y = TOP + HIGH - HIGH * k / 4
            parts.append(f'<path d="M{left} {y:.1f}h{WIDE - 10}" stroke="#ddd"/>')
            if n == 0:
                parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{top * k / 4:g}</text>')
        line = []
        for k, (value, median, _) in enumerate(points):
            x, y = left + 15 + (WIDE - 40) * k / (len(points) - 1), TOP + HIGH - HIGH * (1e6 / median) / top
            line.append(f"{x:.1f},{y:.1f}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6f8b"/>')
            parts.append(f'<text x="{x:.1f}" y="{TOP + HIGH + 16}" text-anchor="middle">{value:,}</text>')
        parts.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="#1f6f8b" stroke-width="2"/>')
        name = AXES[sweep["what"]]
        parts.append(f'<text x="{left + WIDE / 2}" y="{TOP + HIGH + 33}" text-anchor="middle">{name}</text>')
    parts.append('<text x="8" y="16" font-size="12">µs a read</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
