"""What an examination finds: each fault by itself, with what to do, and nothing where nothing is wrong."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from brokers import MosquittoBroker, need_mosquitto
from gateways import Gateway, antennas

from config.check import load
from edge.database.writer import Database
from edge.doctor import broker, machine, readers, stored
from edge.doctor.examine import as_text, by_hand
from edge.doctor.findings import Finding, State, error, ok, warning
from edge.store import timekeeping
from edge.store.timekeeping import Kept
from edge.words.languages import reason

NOON_US = 1_773_460_800_000_000
HOUR_US = 3_600_000_000
DOCTOR = Path(stored.__file__).parent
BY_HAND = (
    *("reader <value> does", "reader <value>: ", "the unit may", "the name ", "Python ", "the database can't be read"),
    *("the service is not", "Start it", "Look at the service's log.", "Use a 64-bit", "Check its cable and power"),
    *("the broker takes the", "See docs/operations"),
)
"""What is said on the command line only."""


def of(findings: Any, what: str) -> list[Finding]:
    return [one for one in findings if one.what == what]


def states(findings: Any) -> dict[str, State]:
    return {one.what: one.state for one in findings}


# Readers and antennas.


def live_reader(**more: Any) -> dict[str, Any]:
    return {"id": "r1", "link": "up", "reason": "", "since_us": NOON_US - HOUR_US, "flooded": False} | more


def port(number: int, reads: int, ago_us: int | None) -> dict[str, Any]:
    return {"port": number, "zone": "shoes", "reads": reads, "last_us": ago_us if ago_us is None else NOON_US - ago_us}


@pytest.mark.parametrize(
    ("ports", "silent"),
    [
        ([port(1, 900, 0), port(2, 800, 0)], []),
        ([port(1, 900, 0), port(2, 0, None)], [2]),
        ([port(1, 900, 0), port(2, 40, 3 * HOUR_US)], [2]),
        ([port(1, 900, 0), port(2, 40, HOUR_US)], []),
        ([port(1, 90, 0), port(2, 0, None)], []),  # too few reads to tell
        ([port(1, 900, 30 * HOUR_US), port(2, 900, 30 * HOUR_US)], []),  # closed: nobody was there
        ([port(1, 0, None)], []),
    ],
)
def test_a_silent_antenna_among_busy_ones_is_named(ports: list[dict[str, Any]], silent: list[int]) -> None:
    found = list(readers.by_service({"readers": [live_reader()]}, {"r1": ports}, NOON_US))
    assert [one.state for one in found] == ([State.WARNING] * len(silent) or [State.OK])
    for one, number in zip(found, silent, strict=False):
        assert f"antenna r1/{number} (shoes)" in one.said
        assert "cable" in one.todo


def test_a_reader_that_is_away_is_told_with_its_reason() -> None:
    away = live_reader(link="down", reason="no route", since_us=NOON_US - 3 * HOUR_US)
    (found,) = readers.by_service({"readers": [away]}, {}, NOON_US)
    assert found == error(
        "reader", "reader r1 has been away for 3 h: no route", "See docs/readers.md, and run tagtrail readers test r1."
    )


async def test_without_the_service_readers_are_looked_for(gateway: Gateway) -> None:
    async def no_reader(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello, I am a printer\n")
        writer.close()

    server = await asyncio.start_server(no_reader, "127.0.0.1", 0)
    there = server.sockets[0].getsockname()[1]
    gateway.configure(
        readers=[
            {"id": "gone", "driver": "llrp", "address": "127.0.0.1:1", "antennas": antennas("shoes")},
            {"id": "other", "driver": "llrp", "address": f"127.0.0.1:{there}", "antennas": antennas("bags")},
            {"id": "tty", "driver": "m100", "address": "/dev/rfid/none", "antennas": antennas("door")},
        ]
    )
    found = [one async for one in readers.examine(load(gateway.file))]
    server.close()
    assert [one.state for one in found] == [State.ERROR] * 3
    assert "gone does not answer at 127.0.0.1:1" in found[0].said
    assert "no LLRP reader greets" in found[1].said
    assert "there is no /dev/rfid/none" in found[2].said


# The broker.


def test_what_the_service_says_of_the_broker_counts() -> None:
    def judge(connected: bool, reason: str) -> Finding:
        return broker.by_service({"broker": {"connected": connected, "reason": reason}})

    assert judge(True, "").state is State.OK
    assert judge(True, "an access rule").state is State.WARNING
    barred = judge(False, "203.0.113.9:8883: [Errno 1] Operation not permitted")
    assert (barred.state, barred.todo) == (State.ERROR, broker.ALLOW_ADDRESS)
    assert "password" in judge(False, "b:8883: [code:135] Not authorized").todo


async def test_a_broker_is_tried_by_writing_the_stores_state(gateway: Gateway, mosquitto: MosquittoBroker) -> None:
    gateway.configure(mqtt={"url": mosquitto.url, "version": "5"})
    config = load(gateway.file)
    found = [one async for one in broker.examine(config, gateway.file)]
    assert "access rules show when the service has run once" in of(found, "broker")[0].said
    Database(config.database.path, store="s1", quota_mb=64).close()
    found = [one async for one in broker.examine(config, gateway.file)]
    assert of(found, "broker") == [ok("broker", "the broker takes and gives back what this store writes")]


async def test_access_rules_that_refuse_the_store_are_found(gateway: Gateway, tmp_path: Path) -> None:
    need_mosquitto()
    rules = tmp_path / "rules"
    rules.write_text("topic read tagtrail/#\n")
    refusing = MosquittoBroker(tmp_path, f"allow_anonymous true\nacl_file {rules}")
    await refusing.start()
    try:
        gateway.configure(mqtt={"url": refusing.url, "version": "5"})
        config = load(gateway.file)
        Database(config.database.path, store="s1", quota_mb=64).close()
        (found,) = of([one async for one in broker.examine(config, gateway.file)], "broker")
    finally:
        await refusing.stop()
    assert found.state is State.ERROR
    assert "refused" in found.said
    assert found.todo == broker.SEE_RULES


@pytest.mark.parametrize(
    ("url", "says", "todo"),
    [
        ("mqtt://127.0.0.1:1", "refused", "that the broker runs"),
        ("mqtt://broker.invalid:1883", "broker.invalid was not found", "name server"),
    ],
)
async def test_a_broker_that_is_not_there_is_told_why(gateway: Gateway, url: str, says: str, todo: str) -> None:
    gateway.configure(mqtt={"url": url})
    (found,) = of([one async for one in broker.examine(load(gateway.file), gateway.file)], "broker")
    assert found.state is State.ERROR
    assert says in found.said
    assert todo in found.todo


def test_addresses_outside_the_units_list_are_seen() -> None:
    said = "LoadState=loaded\nIPAddressDeny=::/0 0.0.0.0/0\nIPAddressAllow=10.0.0.0/8 127.0.0.0/8 fc00::/7\n"
    allowed = broker.parse_allowed(said)
    assert allowed is not None
    assert [str(one) for one in allowed] == ["10.0.0.0/8", "127.0.0.0/8", "fc00::/7"]
    assert broker.parse_allowed(said.replace("loaded", "not-found")) is None
    assert broker.parse_allowed("LoadState=loaded\nIPAddressDeny=\nIPAddressAllow=\n") is None


@pytest.mark.parametrize(("days", "state"), [(-1, State.ERROR), (9, State.WARNING), (90, State.OK)])
def test_certificates_are_judged_by_their_days(days: int, state: State) -> None:
    (found,) = broker.certificates({"certificates": [{"what": "mqtt.cert", "file": "/c.pem", "days": days}]})
    assert found.state is state


# The machine.


def test_a_worn_flash_is_told(tmp_path: Path) -> None:
    device = tmp_path / "mmcblk0" / "device"
    device.mkdir(parents=True)
    for life, pre_eol, expected in (
        ("0x02 0x01", "0x01", State.OK),
        ("0x01 0x09", "0x01", State.WARNING),
        ("0x02 0x02", "0x02", State.WARNING),
        ("0x0B 0x01", "0x03", State.ERROR),
        ("?", "0x01", State.UNKNOWN),
    ):
        (device / "life_time").write_text(f"{life}\n")
        (device / "pre_eol_info").write_text(f"{pre_eol}\n")
        assert [one.state for one in machine.flash(tmp_path)] == [expected], life
    assert not list(machine.flash(tmp_path / "none"))


@pytest.mark.parametrize(
    ("up_s", "written", "states"),
    [(3599, 10**12, []), (86_400, None, []), (86_400, 9 * 10**9, [State.OK]), (3600, 10**9, [State.WARNING])],
)
def test_what_is_written_in_a_day_is_told_after_an_hour(up_s: float, written: int | None, states: list[State]) -> None:
    assert [one.state for one in machine.written(up_s, written)] == states


def test_the_clock_is_judged_by_service_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for kept, trust, why, expected in (
        (Kept.UNKEPT, "untrusted", "the clock stands at 1970", State.ERROR),
        (Kept.KEPT, "trusted", "all 3 readers agree", State.WARNING),
        (Kept.UNKEPT, "trusted", "", State.OK),
        (Kept.KEPT, None, "", State.OK),
        (Kept.UNKEPT, None, "", State.WARNING),
    ):
        monkeypatch.setattr(timekeeping, "is_kept", lambda kept=kept: kept)
        assert machine.clock(trust, why).state is expected, (kept, trust)


def test_an_empty_kernel_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    file = tmp_path / "s1.toml"
    assert states(machine.examine("1", file, live_version="1"))["kernels"] is State.WARNING
    (tmp_path / "k.1.nbc").touch()
    assert states(machine.examine("1", file, live_version="1"))["kernels"] is State.OK
    assert states(machine.examine("2", file, live_version="1"))["program"] is State.WARNING


# What is stored.


@pytest.fixture
def store(gateway: Gateway) -> Gateway:
    gateway.configure()
    database = Database(gateway.database, store="s1", quota_mb=64)
    database.close()
    return gateway


def test_a_sound_database_with_room_is_well(store: Gateway) -> None:
    found = states(stored.database(load(store.file), NOON_US))
    assert found == dict.fromkeys(("database", "room for the database", "room for an outage"), State.OK)


def test_a_full_disk_and_a_foreign_copy_are_told(store: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    store.database.with_name("store.db.copy").touch()
    found = states(stored.database(load(store.file), NOON_US))
    assert found["room for the database"] is State.WARNING
    assert found["copies"] is State.WARNING


def test_a_week_without_the_crm_that_does_not_fit_is_told(store: Gateway) -> None:
    database = Database(store.database, store="s1", quota_mb=64)
    database.write_now(lambda conn: conn.execute("UPDATE outbox_class SET bytes = 400000000").fetchall())
    database.close()
    (found,) = of(stored.database(load(store.file), NOON_US), "room for an outage")
    assert found.state is State.WARNING
    assert "7 days without the CRM need" in found.said


def test_a_damaged_database_is_told(store: Gateway) -> None:
    with store.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 40_000)
    (found,) = stored.database(load(store.file), NOON_US)
    assert found.state is State.ERROR


@pytest.mark.parametrize(
    ("state", "members", "expected"),
    [
        ((7, None, 0), 1, State.OK),
        ((7, None, 0), 0, State.WARNING),
        ((7, NOON_US + 5 * HOUR_US, 0), 1, State.WARNING),
        ((7, NOON_US - HOUR_US, 1), 1, State.ERROR),
    ],
)
def test_the_directorys_age_is_told(store: Gateway, state: Any, members: int, expected: State) -> None:
    def job(conn: Any) -> None:
        conn.execute("UPDATE directory_state SET generation = ?, valid_until_us = ?, expired = ?", state)
        for n in range(members):
            conn.execute("INSERT INTO directory (tag, member, tier, consent) VALUES (?, 'M1', 'gold', 1)", (bytes(n),))

    database = Database(store.database, store="s1", quota_mb=64)
    database.write_now(job)
    database.close()
    assert [one.state for one in stored.directory(load(store.file), NOON_US)] == [expected]


def test_problems_of_the_store_file_are_findings(store: Gateway) -> None:
    store.configure(web={"listen": "127.0.0.1:0", "small_cell": 1})
    assert all(one.bad for one in stored.store_file(store.file))
    store.file.write_text("[store]\nnonsense = 1\n")
    assert State.ERROR in {one.state for one in stored.store_file(store.file)}


# The whole.


async def test_by_hand_without_a_service_names_the_store_in_what_to_do(store: Gateway) -> None:
    found = await by_hand(load(store.file), store.file, "1", lambda: NOON_US)
    (service,) = of(found, "service")
    assert (service.state, service.todo) == (State.ERROR, "Start it: systemctl start tagtrail@store.")
    order = [State.ERROR, State.WARNING, State.UNKNOWN, State.OK]
    assert [one.state for one in found] == sorted((one.state for one in found), key=order.index)
    lines = as_text(found).splitlines()
    assert "→ Start it: systemctl start tagtrail@store." in as_text(found)
    assert len(lines) == len(found) + sum(bool(one.todo) and one.state is not State.OK for one in found)


def test_every_finding_says_what_to_do() -> None:
    """In the sources: what is wrong never comes without advice, and advice is a sentence."""
    for make in (warning, error):
        with pytest.raises(TypeError):
            make("what", "said")  # type: ignore[call-arg]
    for todo in (
        broker.ALLOW_ADDRESS,
        broker.SEE_RULES,
        machine.WARM_UP,
        broker.todo_for(""),
        broker.todo_for("name"),
    ):
        assert re.fullmatch(r"[A-Z].*[.]", todo)


def test_the_command_prints_json_and_fails_while_something_is_wrong(store: Gateway) -> None:
    done = store.run("doctor", "--config", str(store.file), "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert {"what", "state", "said", "todo"} == set(told[0])
    assert told[0]["state"] == "error"


def sayings() -> list[str]:
    """What warnings and errors say of what an examination in the service finds, with a word for each value."""
    found = []
    for source in sorted(DOCTOR.glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("warning", "error", "make")):
                continue
            inside: set[int] = set()
            for text in (one for argument in node.args[1:] for one in ast.walk(argument)):
                if isinstance(text, ast.JoinedStr):
                    inside |= {id(one) for one in ast.walk(text)}
                    found.append("".join(p.value if isinstance(p, ast.Constant) else "<value>" for p in text.values))
                elif isinstance(text, ast.Constant) and isinstance(text.value, str) and id(text) not in inside:
                    found.append(text.value)
    return [text for text in found if len(re.findall(r"[a-z]+", text.replace("<value>", ""))) > 2]


def test_what_is_found_is_said_in_chinese_too() -> None:
    found = sayings()
    assert len(found) > 40
    assert [said for said in found if not said.startswith(BY_HAND) and reason(said, "zh") == said] == []


def test_sentences_in_sentences_are_translated() -> None:
    refused = "10.0.0.7:5084 refused the connection: is LLRP switched on, is the port right?"
    said = f"reader r1 has been away for 3 h: {refused}"
    assert reason(said, "zh") == f"读写器 r1 已断开 3 h：{reason(refused, 'zh')}"
    assert reason(refused, "zh") != refused


def test_a_warning_of_the_store_file_does_not_say_twice_what_it_is(store: Gateway) -> None:
    store.configure(thresholds={"small_cell": 2})
    told = [one for one in stored.store_file(store.file) if "small_cell" in one.said]
    assert [one.state for one in told] == [State.WARNING]
    assert "warning: " not in told[0].said
