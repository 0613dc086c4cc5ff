"""A chain's headquarters on six bare machines, by the words of docs/chain: every command of its README is run as it
stands there, on the host that it names. A store's real service sends; what an operator does is done once; and all of it
comes back after a power cut."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bare_roots
import pytest
import tomli_w
from booted import WITHIN_S, Booted, newest, why_not
from chains import dashboard_queries
from gateways import STORE, antennas
from networks import DIES_WITH_US, Network, address
from parts import in_files
from technician import ROOT, TAGS

from config.tags import sgtin96
from config.topics import SHARDS

DOCUMENTS = ROOT / "docs/chain"
README = (DOCUMENTS / "README.md").read_text("utf-8")
WHEEL = newest(list((ROOT / "wheelhouse").glob("tagtrail-*.whl")))
HOSTS = {"db": 1, "cell-1": 2, "sink-1": 3, "log-1": 4, "log-2": 5, "log-3": 6}
"""And their numbers on the network."""
STORE_NUMBER = 7
ZONES = ("shoes", "bags", "shoes", "bags")
PAIRS = {
    "db": {"db": "db"},
    "cell-1": {"broker": "broker"},
    "sink-1": {name: name for name in ("sink", "operator", "reader")},
    "log-1": {"log-1": "log"},
    "log-2": {"log-2": "log"},
    "log-3": {"log-3": "log"},
}
"""Certificates that the document's prose has copied to each host, and their names there."""
FIRST = """
{around}
echo {host} >etc/hostname
cp '{folder}/hosts' etc/hosts
cp -r '{folder}/chain' root/chain
"""
FILES = {
    "shared.toml": "[thresholds]\nsmall_cell = 9\n",
    "yesterday.csv": f"store,hour,zone,tickets\ns1,{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H}:00Z,shoes,1\n",
    "members.csv": "epc,member,tier,consent,hint\n"
    + "".join(f"{sgtin96('9521141', 1, n).hex()},M{n:06},A,1,\n" for n in range(TAGS)),
}
ERASED = "M000003"
QUERY = """
import json, sys, psycopg
with psycopg.connect(sys.argv[1]) as conn:
    for query in json.load(sys.stdin):
        rows = conn.execute(query).fetchall() if query else []
        print(len(rows), rows[:1])
"""

REASON = why_not() or bare_roots.why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.skipif(WHEEL is None, reason="no wheel in wheelhouse/: make wheelhouse"),
    pytest.mark.timeout(1800),
]


def blocks(title: str) -> list[tuple[list[str], str]]:
    """The hosts, and the commands, of each block in a section of the document."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```\n# on ([^\n]+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [(hosts.split(", "), script) for hosts, script in found]


def command(*words: str) -> str:
    """The one command of the document's table that begins with these words."""
    (found,) = re.findall(rf"`(tagtrail {' '.join(words)}[^`]*)`", README.split("\n## Day by day\n")[1])
    return str(found)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def hosts(tmp_path: Path, network: Network) -> Iterator[dict[str, Booted]]:
    """Bare machines, each with docs/chain in its folder /root/chain, and the names of all."""
    assert WHEEL is not None
    named = "".join(f"{address(number)} {host}\n" for host, number in HOSTS.items())
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{named}")
    shutil.copytree(DOCUMENTS, tmp_path / "chain")
    packages = tmp_path / "packages"
    packages.mkdir()
    shutil.copy(WHEEL, packages)
    others = re.findall(r"/pip install ([\w-]+)$", README, re.MULTILINE)
    bare_roots.wheels(packages, f"{packages / WHEEL.name}[chain,parquet]", *others)
    root = bare_roots.debian(sorted(set(re.findall(r"^apt install (.+)$", README, re.MULTILINE))))
    made: dict[str, Booted] = {}
    try:
        for host, number in HOSTS.items():
            folder = tmp_path / host
            folder.mkdir()
            made[host] = Booted(
                folder, packages, root, FIRST.format(around=bare_roots.AROUND, host=host, folder=tmp_path)
            )
            made[host].boot()
            network.plug(made[host].pid, number)
        shutil.copy(WHEEL, made["sink-1"].files / "root/chain")
        yield made
    finally:
        for machine in made.values():
            machine.cut_power()


class Store:
    """A gateway with one reader on the network; its certificates are beside its store file."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._folder = folder
        self._space = network.space()
        self._running: list[subprocess.Popen[bytes]] = []
        network.plug(self._space, STORE_NUMBER)

    def start(self) -> None:
        (settings,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
        settings = settings.replace("/etc/tagtrail/", f"{self._folder}/")
        reader = {"id": "r1", "driver": "llrp", "address": "127.0.0.1:5084", "antennas": antennas(*ZONES)}
        classes = [{"class": "member", "epc_prefix": "30"}]
        made = STORE | {"mqtt": tomllib.loads(settings)["mqtt"], "tag_classes": classes, "readers": [reader]}
        made |= {"database": {"path": str(self._folder / "store.db"), "checkpoint_s": 1}}
        (self._folder / "store.toml").write_text(tomli_w.dumps(made))
        self._run("simulate", "reader", "--port", "5084", "--tags", TAGS, "--rate", "40")
        self._run("run", "--config", self._folder / "store.toml")

    def close(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait(30)

    def said(self) -> str:
        return (self._folder / "store.log").read_text()

    def _run(self, *arguments: object) -> None:
        """Run a command of ours in the store's network, with the hosts' names."""
        names = ("sh", "-ec", f"mount --bind '{self._folder.parent}/hosts' /etc/hosts; exec \"$@\"", "sh")
        within = (*DIES_WITH_US, "nsenter", "-t", str(self._space), "-n", "unshare", "--mount", *names)
        with (self._folder / "store.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [*within, sys.executable, "-m", "edge", *map(str, arguments)],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )


@pytest.fixture
def store(network: Network, hosts: dict[str, Booted], tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "store"
    folder.mkdir()
    made = Store(network, folder)
    yield made
    made.close()


def test_headquarters_stand_by_the_documents_words(
    hosts: dict[str, Booted], network: Network, store: Store, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    began = time.monotonic()
    ca, sink = tmp_path / "ca", hosts["sink-1"]
    for names, script in blocks("Setting it up"):
        if names == ["ca"]:
            sink.sh(f"mkdir ca; cd ca\n{script}")
            shutil.copytree(sink.files / "ca", ca)
            verified = ("verify", "-x509_strict", "-CAfile", ca / "ca.pem", *ca.glob("[!c]*.pem"))
            subprocess.run(["openssl", *map(str, verified)], check=True)
            for host, pairs in PAIRS.items():
                into = hosts[host].files / "etc/tagtrail-chain"
                into.mkdir()
                shutil.copy(ca / "ca.pem", into)
                for name, there in pairs.items():
                    for kind in ("pem", "key"):
                        shutil.copy(ca / f"{name}.{kind}", into / f"{there}.{kind}")
            continue
        for name in names:
            hosts[name].sh(f"cd /root/chain\n{script}")
        if names == ["db"]:
            shutil.move(hosts["db"].files / "root/chain/passwords", sink.files / "root/chain/passwords")
    installed_s = time.monotonic() - began

    def chain(given: str) -> str:
        return sink.sh(f"cd /root/chain; . ~/chain.env; {given}")

    def status() -> Any:
        return json.loads(chain(f"{command('chain', 'status')} --json"))

    def until(condition: Callable[[], object]) -> None:
        until_s = time.monotonic() + WITHIN_S
        while not condition():
            if time.monotonic() > until_s:
                pytest.fail(
                    f"{sink.journal('tagtrail-chain-sink@*')[-3000:]}{json.dumps(status())}{store.said()[-3000:]}"
                )
            time.sleep(0.5)

    until(lambda: sum(len(one["shards"]) for one in status()["sinks"]) == 2 * SHARDS)
    assert [one["lane"] for one in status()["sinks"]] == ["bulk", "bulk", "member", "member"]

    # A store.
    for name in ("ca.pem", "s1.pem", "s1.key"):
        shutil.copy(ca / name, tmp_path / "store")
    store.start()
    until(lambda: [one["store"] for one in status()["stores"]] == ["s1"])
    for name, text in FILES.items():
        (sink.files / "root/chain" / name).write_text(text)
    assert chain("tagtrail chain push directory members.csv").startswith("wave 1: 1 applied, 0 refused")
    assert chain(command("chain", "push", "config")).startswith("wave 1: 1 applied, 0 refused")
    assert chain(command("chain", "push", "sales")) == "1 hours taken, 0 refused"

    # What can be seen: as Grafana would, with the reader's password and over TLS.
    def seen(*queries: str) -> list[str]:
        url = "postgresql://tagtrail_reader@db/tagtrail?sslmode=verify-full&sslrootcert=/etc/tagtrail-chain/ca.pem"
        python = ("/opt/tagtrail-chain/bin/python", "-c", QUERY, url)
        return sink.run(*python, given=json.dumps(queries), PGPASSFILE="/root/chain/passwords").stdout.splitlines()

    recognised = "SELECT seq FROM chain.event_by_id WHERE type = 'recognised'"
    until(lambda: seen(recognised)[0].startswith(f"{TAGS} "))
    panels = dashboard_queries(DOCUMENTS / "dashboard.json")
    shown = seen(*panels)
    assert len(shown) == len(panels)

    # A second reader, an erasure, and what was there sent and fed once more: in the reader's files it is once.
    until(lambda: status()["not_in_the_log"] == 0)
    ((_, reading),) = blocks("Reading the log")
    read = chain(reading).splitlines()[-1]
    assert int(read.removesuffix(" events")) > TAGS
    assert chain(command("chain", "erase").replace("M000123", ERASED)) == "erased at 1 stores"
    proof = json.loads((sink.files / "root/chain" / f"{ERASED}.json").read_text())
    assert proof["log"]["erased"] > 0, proof
    assert chain("tagtrail chain replay") == "nothing is missing"
    assert chain("tagtrail chain replay s1 --class member") == "1 replays will be asked for"
    until(lambda: status()["stores"][0]["commands"] == 0)
    assert " events will be published again" in chain(command("chain", "replay", "--to-log"))
    until(lambda: status()["not_in_the_log"] == 0)
    chain(reading)
    held = in_files(sink.files / "var/lib/lake")
    assert set(held.values()) == {1}
    assert len(held) >= int(read.removesuffix(" events"))

    # Upgrading, as the same table says.
    assert chain(command("chain", "setup")) == "up to date"

    # All of it loses its power, and comes back by itself.
    received = status()["stores"][0]["received"]
    for machine in hosts.values():
        machine.cut_power()
    for host, number in HOSTS.items():
        hosts[host].boot()
        network.plug(hosts[host].pid, number)

    def works_again() -> bool:
        with contextlib.suppress(AssertionError):
            told = status()
            held = sum(len(one["shards"]) for one in told["sinks"])
            return held == 2 * SHARDS and told["not_in_the_log"] == 0 and told["stores"][0]["received"] > received
        return False

    until(works_again)
    tell(
        f"headquarters on {len(HOSTS)} bare machines by docs/chain, set up in {installed_s:.0f} s; "
        f"{len(held)} events in a reader's files once"
    )
