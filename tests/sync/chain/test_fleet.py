"""Steering of a fleet: rollouts, erasures and replays through a real sink, with stores that answer."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import MosquittoBroker, Until, journey, recognised
from chains import batch, counted, message

from config import topics
from simulators.headquarters.log import Log
from sync.chain import desk, erasure, fleet, sales
from sync.chain.decoding import decode
from sync.chain.ledger import Ledger, connect, now_us
from sync.chain.log import LogSettings
from sync.chain.log import connect as connect_to_log
from sync.chain.reader import Place, follow
from sync.contract import event_id
from sync.down import Sales
from sync.mqtt import MqttConnection, MqttSettings
from sync.mqtt import connect as connect_to_broker

StartSink = Callable[..., Any]


class Stores:
    """Stores at the other end of a broker. `refuses`: those that refuse what is pushed; `silent`: those that answer
    nothing."""

    def __init__(self, link: MqttConnection, names: list[str]) -> None:
        self._link, self.names = link, names
        self.refuses: set[str] = set()
        self.silent: set[str] = set()
        self.fails_once: set[str] = set()
        self.restarts: set[str] = set()
        self.got: list[tuple[str, str, bytes]] = []

    async def say(self, store: str, rest: str, told: dict[str, Any], *, retain: bool = True) -> None:
        await self._link.publish(topics.topic(store, rest), json.dumps(told).encode(), retain=retain)

    async def online(self, store: str, there: bool = True) -> None:
        state = {"v": 1, "store": store, "online": there, "version": "1", "epoch": "e", "config_generation": "c"}
        await self.say(store, "state", state | {"directory_generation": 0})

    async def run(self) -> None:
        await self._link.subscribe([f"{topics.ROOT}/+/+/down/#"])
        for store in self.names:
            await self.online(store)
        while True:
            for incoming in await self._link.receive():
                store, rest = topics.parse(incoming.topic)
                self.got.append((store, rest, incoming.payload))
                if rest == "down/cmd":
                    await self._carry_out(store, json.loads(incoming.payload))
                elif rest == "down/sales" and store not in self.silent:
                    sales = Sales.model_validate_json(incoming.payload, strict=True)
                    bad = [
                        {"hour": n, "reason": "no zone"} for n, hour in enumerate(sales.hours) if hour.zone == "toys"
                    ]
                    told = {"v": 1, "id": sales.id, "at_us": 1, "state": "applied"}
                    output = {"taken": len(sales.hours) - len(bad), "changed": 0, "refused": len(bad), "problems": bad}
                    await self.say(store, "up/result", told | {"output": output}, retain=False)
                elif rest == "down/config" and store not in self.silent:
                    desired = json.loads(incoming.payload)
                    if store in self.restarts:
                        await self.online(store, False)
                        await asyncio.sleep(0.5)
                        await self.online(store)
                    told = {"v": 1, "generation": desired["generation"], "at_us": 1}
                    state = "failed" if store in self.refuses else "applied"
                    await self.say(store, "up/config", told | {"state": state, "reason": "no such zone"})
                elif rest == "down/directory" and store in self.refuses:
                    told = {"v": 1, "generation": 0, "members": 0, "at_us": now_us()}
                    await self.say(store, "up/directory", told | {"state": "failed", "reason": "no space"})
                elif rest == "down/directory":
                    (file,) = json.loads(incoming.payload)["files"]
                    want = {"v": 1, "sha256": file["sha256"], "offset": 0, "size": 1000, "parts": 8}
                    await self.say(store, "up/directory/want", want, retain=False)

    async def _carry_out(self, store: str, command: dict[str, Any]) -> None:
        if store in self.silent:
            return
        answer = {"v": 1, "id": command["id"], "at_us": 1}
        await self.say(store, "up/result", answer | {"state": "received"}, retain=False)
        failing = store in self.fails_once
        self.fails_once.discard(store)
        end = {"state": "failed", "reason": "cut off"} if failing else {"state": "applied", "output": {"visits": 2}}
        await self.say(store, "up/result", answer | end, retain=False)


@pytest.fixture
async def stores(
    cell: MosquittoBroker, start: StartSink, until: Until, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stores]:
    """Five stores that are online, with a sink between them and the database."""
    monkeypatch.setattr(desk.Desk, "EVERY_S", 0.05)
    monkeypatch.setattr(desk, "AGAIN_S", 0.3)
    monkeypatch.setattr(fleet, "POLL_S", 0.05)
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    async with connect_to_broker(MqttSettings.from_url(cell.url, "stores")) as link:
        made = Stores(link, [f"s{n}" for n in range(1, 6)])
        running = asyncio.create_task(made.run())
        await until(lambda: conn.execute("SELECT count(state) FROM chain.store").fetchone() == (5,))
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def rolled(chain: str, file: Path, waves: list[int], halt_on: tuple[str, ...]) -> Callable[[], list[Any]]:
    """A rollout on a connection of its own, to be run beside the stores."""

    def run() -> list[Any]:
        with connect(chain) as mine:
            made: list[Any] = []
            try:
                made.extend(fleet.roll_out(mine, fleet.config_push(file), waves, halt_on, within_s=20))
            except fleet.HaltedError as halted:
                made.append(halted)
            return made

    return run


async def test_a_configuration_goes_out_in_waves(chain: str, conn: Any, stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "shared.toml"
    file.write_text("[thresholds]\nsmall_cell = 9\n")
    stores.restarts = {"s1"}
    waves = await asyncio.to_thread(rolled(chain, file, [1, 3], ("refused", "offline")))
    assert [len(wave.applied) for wave in waves] == [1, 3, 1]
    sent = [json.loads(payload) for _, rest, payload in stores.got if rest == "down/config"]
    assert [one["generation"] for one in sent] == [1] * 5
    assert {one["toml"] for one in sent} == {file.read_text()}
    assert conn.execute("SELECT state FROM chain.rollout").fetchall() == [("done",)]
    assert await asyncio.to_thread(rolled(chain, file, [1], ("refused",))) == []  # there is nothing more to do


async def test_sales_go_to_their_stores_until_they_are_answered(
    conn: Any, stores: Stores, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "sales.csv"
    hours = [f"s1,2026-03-14T{hour:02}:00+08:00,shoes,{hour},,12.50,CNY" for hour in range(10, 20)]
    many = [f"s2,2026-03-14T10:00Z,z{n},1,2,," for n in range(sales.HOURS + 5)]
    lines = ["store,hour,zone,tickets,units,amount,currency", *hours, *many, "s3,2026-03-14T10:00Z,toys,0,,,"]
    file.write_text("\n".join(lines))
    stores.silent = {"s1"}
    prefix = sales.push(conn, sales.orders(file))
    await until(lambda: sales.progress(conn, prefix).waiting == ["s1"])
    stores.silent = set()
    await until(lambda: not sales.progress(conn, prefix).waiting)
    found = sales.progress(conn, prefix)
    assert (found.taken, found.refused, found.reasons) == (10 + sales.HOURS + 5, 1, {"s3": "no zone"})
    told = {store: Sales.model_validate_json(payload) for store, rest, payload in stores.got if rest == "down/sales"}
    assert (told["s1"].currency, told["s1"].hours[0].amount, told["s1"].hours[0].tickets) == ("CNY", 12.5, 10)
    assert told["s1"].hours[0].hour_us == 1773453600000000
    assert sum(rest == "down/sales" and store == "s2" for store, rest, _ in stores.got) == 2
    assert conn.execute("SELECT count(*) FROM chain.command WHERE body <> '{}'").fetchone() == (0,)
    assert len(sales.orders(file, ["s3"])) == 1


async def test_a_refusal_halts_and_the_same_command_goes_on(
    chain: str, conn: Any, stores: Stores, tmp_path: Path
) -> None:
    file = tmp_path / "shared.toml"
    file.write_text("[thresholds]\n")
    stores.refuses = {"s2"}
    waves = await asyncio.to_thread(rolled(chain, file, [1, 2], ("refused",)))
    assert [type(wave).__name__ for wave in waves] == ["Wave", "Wave", "HaltedError"]
    assert waves[1].refused == {"s2": "no such zone"}
    assert "s2 refused: no such zone" in str(waves[2])
    assert conn.execute("SELECT state FROM chain.rollout").fetchall() == [("halted",)]
    assert {store for store, rest, _ in stores.got if rest == "down/config"} == {"s1", "s2", "s3"}
    waves = await asyncio.to_thread(rolled(chain, file, [5], ()))
    assert waves[-1].applied == ["s4", "s5"]
    assert conn.execute("SELECT state, generation FROM chain.rollout").fetchall() == [("done", 1)]


async def test_a_store_that_is_offline_halts_if_told_so(
    chain: str, conn: Any, stores: Stores, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "shared.toml"
    file.write_text("[thresholds]\n")
    await stores.online("s1", False)
    stores.silent = {"s1"}
    query = "SELECT state -> 'online' FROM chain.store WHERE store = 's1'"
    await until(lambda: conn.execute(query).fetchone() == (False,))
    waves = await asyncio.to_thread(rolled(chain, file, [2, 3], ("offline",)))
    # Those that are online come first, so that the first waves tell something.
    assert waves[0].applied == ["s2", "s3"]
    assert waves[1].offline == ["s1"]
    assert "s1 is offline" in str(waves[-1])


async def test_a_store_that_cannot_take_a_directory_halts_the_rollout(
    chain: str, conn: Any, stores: Stores, tmp_path: Path
) -> None:
    """It says so under the generation of the directory that it has; an earlier failure doesn't count."""
    stores.refuses = set(stores.names)
    earlier = {"v": 1, "generation": 0, "members": 0, "at_us": now_us(), "state": "failed", "reason": "earlier"}
    await stores.say("s2", "up/directory", earlier)
    file = tmp_path / "members.csv"
    file.write_text("epc,member,tier,consent,hint\n30A1,M1,A,yes,\n")

    def run() -> list[fleet.Wave]:
        with connect(chain) as mine:
            push = fleet.directory_push(mine, file, 30)
            return list(fleet.roll_out(mine, push, [1], ["refused"], stores=["s1", "s2"], within_s=20))

    with pytest.raises(fleet.HaltedError, match="s1 refused: no space"):
        await asyncio.to_thread(run)


async def test_a_directory_is_served_in_parts(
    chain: str, conn: Any, stores: Stores, until: Until, tmp_path: Path
) -> None:
    file = tmp_path / "members.csv"
    lines = [f"{n:024X},M{n},A,1,," for n in range(400)]
    file.write_text("".join(f"{line}\n" for line in ("epc,member,tier,consent,hint,hint_until_us", *lines)))
    push = fleet.directory_push(conn, file, 30)

    def run() -> list[fleet.Wave]:
        with connect(chain) as mine:
            return list(fleet.roll_out(mine, push, [1], (), stores=["s1"], within_s=0.5))

    await asyncio.to_thread(run)
    parts: dict[int, bytes] = {}

    def whole() -> bool:
        for store, rest, payload in stores.got:
            if rest.startswith(f"down/directory/part/{push.digest}/"):
                assert store == "s1"
                parts[int(rest.rsplit("/", 1)[1])] = payload
        content = b"".join(parts[at] for at in sorted(parts))
        return hashlib.sha256(content).hexdigest() == push.digest and gzip.decompress(content) == file.read_bytes()

    await until(whole)
    assert len(parts) > 1
    with pytest.raises(ValueError, match="columns"):
        fleet.directory_push(conn, Path(__file__), 30)


async def test_commands_are_repeated_until_they_are_answered(conn: Any, stores: Stores, until: Until) -> None:
    stores.silent = {"s2"}
    prefix = fleet.command(conn, ["s1", "s2"], "ping", {})
    await until(lambda: {s: state for s, state, *_ in fleet.answers(conn, prefix)}["s1"] == "applied")
    ids = [json.loads(payload)["id"] for store, rest, payload in stores.got if (store, rest) == ("s2", "down/cmd")]
    await until(lambda: sum(1 for store, rest, _ in stores.got if (store, rest) == ("s2", "down/cmd")) >= 3)
    assert len(set(ids)) == 1
    assert not fleet.over(conn, prefix)
    stores.silent.clear()
    await until(lambda: fleet.over(conn, prefix))


async def test_a_member_is_erased_everywhere_with_a_proof(
    chain: str, conn: Any, stores: Stores, until: Until, tmp_path: Path
) -> None:
    """In the database, in the log, at stores that fail once or answer late; what others have is kept."""
    key = ("s1", "e", "member")
    about = [recognised(n).model_copy(update={"member": member}) for n, member in enumerate(("M1", "M12", "M1"), 1)]
    told = [one.model_dump(mode="json") | {"id": event_id(*key, seq)} for seq, one in enumerate(about, 1)]
    walk = journey(1).model_copy(update={"member": "M1"}).model_dump(mode="json") | {
        "id": event_id("s1", "e", "journey", 2)
    }
    other = journey(1).model_copy(update={"member": "M12"}).model_dump(mode="json") | {
        "id": event_id("s1", "e", "journey", 1)
    }
    async with Log(tmp_path / "log", 1) as log:
        ledger = Ledger(conn, version="1", feed=True)
        bad = {"id": event_id("s1", "e", "health", 1), "type": "later", "member": "M1"}
        runs = [
            run
            for one in (
                message("s1", 1, told, "member"),
                message("s1", 1, [other, walk], "journey"),
                message("s1", 1, [bad]),
            )
            for run in ledger.take([(decode(*one), 1)]).runs
        ]
        from sync.chain.log import Feed

        settings = LogSettings(log.servers, replicas=1, stream_gib=1)
        feed = Feed(settings, ["member", "journey"], "test")
        feeding = asyncio.create_task(feed.run())
        feed.offer(runs)
        await until(lambda: feed.counters["confirmed"] == len(runs))
        stores.fails_once = {"s3"}
        stores.silent = {"s4"}
        id_ = erasure.ask(conn, "M1")
        assert erasure.ask(conn, "M1") == id_
        await until(lambda: erasure.progress(conn, id_) == {"applied": 4, "sent": 1})
        client = await connect_to_log(settings, "erase")
        assert await erasure.erase_in_log(client, conn, "M1") == {"messages": 2, "erased": 2}
        assert erasure.complete(conn, id_, None) is None
        # An event about the member that a store still had is dropped on arrival.
        late = recognised(4).model_copy(update={"member": "M1"}).model_dump(mode="json") | {"id": event_id(*key, 4)}
        sink_like = Ledger(conn, version="1")
        sink_like.refresh_erasing()
        assert sink_like.take([(decode(*message("s1", 4, [late], "member")), 1)]).fresh == 0
        stores.silent.clear()
        await until(lambda: erasure.progress(conn, id_) == {"applied": 5})
        proof = erasure.complete(conn, id_, {"erased": 2})
        assert proof is not None
        assert [one["store"] for one in proof["stores"]] == stores.names
        assert all(one["receipt"] == {"visits": 2} for one in proof["stores"])
        assert (proof["database"]["events"], proof["database"]["recognition"], proof["database"]["dead_letter"]) == (
            3,
            2,
            1,
        )
        assert hashlib.sha256(f"{proof['salt']}M1".encode()).hexdigest() == proof["member_sha256"]
        assert erasure.complete(conn, id_, None) == proof
        # Nothing is left of it, and what is about M12 is there, also in the log.
        runs = ledger.leftovers(range(64), ["member", "journey"], [run.id for run in runs], 10)
        feed.offer(runs)
        await until(lambda: feed.counters["confirmed"] == 2 + len(runs))
        found = []
        for class_ in ("member", "journey"):
            async for messages in follow(client, class_, Place(), once=True):
                found += [event.payload for one in messages for event in one.events]
        await client.close()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    assert [json.loads(payload)["member"] for payload in found] == ["M12", "M12"]
    with connect(chain) as looks:
        tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'chain'"
        for (table,) in looks.execute(tables).fetchall():
            rows = looks.execute(f"SELECT t::text FROM {table} AS t WHERE t::text ~ '\\mM1\\M'").fetchall()
            assert rows == [], table
    assert counted(conn)["member"]["rows"] == 1


async def test_replays_are_asked_for_a_few_at_a_time(
    conn: Any, stores: Stores, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "REPLAYS", 2)
    monkeypatch.setattr(fleet, "REPLAY_EVENTS", 10)
    ledger = Ledger(conn, version="1")
    for store in stores.names:
        ledger.take([(decode(*batch(store, 31, 1)), 1)])
    assert fleet.gaps(conn) == [(store, "e", "health", 1, 30) for store in stores.names]
    stores.silent = set(stores.names)
    for store, epoch, class_, first, last in fleet.gaps(conn):
        assert fleet.replay(conn, store, class_, first, last, epoch) == 3
    with pytest.raises(ValueError, match="nothing of s9"):
        fleet.replay(conn, "s9", "agg", 1, 2)
    under_way = "SELECT count(*) FROM chain.command WHERE state <> 'waiting'"
    await until(lambda: conn.execute(under_way).fetchone() == (2,))
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert conn.execute(under_way).fetchone() == (2,)
        await asyncio.sleep(0.05)
    stores.silent.clear()
    await until(lambda: conn.execute(f"{under_way} AND state = 'applied'").fetchone() == (15,), within_s=30)
    asked = [json.loads(payload) for store, rest, payload in stores.got if (store, rest) == ("s1", "down/cmd")]
    assert {(one["from"], one["to"], one["class"], one["epoch"]) for one in asked} == {
        (1, 10, "health", "e"), (11, 20, "health", "e"), (21, 30, "health", "e")
    }  # fmt: skip


async def test_the_worst_stores_come_first(conn: Any, stores: Stores) -> None:
    ledger = Ledger(conn, version="1")
    for store in stores.names:
        ledger.take([(decode(*batch(store, 1, 2)), 1)])
    ledger.take([(decode(*batch("s3", 9, 1)), 1)])
    ledger.take([(decode(*batch("never online", 1, 1)), 1)])
    told = fleet.status(conn)
    assert [one["store"] for one in told][:2] == ["never online", "s3"]
    assert (told[1]["behind"], told[1]["received"], told[1]["online"]) == (7, 3, True)
    assert [one["store"] for one in fleet.status(conn, ["s2"])] == ["s2"]
