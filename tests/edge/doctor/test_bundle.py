"""A bundle for support has what is needed, and nobody's number, no EPC and no secret."""

from __future__ import annotations

import asyncio
import gzip
import json
import tarfile
from pathlib import Path

import pytest
from gateways import Gateway

from config.check import load
from edge.database.keys import tag_key_file
from edge.database.writer import Database
from edge.doctor import bundle
from edge.store.live_socket import LiveServer, socket_path

EPC = "3034257BF4499602D2A1B2C3"
MEMBERS = ("M-1234567", "VIP8", "张三")


@pytest.fixture
def store(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A store with members, an EPC in a health event, a login in an address, and a log that says too much."""
    gateway.configure(mqtt={"url": "mqtt://127.0.0.1:1"})
    database = Database(gateway.database, store="s1", quota_mb=64)
    rows = [(bytes([n]), member) for n, member in enumerate(MEMBERS)]
    insert = "INSERT INTO directory (tag, member, tier, consent) VALUES (?, ?, 'gold', 1)"
    database.write_now(lambda conn: conn.executemany(insert, rows).fetchall())
    event = json.dumps({"type": "reader", "reason": f"odd tag {EPC}"})
    database.write_now(lambda conn: conn.execute("INSERT INTO outbox_health VALUES (1, ?)", (event,)).fetchall())
    database.close()
    key = tag_key_file(gateway.database).read_text().strip()
    said = f"greeted {MEMBERS[0]}. {MEMBERS[1]}, {EPC.lower()} ({MEMBERS[2]}) at mqtt://s1:pw@b with {key}\nplain words"
    monkeypatch.setattr(bundle, "_journal", lambda store: said)
    return gateway


async def test_planted_secrets_are_in_no_part(store: Gateway, tmp_path: Path) -> None:
    config = load(store.file)
    live = {"as_of_us": 1, "version": "1", "members": [{"member": MEMBERS[0]}], "recognitions": [], "cues": {}}
    live |= {"readers": [], "broker": {"connected": True, "reason": ""}, "database": {"trouble": None}, "outbox": {}}
    live |= {"failing": [], "certificates": [], "clock": {"trust": "trusted", "reason": f"as {MEMBERS[1]} said"}}
    server = LiveServer(socket_path(config), lambda: live)
    running = asyncio.create_task(server.run())
    while not socket_path(config).exists():
        await asyncio.sleep(0.01)
    out = tmp_path / "bundle.tar.gz"
    with out.open("wb") as file:
        await bundle.write(config, store.file, "1", lambda: 1, file)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    text = gzip.decompress(out.read_bytes()).decode()
    key = tag_key_file(store.database).read_text().strip()
    for secret in (*MEMBERS, EPC, EPC.lower(), key, "s1:pw"):
        assert secret not in text, secret
    with tarfile.open(out) as tar:
        assert set(tar.getnames()) == {
            *("doctor.txt", "status.json", "store.toml", "schema.txt", "health.jsonl", "log.txt")
        }
    for kept in ("plain words", "directory 3", "odd tag [hex]", "url = ", "0001_start"):
        assert kept in text


def test_what_only_looks_like_a_number_stays() -> None:
    text = "reader r1 at 10.0.0.7:5084, epoch 0123456789abcdef, 2026-03-14T12:00:00"
    assert bundle.cleaned(text, {"M1"}) == text
    assert bundle.cleaned("M1, M1. M12 xM1", {"M1"}) == "[member], [member] M12 xM1"


def test_by_the_command(store: Gateway, tmp_path: Path) -> None:
    done = store.run("support-bundle", "-c", str(store.file), "--out", str(tmp_path / "b.tar.gz"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o077 == 0
