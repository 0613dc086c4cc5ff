"""What the demo makes of its store file."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from config import StoreConfig
from config.check import load
from edge.store.calendar import hours
from simulators.demo import chain, view
from simulators.demo.run import Options, _Demo, _opening


@pytest.mark.parametrize("time", ["12:44", "00:00", "03:59", "04:00", "23:59"])
def test_the_shop_is_open_from_the_demos_start_to_the_days_end(demo_store: StoreConfig, time: str) -> None:
    now = dt.datetime.fromisoformat(f"2026-03-14T{time}").replace(tzinfo=ZoneInfo(demo_store.store.timezone))
    values = demo_store.model_dump(by_alias=True, exclude_unset=True)
    config = StoreConfig.model_validate({**values, "special_days": [_opening(now)]})
    date = (now - dt.timedelta(hours=4)).date()
    open_ = hours(config, "F1", date)
    now_us = round(now.timestamp() * 1e6)
    assert 0 <= now_us - open_.open_us < 900_000_000
    following = hours(config, "F1", date + dt.timedelta(days=1))
    assert open_.close_us == following.open_us, "and on the next day the whole of it"
    assert following.close_us - following.open_us == 86_400_000_000


def test_what_a_chain_lacks_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in (("Mosquitto", None), ("PostgreSQL", "/usr/sbin/mosquitto")):
        with monkeypatch.context() as patched:
            patched.setattr(chain.shutil, "which", lambda *_, found=found, **__: found)
            patched.setattr(chain, "tool", lambda _: None)
            assert name in str(chain.missing())


def test_the_demo_keeps_the_tiers_colours_of_its_store_file(tmp_path: Path, demo_store: StoreConfig) -> None:
    options = Options(1, 20, 20, 8099, None, True, False, tmp_path)
    made = _Demo(tmp_path, options, Console(quiet=True))
    made._write_store_file({reader.id: reader.address for reader in demo_store.readers}, "mqtt://127.0.0.1:1883")
    config = load(tmp_path / "store.toml", files=False)
    assert config.web.tiers == demo_store.web.tiers != ()
    assert config.web.listen == "127.0.0.1:8099"


async def test_headquarters_pushes_each_hour_of_sales_once_and_again_if_it_was_not_taken(tmp_path: Path) -> None:
    tills = tmp_path / "tills.csv"
    pushed: list[list[str]] = []
    codes = [1, 0, 0]

    @contextmanager
    def start(name: str, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        assert (name, arguments[:3]) == ("push-sales", ["chain", "push", "sales"])
        pushed.append(Path(arguments[3]).read_text().splitlines())
        with subprocess.Popen([sys.executable, "-c", f"raise SystemExit({codes[len(pushed) - 1]})"]) as process:
            yield process

    def write(*hours: str) -> None:
        beside = tmp_path / "new"
        beside.write_text("hour,zone,tickets\n" + "".join(f"{hour},shoes,3\n" for hour in hours))
        beside.replace(tills)

    async def until(n: int) -> None:
        async with asyncio.timeout(30):
            while len(pushed) < n:
                await asyncio.sleep(0.01)

    hq = chain.Chain(tmp_path, "s1", start, (1.0, 0), tills)
    pushing = asyncio.create_task(hq._push_sales(every_s=0.01))
    write("10:00")
    await until(2)
    write("10:00", "11:00")
    await until(3)
    pushing.cancel()
    assert pushed == [
        ["store,hour,zone,tickets", "s1,10:00,shoes,3"],
        ["store,hour,zone,tickets", "s1,10:00,shoes,3"],
        ["store,hour,zone,tickets", "s1,11:00,shoes,3"],
    ]


async def test_a_failure_to_push_sales_is_logged_and_all_are_pushed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tills = tmp_path / "tills.csv"
    tills.write_text("hour,zone,tickets\n10:00,shoes,3\n")
    pushed = asyncio.Event()

    @contextmanager
    def start(name: str, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        if not caplog.records:
            raise OSError("no more processes")
        pushed.set()
        with subprocess.Popen(["true"]) as process:
            yield process

    hq = chain.Chain(tmp_path, "s1", start, (1.0, 0), tills)
    pushing = asyncio.create_task(hq._keep_pushing_sales(again_s=0.01))
    async with asyncio.timeout(30):
        await pushed.wait()
    pushing.cancel()
    (record,) = caplog.records
    assert "sales could not be pushed" in record.message
    assert record.exc_info is not None
    assert "no more processes" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("taken", "sold", "said"), [(0, 0, "none yet: no hour was over"), (0, 14, "0 of 14"), (14, 28, "14 of 28")]
)
def test_no_hours_of_sales_are_told_apart_from_hours_that_were_not_taken(taken: int, sold: int, said: str) -> None:
    assert view._sales({"sales_hours": taken, "sold_hours": sold}) == said
