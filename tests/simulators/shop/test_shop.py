"""The shop as a process, the replay files, the lone reader: what the command line gives."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
from brokers import Until
from forked import Forked
from llrpkit.reader import Reader

from config import StoreConfig
from edge.store.clock import Clock
from simulators.readers.llrp import LlrpReader
from simulators.shop.real_time import StoreClock, _Player
from simulators.shop.replays import ORIGIN_US, write_replay
from simulators.shop.score import read_stays
from simulators.shop.world import SimulatedShop
from simulators.shop.worlds import WORLDS, World

ROOT = Path(__file__).parents[3]


async def test_shop_runs_its_readers_and_stops_with_the_truth(demo_file: Path, tmp_path: Path, until: Until) -> None:
    announce, truth, members = tmp_path / "readers.json", tmp_path / "truth.csv", tmp_path / "members.csv"
    origin_us = time.time_ns() // 1000
    with (tmp_path / "out").open("wb") as out:
        shop = Forked(
            *("simulate", "shop", "--config", demo_file, "--shoppers", 20, "--speed", 20, "--origin-us", origin_us),
            *("--announce", announce, "--truth", truth, "--members", members, "--seed", 3),
            out=out,
        )
    try:
        await until(lambda: announce.exists() or shop.poll() is not None)
        addresses = json.loads(announce.read_text())["readers"]
        assert set(addresses) == {
            "f1-doors", "f1-north", "f1-south", "f1-glass", "f2-west", "f2-middle", "f2-east", "f3-west", "f3-east",
        }  # fmt: skip
        assert Path(addresses["f1-glass"]).exists()
        cards = {row["epc"]: row for row in csv.DictReader(members.open())}
        assert {row["consent"] for row in cards.values()} == {"0", "1"}
        host, port = addresses["f1-north"].split(":")
        async with Reader(host, int(port)) as client:
            reports = [report async for report in client.inventory(max_tags=200, duration=20)]
        now_us = StoreClock(20, origin_us)()
        assert len(reports) == 200
        assert {report.antenna for report in reports} <= {1, 2, 3, 4}
        assert all(origin_us < (report.first_seen_us or 0) <= now_us for report in reports)
        assert any(report.epc_hex in cards for report in reports)
    finally:
        shop.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(shop.wait, 10)
    assert code == 0
    summary = json.loads((tmp_path / "out").read_text())
    assert summary["reads"] >= 200
    assert summary["walkers"] >= 10
    stays = read_stays(truth)
    assert {stay.epc for stay in stays} & set(cards)
    assert min(stay.enter_us for stay in stays) >= origin_us
    assert now_us - 60_000_000 < max(stay.exit_us for stay in stays) < StoreClock(20, origin_us)()
    assert not Path(addresses["f1-glass"]).exists()


def test_shop_ends_by_itself_after_its_duration(demo_file: Path, tmp_path: Path) -> None:
    options = ["--config", demo_file, "--shoppers", 2, "--duration", 0.3, "--announce", tmp_path / "a.json"]
    shop = forked.run("simulate", "shop", *options)
    assert shop.returncode == 0
    assert set(json.loads(shop.stdout)) == {"reads", "walkers"}


def test_both_sides_of_a_demo_have_the_same_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_012_345_678_901)
    for speed in (1.0, 0.5, 30.0):
        origin_us = 1_700_000_000_000_000
        assert StoreClock(speed, origin_us)() == Clock(speed, origin_us).now_us()


async def test_an_outage_pulls_the_plug_and_puts_it_back(demo_store: StoreConfig) -> None:
    shop = SimulatedShop(demo_store, WORLDS["mild"], seed=1, shoppers=0, origin_us=0)
    readers = [LlrpReader(lambda: 0, name=str(i)) for i in range(len(demo_store.readers))]
    address = await readers[2].start()
    shop.outages = [(2, 100, 200)]
    player = _Player(shop, readers, StoreClock())

    async def listening() -> Any:
        try:
            _, writer = await asyncio.open_connection(*address.split(":"))
        except ConnectionRefusedError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    seen = []
    for now_us in (50, 150, 180, 250):
        await player._switch(now_us)
        seen.append(await listening())
    assert seen == [True, False, False, True]
    await readers[2].stop()


@pytest.mark.parametrize("name", ["reads.csv", "reads.csv.gz"])
def test_replay_files_depend_on_the_seed_alone(demo_store: StoreConfig, tmp_path: Path, name: str) -> None:
    files = []
    for run in ("one", "two"):
        folder = tmp_path / run
        folder.mkdir()
        n = write_replay(
            demo_store, WORLDS["harsh"], folder / name, folder / "truth.csv", seed=5, minutes=1.25, shoppers=10
        )
        files.append(((folder / name).read_bytes(), (folder / "truth.csv").read_bytes()))
        assert n > 500
    assert files[0] == files[1]


def test_replay_files_hold_rows_in_order_of_arrival(demo_store: StoreConfig, tmp_path: Path) -> None:
    world = World(seed=1, rssi_unknown_share=0.05)
    written = write_replay(demo_store, world, tmp_path / "r.csv", tmp_path / "t.csv", seed=1, minutes=2, shoppers=20)
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert list(rows[0]) == ["time_us", "reader", "antenna", "epc", "rssi_dbm"]
    assert len(rows) == written
    ports = {(reader.id, antenna.port) for reader in demo_store.readers for antenna in reader.antennas}
    assert {(row["reader"], int(row["antenna"])) for row in rows} <= ports
    times = [int(row["time_us"]) for row in rows]
    assert min(times) >= ORIGIN_US
    assert max(times) <= ORIGIN_US + 120_000_000
    newest, late = 0, []
    for t in times:
        newest = max(newest, t)
        late.append(newest - t)
    assert 0.1 < sum(x > 0 for x in late) / len(late) < 0.35
    assert max(late) <= 250_000
    rssi = [row["rssi_dbm"] for row in rows]
    assert 0.01 < rssi.count("") / len(rssi) < 0.1
    assert all(-80 < float(value) < -20 for value in rssi if value)
    stays = read_stays(tmp_path / "t.csv")
    assert min(s.enter_us for s in stays) == ORIGIN_US
    assert max(s.exit_us for s in stays) <= ORIGIN_US + 120_000_000


def test_command_line_writes_and_scores(demo_file: Path, tmp_path: Path) -> None:
    reads, truth = tmp_path / "reads.csv.gz", tmp_path / "truth.csv"
    options = ["--config", str(demo_file), "--minutes", "1", "--shoppers", "5", "--world", "mild", "--seed", "4"]
    made = forked.run("simulate", "reads", *options, "--reads", reads, "--truth", truth)
    assert made.returncode == 0, made.stderr
    assert "reads written to" in made.stdout
    judged = forked.run("simulate", "score", "--truth", truth, "--visits", truth, "--json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["f1"] == 1
    (tmp_path / "no.csv").write_text("x\n")
    wrong = forked.run("simulate", "score", "--truth", truth, "--visits", tmp_path / "no.csv")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("tagtrail: ")
    assert "no column enter_us, epc, exit_us, zone" in wrong.stderr


async def test_lone_reader_is_there_for_any_client(tmp_path: Path, until: Until) -> None:
    said = tmp_path / "out"
    with said.open("wb") as out:
        reader = Forked("simulate", "reader", "--port", 0, "--tags", 3, "--rate", 200, out=out)
    try:
        await until(lambda: "\n" in said.read_text())
        host, port = said.read_text().splitlines()[0].split()[-1].split(":")
        async with Reader(host, int(port)) as client:
            reports = [report async for report in client.inventory(max_tags=30, duration=20)]
        assert len({report.epc for report in reports}) == 3
    finally:
        reader.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(reader.wait, 10)
    assert code == 0


async def test_a_port_in_use_is_told_in_a_line() -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader = await asyncio.to_thread(forked.run, "simulate", "reader", "--port", port)
    server.close()
    await server.wait_closed()
    assert reader.returncode == 1
    assert reader.stderr.count("\n") == 1
    assert str(port) in reader.stderr


def test_commands_load_nothing_heavy() -> None:
    heavy = "{'numpy', 'numba', 'pydantic', 'llrpkit', 'rich.progress', 'asyncio'}"
    code = f"import sys, simulators.cli; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
