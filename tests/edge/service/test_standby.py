"""A standby as store IT runs it: processes, TLS, a takeover by command, and what is said in a line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import forked
from certificates import Authority
from gateways import Gateway, antennas
from pairs import SECOND, Machine, pair_of


def configured(gateway: Gateway, **standby: Any) -> None:
    authority = Authority(gateway.folder / "ca")
    cert = authority.issue("service")
    parts = pair_of(gateway, **standby)
    parts["forwarding"] |= {
        "cert": str(cert),
        "key": str(cert.with_suffix(".key")),
        "ca": str(authority.folder / "ca.pem"),
    }
    near = {"id": "near", "driver": "llrp", "address": "127.0.0.1:1", "antennas": antennas("door")}
    gateway.configure(readers=[near], **parts)


async def test_a_service_hands_over_by_command_and_stands_by_afterwards(gateway: Gateway, tmp_path: Path) -> None:
    configured(gateway)
    second = Machine(tmp_path / "b", gateway, SECOND)
    first = Machine(tmp_path / "a", gateway, "first")
    first.folder, first.database, first.file = gateway.folder, gateway.database, gateway.file
    try:
        first.begin("run", "--no-web")
        second.begin("standby", "--as", SECOND, "--no-web")
        await first.until(lambda state: state["standby"]["protected"])
        state = await second.standby(lambda state: state["protected"])
        assert (state["connected"], state["reason"]) == (True, "")
        done = await asyncio.to_thread(forked.run, "doctor", "--config", second.file)
        assert "this gateway stands by, and has everything" in done.stdout
        done = await asyncio.to_thread(forked.run, "run", "--config", second.file)
        assert done.returncode == 3
        assert "this gateway is the standby" in done.stderr
        takeover = ("takeover", "--config", second.file, "--as", SECOND)
        done = await asyncio.to_thread(forked.run, *takeover, given=b"n\n")
        assert done.returncode == 1
        assert "Nothing is lost." in done.stdout
        done = await asyncio.to_thread(forked.run, *takeover, "--yes")
        assert done.returncode == 0, done.stderr + second.log()
        assert "The other gateway has handed over; this gateway runs the service" in done.stdout
        assert await asyncio.to_thread(first.process.wait, 30) == 3
        assert "make this gateway its standby with tagtrail standby" in first.log()
        # It does not serve any more, however often it is started; as the standby it gets everything.
        done = await asyncio.to_thread(forked.run, "run", "--config", first.file, "--no-web")
        assert done.returncode == 3, done.stderr
        first.begin("standby", "--no-web")
        await second.until(lambda state: state["standby"]["protected"])
        assert second.rows("SELECT count(*) FROM lost") == [(0,)]
        done = await asyncio.to_thread(forked.run, *takeover, "--yes")
        assert done.stderr == "tagtrail: this gateway has taken over already\n"
        assert first.end() == 0, first.log()
        assert second.end() == 0, second.log()
    finally:
        first.close()
        second.close()
    assert "Traceback" not in first.log() + second.log()


async def test_mistakes_are_said_in_a_line(gateway: Gateway, tmp_path: Path) -> None:
    near = {"id": "near", "driver": "llrp", "address": "r1", "antennas": antennas("door")}
    gateway.configure(readers=[near])
    for command in ("standby", "takeover"):
        done = await asyncio.to_thread(forked.run, command, "--config", gateway.file)
        assert done.stderr == "tagtrail: the store file has no [standby]; see docs/gateways.md\n"
    done = await asyncio.to_thread(forked.run, "witness", "--config", gateway.file)
    assert 'no [standby] with witness = "HOST:PORT"' in done.stderr
    configured(gateway)
    done = await asyncio.to_thread(forked.run, "standby", "--config", gateway.file, "--as", "gateway-z")
    assert f"no gateway 'gateway-z' that may run the service: --as {SECOND}, or without" in done.stderr
    done = await asyncio.to_thread(forked.run, "takeover", "--config", gateway.file, "--yes")
    assert "this gateway is not the standby" in done.stderr
    parts = pair_of(gateway, address="203.0.113.7:8790")
    gateway.configure(readers=[near], **parts)
    done = await asyncio.to_thread(forked.run, "standby", "--config", gateway.file, "--as", SECOND)
    assert "203.0.113.7:8790 is not an address of this machine" in done.stderr
    gateway.configure(readers=[near], **(parts | {"forwarding": {"address": "203.0.113.7:8790"}}))
    done = await asyncio.to_thread(forked.run, "check", gateway.file)
    assert "standby.address: the standby is another gateway: its address is that of the service" in done.stderr
    del parts["forwarding"]
    gateway.configure(readers=[near], **parts)
    done = await asyncio.to_thread(forked.run, "check", gateway.file)
    assert "a standby needs [forwarding] with the address of the service" in done.stderr
