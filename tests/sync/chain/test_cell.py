"""The configuration files of docs/chain, on real servers: certificates, access rules, roles, and a cluster of three."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from pathlib import Path
from typing import Any

import psycopg
import pytest
from brokers import MOSQUITTO, Until, need_mosquitto
from certificates import Authority
from chains import in_the_log
from forked import Forked, run
from herds import Herd

from simulators.headquarters.broker import Broker, binary, free_port
from sync.mqtt import BrokerError, MqttSettings
from sync.mqtt import connect as connect_to_broker

DOCUMENTS = Path(__file__).parents[3] / "docs/chain"


def replaced(name: str, **others: str) -> str:
    """A file of the documents, with paths and ports of this test; every replacement must be found."""
    text = (DOCUMENTS / name).read_text("utf-8")
    for old, new in others.items():
        assert old in text, (name, old)
        text = text.replace(old, new)
    return text


class Cell(Broker):
    """Mosquitto with the cell's configuration."""

    def command(self) -> list[str]:
        file = self._folder / "mosquitto.conf"
        others = {"/etc/tagtrail-chain": str(self._folder), "listener 8883": f"listener {self.port} 127.0.0.1"}
        file.write_text(replaced("mosquitto.conf", **others) + "user root\n")
        acl = self._folder / "mosquitto.acl"
        acl.write_text((DOCUMENTS / "mosquitto.acl").read_text())
        acl.chmod(0o600)
        return [str(MOSQUITTO), "-c", str(file)]


class Node(Broker):
    """A node of the log with the documents' configuration."""

    def __init__(self, folder: Path, number: int, routes: list[int]) -> None:
        super().__init__(folder)
        self._number, self._routes = number, routes

    def command(self) -> list[str]:
        file = self._folder / f"nats-{self._number}.conf"
        others = {
            "$LOG_NODE": f"log-{self._number}",
            "0.0.0.0:4222": f"127.0.0.1:{self.port}",
            "0.0.0.0:6222": f"127.0.0.1:{self._routes[self._number - 1]}",
            "/etc/tagtrail-chain": str(self._folder),
            "/var/lib/nats": str(self._folder / f"store-{self._number}"),
            "200GB": "8GB",
        } | {f"nats://log-{n}:6222": f"nats://127.0.0.1:{port}" for n, port in enumerate(self._routes, 1)}
        file.write_text(replaced("nats.conf", **others))
        return [binary(), "-c", str(file)]


@pytest.fixture
def database(postgres: str) -> dict[str, str]:
    """The database of the documents' roles, by role."""
    name = postgres.rsplit("/", 1)[1]
    statements = re.sub(r"--.*", "", (DOCUMENTS / "postgres.sql").read_text("utf-8"))
    statements = re.sub(r"\btagtrail\b", f"{name}_chain", statements)
    with psycopg.connect(postgres, autocommit=True) as conn:
        for one in filter(str.strip, statements.split(";")):
            role = re.search(r"CREATE ROLE (\w+)", one)
            if role and conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role[1],)).fetchone():
                continue
            conn.execute(one.encode())
    url = postgres.replace(f"/{name}", f"/{name}_chain")
    return {role: url.replace("//crm@", f"//tagtrail_{role}@") for role in ("chain", "sink", "reader")}


async def test_a_cell_stands_from_the_documents_files(tmp_path: Path, database: dict[str, str], until: Until) -> None:
    """Sinks with the rights of sinks only, a store that may speak for itself only, and a reader that may only read."""
    need_mosquitto()
    authority = Authority(tmp_path / "etc")
    for name in ("broker", "log", "sink", "reader", "s1", "s2"):
        authority.issue(name)
    folder = authority.folder
    routes = [free_port() for _ in range(3)]
    nodes = [Node(folder, n, routes) for n in (1, 2, 3)]

    def tls(prefix: str, name: str) -> list[str]:
        files = {"ca": "ca.pem", "cert": f"{name}.pem", "key": f"{name}.key"}
        return [part for what, file in files.items() for part in (f"--{prefix}{what}", str(folder / file))]

    log = ["--log", ",".join(f"tls://127.0.0.1:{node.port}" for node in nodes)]
    set_up = run("chain", "setup", "--database", database["chain"], "--keep-events", "20")
    assert (set_up.returncode, set_up.stdout[:7]) == (0, "applied"), set_up.stderr
    sinks: list[Forked] = []
    async with Cell(folder) as cell:
        await asyncio.gather(*(node.start() for node in nodes))
        url = cell.url.replace("mqtt:", "mqtts:")
        try:
            with (tmp_path / "sink.log").open("wb") as said:
                for lane in ("member", "bulk"):
                    arguments = ["--broker", url, "--database", database["sink"], "--lane", lane, "--log-gib", "1"]
                    sinks.append(
                        Forked(
                            "chain",
                            "sink",
                            *arguments,
                            *tls("", "sink"),
                            *log,
                            *tls("log-", "sink"),
                            out=said,
                            err=said,
                        )
                    )
            own: dict[str, Any] = {"ca": folder / "ca.pem", "cert": folder / "s1.pem", "key": folder / "s1.key"}
            async with asyncio.timeout(60):
                await Herd(url, ["s1"], ("member", "agg"), 30, 4, connections=1, **own).run()
            with psycopg.connect(database["reader"], autocommit=True) as conn:
                query = "SELECT received, online FROM chain.freshness WHERE store = 's1'"
                assert conn.execute(query).fetchone() == (60, None)
                for forbidden in (
                    "SELECT * FROM chain.visit",
                    "SELECT chain.keep_house()",
                    "SELECT * FROM chain.erasure",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        conn.execute(forbidden.encode())
            with psycopg.connect(database["chain"], autocommit=True) as conn:
                await until(lambda: in_the_log(conn), within_s=60)
                query = "SELECT value FROM chain.setting WHERE name = 'keep_events_days'"
                assert conn.execute(query).fetchone() == ("20",)
            lake = tmp_path / "lake"
            read = ("chain", "read", *log, "--to", f"parquet:{lake}", "--once")
            done = await asyncio.to_thread(run, *read, *tls("log-", "reader"), "--classes", "member,agg")
            assert (done.returncode, done.stdout) == (0, "60 events\n"), done.stderr
            status = await asyncio.to_thread(run, "chain", "status", "--database", database["sink"], "--json")
            told = json.loads(status.stdout)
            assert [sink["lane"] for sink in told["sinks"]] == ["bulk", "member"]
            assert [(one["store"], one["behind"]) for one in told["stores"]] == [("s1", 0)]
            shown = await asyncio.to_thread(run, "chain", "status", "s1", "--database", database["sink"])
            assert "64 of 0-63" in shown.stdout
            # What isn't signed by the chain's authority gets nowhere, and a store can't write as another.
            with pytest.raises(BrokerError):
                async with connect_to_broker(MqttSettings.from_url(url, "stranger", ca=folder / "ca.pem")):
                    pass
            own["cert"], own["key"] = folder / "s2.pem", folder / "s2.key"
            forged = Herd(url, ["s3"], ("agg",), 1, 1, connections=1, **own)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await forged.run()
            reader, writer = await asyncio.open_connection("127.0.0.1", nodes[0].port)
            assert b"tls_required" in await reader.readline()
            writer.close()
            assert ssl.HAS_TLSv1_3
        finally:
            for sink in sinks:
                sink.kill()
            await asyncio.gather(*(node.stop() for node in nodes))
    assert "Traceback" not in (tmp_path / "sink.log").read_text()
