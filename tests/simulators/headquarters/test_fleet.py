"""Many fake stores at one broker: all that they say arrives once."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from brokers import SCHEMA as REAL
from brokers import MakeCrm, Until

from simulators.headquarters.broker import NatsBroker
from simulators.headquarters.fleet import SCHEMA, run
from simulators.headquarters.inventor import Inventor
from sync.contract import CLASS_OF

DOCUMENT = Path(__file__).parents[3] / "docs" / "contract" / "README.md"


async def test_a_fleets_events_all_arrive(nats: NatsBroker, crm: MakeCrm, until: Until) -> None:
    consumer = crm(nats.url)
    await consumer.start()
    await until(consumer.ready)
    totals = await run(20, nats.url, 5, 4, lambda _: None)
    assert totals["pending"] == 0
    assert totals["sent"] > 50
    last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (totals["sent"], 0, 0, 0)
    assert len(last["stores"]) == 20


async def test_the_documents_own_consumer_takes_all_that_a_fleet_says(nats: NatsBroker, tmp_path: Path) -> None:
    """The one of docs/contract/README.md, as it stands there but for the broker's address."""
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert "mqtt://127.0.0.1:1883" in script
    (tmp_path / "mine.py").write_text(script.replace("mqtt://127.0.0.1:1883", nats.url))
    with (tmp_path / "out").open("wb") as out:
        process = await asyncio.create_subprocess_exec(sys.executable, "mine.py", cwd=tmp_path, stdout=out, stderr=out)
    try:
        totals = await run(5, nats.url, 5, 4, lambda _: None)
    finally:
        process.kill()
        await process.wait()
    assert totals["pending"] == 0, (tmp_path / "out").read_text()
    with closing(sqlite3.connect(tmp_path / "mine.db")) as conn:
        assert conn.execute("SELECT count(*) FROM event").fetchone() == (totals["sent"],)
        assert conn.execute("SELECT max(revision) FROM latest_window").fetchone()[0] > 1
        assert conn.execute("SELECT count(*) FROM dead_letter").fetchone() == (0,)


def test_it_says_everything_that_a_store_may_say() -> None:
    inventor = Inventor(random.Random(1))
    said = []
    for n in range(3000):
        class_, event = inventor.next()
        inventor.numbered(event, f"s/e/{class_}/{n}")
        said.append((class_, event))
    assert {event.type for _, event in said} == set(CLASS_OF)
    assert all(CLASS_OF[event.type] == class_ for class_, event in said)
    outcomes = [event.cue for _, event in said if event.type == "cue_outcome"]
    assert set(outcomes) <= {f"s/e/member/{n}" for n, (_, event) in enumerate(said) if event.type == "cue"}
    windows = [event for _, event in said if event.type == "zone_window"]
    anew = [event for event in windows if event.revision > 1]
    assert anew
    for event in anew:
        before = [one for one in windows if (one.zone, one.window_us) == (event.zone, event.window_us)]
        assert {one.revision for one in before} >= set(range(1, event.revision))


def test_its_tables_are_named_like_a_gateways() -> None:
    for table in re.findall(r"CREATE TABLE (\w+)", SCHEMA):
        assert f"CREATE TABLE {table} (" in REAL
