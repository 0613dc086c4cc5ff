"""A standby as store IT runs it: processes, TLS, a takeover by command, and what is said in a line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import forked
import pytest
from certificates import Authority
from forwarding import TOKEN, until
from gateways import Gateway, antennas
from pairs import SECOND, Machine, elsewhere, pair_of, serving
from rigs import T0, HandClock, shop_of

from config import StoreConfig
from edge.doctor.readers import standing_by as standing_by_doctor
from edge.service import standby
from edge.service.standby import StandbyService
from edge.standby import roles
from edge.standby.mirror import copy_of
from edge.standby.takeover import Plan
from edge.store.compose import Shop
from edge.store.errors import Trouble


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


def both(gateway: Gateway, folder: Path, **parts: Any) -> tuple[Shop, StoreConfig]:
    """The store as the service has it, and its file on the standby, whose database is in a folder of its own."""
    shop = shop_of(gateway, **parts, **pair_of(gateway))
    folder.mkdir()
    return shop, elsewhere(shop.config, folder)


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
        done = await asyncio.to_thread(forked.run, "status", "--config", second.file)
        assert done.returncode == 0
        assert done.stdout.endswith(": stands by, and has everything\n")
        done = await asyncio.to_thread(forked.run, "status", "--json", "--config", second.file)
        assert (done.returncode, done.stdout) == (1, ""), "of which the installer expects no more than that it starts"
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


async def test_a_service_whose_disk_is_full_stops_but_does_not_say_that_nothing_is_lost(
    gateway: Gateway, tmp_path: Path
) -> None:
    """It can't note that it must not serve any more: if it did, its numbers could be given twice."""
    configured(gateway)
    second = Machine(tmp_path / "b", gateway, SECOND)
    try:
        gateway.start("--no-web")
        second.begin("standby", "--as", SECOND, "--no-web")
        await gateway.until(lambda state: state["standby"]["protected"])
        await second.standby(lambda state: state["protected"])
        gateway.database.with_name("store.db.fenced.new").mkdir()
        done = await asyncio.to_thread(forked.run, "takeover", "--config", second.file, "--as", SECOND, "--yes")
        assert "The other gateway has not handed over; this gateway runs the service" in done.stdout, second.log()
        assert gateway.process is not None
        assert await asyncio.to_thread(gateway.process.wait, 30) == 3
        assert "that could not be noted" in gateway.log()
        assert second.rows("SELECT count(*) FROM lost") == [(4,)]
    finally:
        second.close()


async def test_what_a_takeover_would_lack_is_said_before_it(gateway: Gateway, tmp_path: Path) -> None:
    """An hour's difference of clocks, and a tag key that is a credential on the service's gateway only."""
    clock, other = HandClock(time=[T0]), HandClock(time=[T0 + 3_600_000_000])
    token = gateway.folder / "g1.token"
    token.write_bytes(TOKEN)
    readers = [{"id": "r1", "driver": "llrp", "address": "r1", "via": "g1", "antennas": antennas("door")}]
    forwarders = [{"id": "g1", "token_file": str(token)}]
    shop, config = both(gateway, tmp_path / "b", readers=readers, forwarders=forwarders)
    second = StandbyService(config, SECOND, other)
    standing_by = asyncio.create_task(second.stand_by())
    async with serving(shop, clock) as active:
        await active.protected()
        key = config.database.path.with_name("store.db.tag-key")
        await until(key.exists)
        await until(lambda: not second.told()["keyless"])
        key.write_text("00" * 32)
        await until(lambda: second.told()["heard_us"])
        found = {one.what: one.said for one in standing_by_doctor(second.told())}
        assert "another tag key than the service" in found["tag key"]
        assert "are 60 min apart" in found["clock"]
        plan = await Plan.of(config, SECOND)
        assert "nobody is recognised until the directory comes again" in plan.text
        assert "The clocks of the two gateways are 60 min apart" in plan.text
    second.stop()
    assert not await standing_by
    # Once it has to serve, a token that is missing would be noticed too late.
    token.unlink()
    with pytest.raises(Trouble, match=r"can't read the token .*g1\.token"):
        StandbyService(config, SECOND, other)


async def test_a_takeover_that_fails_can_be_tried_again(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "HAND_OVER_S", 0.1)
    clock = HandClock(time=[T0])
    shop, config = both(gateway, tmp_path / "b")
    second = StandbyService(config, SECOND, clock)
    standing_by = asyncio.create_task(second.stand_by())
    async with serving(shop, clock) as active:
        await active.protected()
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(roles, "create_private", full)
            with pytest.raises(Trouble, match=r"can't be put in place: .*No space left"):
                await second.take_over()
        # It stands by again, for a copy without the term that did not begin.
        await until(lambda: active.shipping.copies == 2)
        await active.protected()
        assert not roles.serves(config.database.path)
    took = await second.take_over(exact=True)
    assert took["term"] > active.pairing.term
    assert await second.take_over() == took, "a second one at the same time"
    second.stop()
    assert await standing_by
    assert roles.serves(config.database.path)


async def test_a_service_is_not_stopped_for_a_gateway_that_could_not_serve(gateway: Gateway, tmp_path: Path) -> None:
    clock = HandClock(time=[T0])
    shop, config = both(gateway, tmp_path / "b")
    second = StandbyService(config, SECOND, clock)
    async with serving(shop, clock) as active:
        await active.rig.database.write(
            lambda conn: conn.execute("UPDATE _sqlite_migrations SET name = '9999_later' WHERE rowid = 1")
        )
        standing_by = asyncio.create_task(second.stand_by())
        await active.protected()
        assert "written by a newer Tagtrail" in second.told()["unfit"]
        with pytest.raises(Trouble, match="written by a newer Tagtrail"):
            await second.take_over()
        assert not active.superseded
        second.stop()
        assert not await standing_by


async def test_a_standby_that_ended_before_it_put_its_former_database_away_does_so(
    gateway: Gateway, tmp_path: Path
) -> None:
    clock = HandClock(time=[T0])
    shop = shop_of(gateway, **pair_of(gateway))
    async with serving(shop, clock):
        pass
    path = gateway.database
    copy_of(path).write_bytes(path.read_bytes())
    roles.fence(path, 5, SECOND)
    service = StandbyService(shop.config, None, clock)
    assert not path.exists()
    assert roles.fenced(path) is None
    assert service.told()["term"] == 5
    stopping = asyncio.create_task(service.stand_by())
    service.stop()
    assert not await stopping


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
