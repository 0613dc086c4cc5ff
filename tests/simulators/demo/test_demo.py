"""What the demo makes of its store file."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from config import StoreConfig
from edge.store.calendar import hours
from simulators.demo import chain
from simulators.demo.run import _opening


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
