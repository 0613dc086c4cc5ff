"""The commands of `tagtrail chain` beside the sink's: what they print, and what they say when something is wrong."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from chains import batch, counted
from typer.testing import CliRunner

from edge.cli.chain import app
from edge.crm.directory_file import FetchError, parse
from edge.store.errors import Trouble
from simulators.headquarters.broker import free_port
from sync.chain import members
from sync.chain.decoding import decode
from sync.chain.ledger import Ledger, now_us
from sync.down import Sales

RUN = CliRunner()


def call(*arguments: str) -> Any:
    """Run a command; what is for the operator to mend is raised as by the command line."""
    result = RUN.invoke(app, list(arguments))
    if isinstance(result.exception, Trouble):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def some(conn: Any) -> None:
    """Two stores, one with a gap, and a member's events."""
    ledger = Ledger(conn, version="1", feed=True)
    told = [batch("s1", 1, 3, "member"), batch("s1", 1, 3), batch("s1", 9, 1), batch("s2", 1, 2)]
    ledger.take([(decode(*one), now_us()) for one in told], done=[])


@pytest.mark.usefixtures("some")
def test_what_is_missing_is_asked_for(chain: str, conn: Any) -> None:
    assert call("replay", "--database", chain).stdout == "1 replays will be asked for\n"
    (row,) = conn.execute("SELECT store, body FROM chain.command").fetchall()
    assert row == ("s1", {"class": "health", "epoch": "e", "from": 4, "to": 8})
    made = call("replay", "s1", "--class", "member", "--from", "2", "--database", chain)
    assert made.stdout == "1 replays will be asked for\n"
    (row,) = conn.execute("SELECT body FROM chain.command ORDER BY no DESC LIMIT 1").fetchall()
    assert row[0] | {"class": "member"} == {"class": "member", "epoch": "e", "from": 2, "to": 3}
    with pytest.raises(Trouble, match="nothing of s9"):
        call("replay", "s9", "--database", chain)


@pytest.mark.usefixtures("some")
def test_the_log_is_fed_again(chain: str, conn: Any) -> None:
    conn.execute("DELETE FROM chain.fanout")
    made = call("replay", "--to-log", "2026-01-01T00:00", "--database", chain)
    assert made.stdout.startswith("9 events will be published again")
    rows = conn.execute(
        "SELECT class, first, last, again FROM chain.fanout ORDER BY class, first, last DESC"
    ).fetchall()
    assert rows == [("health", 1, 3, True), ("health", 1, 2, True), ("health", 9, 9, True), ("member", 1, 3, True)]
    assert call("replay", "--to-log", "never", "--database", chain).exit_code == 2


@pytest.mark.usefixtures("some")
def test_an_erasure_is_not_complete_without_all_receipts(chain: str, conn: Any, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    command = ("erase", "M2", "--database", chain, "--wait", "0", "--proof", str(proof))
    with pytest.raises(Trouble, match=r"not complete yet: 2 waiting"):
        call(*command)
    assert counted(conn)["member"]["rows"] == 2
    conn.execute("UPDATE chain.command SET state = 'applied', output = '{}', answered_at = now()")
    assert call(*command).stdout == "erased at 2 stores\n"
    told = json.loads(proof.read_text())
    assert (told["database"]["events"], [one["store"] for one in told["stores"]]) == (1, ["s1", "s2"])
    assert "M2" not in proof.read_text()
    assert conn.execute("SELECT member FROM chain.erasure").fetchall() == [(None,)]
    assert conn.execute("SELECT count(*) FROM chain.command WHERE body::text LIKE '%M2%'").fetchone() == (0,)


def test_a_push_that_can_reach_nobody_is_over_at_once(chain: str, tmp_path: Path) -> None:
    file = tmp_path / "shared.toml"
    file.write_text("[thresholds]\n")
    assert call("push", "config", str(file), "--database", chain).stdout == ""
    for wrong in (("--wave", "1,x"), ("--wave", "0"), ("--halt-on", "rain")):
        assert call("push", "config", str(file), "--database", chain, *wrong).exit_code == 2
    assert call("push", "weather", str(file), "--database", chain).exit_code == 2
    with pytest.raises(Trouble, match="columns"):
        call("push", "directory", str(file), "--database", chain)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("30A1,M1,A,1", "line 3: 4 columns; expected 6"),
        ("30A1,M1,A,1,,,", "line 3: 7 columns"),
        ("30A,M1,A,1,", "line 3: non-hexadecimal"),
        (",M1,A,1,", "line 3: epc: expected 1 to 62 bytes"),
        ("30A1,,A,1,", "line 3: member: empty"),
        (f"30A1,M1,{'A' * 33},1,", "line 3: tier: at most 32"),
        ("30A1,M1,A,maybe,", "line 3: consent: 'maybe'"),
        ("30A1,M1,A,1,tea,tomorrow", "line 3: hint_until_us: 'tomorrow'"),
    ],
)
def test_a_directory_that_stores_would_refuse_is_not_pushed(
    chain: str, conn: Any, tmp_path: Path, line: str, reason: str
) -> None:
    file = tmp_path / "members.csv"
    file.write_text(f"epc,member,tier,consent,hint\n30A0,M0,A,yes,tea\n{line}\n")
    with pytest.raises(Trouble, match=re.escape(reason)):
        call("push", "directory", str(file), "--database", chain)
    assert conn.execute("SELECT count(*) FROM chain.directory_file").fetchone() == (0,)


def test_a_directory_as_stores_import_it_is_pushed_as_they_take_it(tmp_path: Path) -> None:
    file = tmp_path / "members.csv"
    file.write_text('\ufeffepc,member,tier,consent,hint\r\n30A0,M0,A,Yes,"tea, at 5"\r\n30A1,M1,,,\r\n')
    made = tmp_path / "made.csv.gz"
    made.write_bytes(members.packed(file))
    rows = [row[1:] for row in parse(made, b"k" * 32, whole=True)]
    assert rows == [("M0", "A", 1, "tea, at 5", None), ("M1", "", 0, None, None)]
    file.write_bytes(made.read_bytes())
    assert members.packed(file) == made.read_bytes()
    for cut_off in (made.read_bytes()[:-9], made.read_bytes()[:12] + b"\xff" * 20):
        file.write_bytes(cut_off)
        with pytest.raises(ValueError):
            members.packed(file)


LONGEST = {
    "epc": "00" * 62,
    "member": "M" * 128,
    "tier": "t" * 32,
    "consent": "1",
    "hint": "h" * 300,
    "hint_until_us": str(2**63 - 1),
}


@pytest.mark.parametrize("longer", ["", *(name for name in LONGEST if name != "consent")])
def test_headquarters_and_stores_have_the_same_limits_for_directories(tmp_path: Path, longer: str) -> None:
    """Neither may import the other."""
    row = LONGEST | ({longer: str(2**63) if longer == "hint_until_us" else LONGEST[longer] + "00"} if longer else {})
    file = tmp_path / "members.csv"
    file.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    packed = tmp_path / "members.csv.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    if not longer:
        assert len(list(parse(packed, b"k" * 32, whole=True))) == 1
        assert members.packed(file)
        return
    with pytest.raises(FetchError):
        list(parse(packed, b"k" * 32, whole=True))
    with pytest.raises(ValueError, match=longer):
        members.packed(file)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("s1,2026-03-14T10:00,shoes,1,,,", "line 3: hour: '2026-03-14T10:00' has no offset"),
        ("s1,yesterday,shoes,1,,,", "line 3: Invalid isoformat"),
        ("s1,2026-03-14T10:00Z,shoes,-1,,,", "line 3: tickets: Input should be greater"),
        ("s1,2026-03-14T10:00Z,shoes,,,,", "line 3: tickets: Field required"),
        ("s1,2026-03-14T10:00Z,shoes,1,,5,", "line 3: amount: its currency is missing"),
        ("s1,2026-03-14T10:00Z,shoes,1,,5,yuan", "line 3: currency: 'yuan'"),
        (",2026-03-14T10:00Z,shoes,1,,,", "line 3: store: empty"),
        ("s1,2026-03-14T10:00Z,shoes,1,,,,9", "line 3: more cells"),
    ],
)
def test_a_file_of_sales_with_a_wrong_line_is_not_sent(
    chain: str, conn: Any, tmp_path: Path, line: str, reason: str
) -> None:
    file = tmp_path / "sales.csv"
    head = "store,hour,zone,tickets,units,amount,currency\ns1,2026-03-14T10:00Z,bags,1,,,\n"
    file.write_text(head + line)
    with pytest.raises(Trouble, match=re.escape(reason)):
        call("push", "sales", str(file), "--database", chain)
    assert conn.execute("SELECT count(*) FROM chain.command").fetchone() == (0,)
    file.write_text("store,hour,tickets\n")
    with pytest.raises(Trouble, match="the column zone is missing"):
        call("push", "sales", str(file), "--database", chain)


def test_an_hour_is_taken_back_by_name_and_not_by_an_empty_cell(chain: str, conn: Any, tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text("store,hour,zone,tickets\ns1,2026-03-14T10:00Z,shoes,unknown\n")
    call("push", "sales", str(file), "--database", chain, "--within", "1")
    (row,) = conn.execute("SELECT body FROM chain.command").fetchall()
    assert row[0] == {"hours": [{"zone": "shoes", "hour_us": 1773482400000000, "tickets": None}]}
    assert Sales.model_validate({"id": "x", **row[0]}).hours[0].tickets is None


def test_stores_that_have_not_answered_sales_are_named(chain: str, conn: Any, tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text("store,hour,zone,tickets\ns1,2026-03-14T10:00Z,shoes,1\n")
    done = call("push", "sales", str(file), "--database", chain, "--within", "1")
    assert done.exit_code == 1
    assert done.stdout.startswith("0 hours taken, 0 refused\n")
    assert "not answered yet: s1" in done.output
    (row,) = conn.execute("SELECT store, name, body FROM chain.command").fetchall()
    assert row == ("s1", "sales", {"hours": [{"zone": "shoes", "hour_us": 1773482400000000, "tickets": 1}]})


def test_keeping_times_are_set_one_by_one(chain: str, conn: Any) -> None:
    assert call("setup", "--database", chain, "--keep-windows", "90").stdout == "up to date\n"
    found = dict(conn.execute("SELECT name, value FROM chain.setting").fetchall())
    assert found == {"keep_events_days": "35", "keep_windows_days": "90", "keep_members_days": "400"}


def test_a_database_that_is_not_there_is_one_line() -> None:
    nowhere = f"postgresql://crm@127.0.0.1:{free_port()}/postgres"
    for command in (("status",), ("setup",), ("replay",), ("erase", "M1")):
        with pytest.raises(Trouble, match="database"):
            call(*command, "--database", nowhere)


def test_options_are_checked_before_anything_begins(chain: str, tmp_path: Path) -> None:
    sink = ("sink", "--broker", "mqtt://127.0.0.1:1", "--database", chain)
    wrong: tuple[str, ...]
    for wrong in (("--shards", "5-1"), ("--shards", "0-64"), ("--lane", "fast"), ("--mqtt", "4")):
        assert call(*sink, *wrong).exit_code == 2, wrong
    assert call("sink", "--broker", "http://x", "--database", chain).exit_code == 2
    read = ("read", "--log", "nats://127.0.0.1:1", "--to")
    for wrong in (
        (f"csv:{tmp_path}",),
        (f"parquet:{tmp_path}", "--classes", "all"),
        (f"parquet:{tmp_path}", "--shards", "x"),
    ):
        assert call(*read, *wrong).exit_code == 2, wrong
