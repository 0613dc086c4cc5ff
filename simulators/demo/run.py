"""The demo in one command: broker, shop, service and CRM as separate processes, and a summary of the result."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import tomli_w
from rich.console import Console
from rich.live import Live

from simulators.demo.chain import Chain, missing
from simulators.demo.view import farewell, view
from simulators.headquarters.broker import Broker, NatsBroker, die_with_parent, free_port
from simulators.shop.score import Stay, read_stays, score

T = TypeVar("T")

START_S = 180.0
"""Longest start of a part: the first one compiles the kernels."""
STOP_S = 5.0
SECOND = "gateway-2"
LAST_ACK_S = 3.0


@dataclass(frozen=True)
class Options:
    """Options of the demo."""

    seed: int
    shoppers: int
    speed: float
    port: int
    duration_s: float | None
    headless: bool
    json_line: bool
    keep: Path | None
    chain: bool = False


class DemoFailed(Exception):
    """A part did not start or died; the text has the end of its log."""


def demo(options: Options) -> int:
    """Run the demo until its duration is over or Ctrl-C; returns the exit code."""
    console = Console(stderr=options.json_line)
    with ExitStack() as stack:
        if options.keep is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tagtrail-demo-"))
        else:
            folder = str(options.keep)
            options.keep.mkdir(parents=True, exist_ok=True)
        try:
            result = asyncio.run(_Demo(Path(folder), options, console).run())
        except DemoFailed as failure:
            console.print(f"demo: {failure}", style="red", markup=False, highlight=False)
            return 1
    if options.json_line:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        console.print(farewell(result))
    return 0


class _Demo:
    def __init__(self, folder: Path, options: Options, console: Console) -> None:
        self._folder = folder
        self._options = options
        self._console = console
        self._store_file = folder / "store.toml"
        self._second_file = folder / SECOND / "store.toml"
        self._database = folder / "store.db"
        self._crm_database = folder / "crm.db"
        self._crm_status = folder / "crm.json"
        self._members = folder / "members.csv"
        self._truth = folder / "truth.csv"
        self._tills = folder / "tills.csv"
        self._visits = folder / "visits.csv"
        self._chain: Chain | None = None
        self._last_crm: dict[str, Any] = {}
        self._login = ""
        self._stopped = asyncio.Event()
        self._origin_us = time.time_ns() // 1000
        self._clock = ["--clock-speed", str(options.speed), "--clock-origin-us", str(self._origin_us)]

    async def run(self) -> dict[str, Any]:
        """Start all parts, show them, stop them in order, and summarise."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped.set)
        async with AsyncExitStack() as stack:
            broker = await self._headquarters(stack)
            self._say("opening the shop: readers on LLRP over TCP and one serial reader on a pty")
            shop = stack.enter_context(self._part("shop", self._shop_arguments()))
            addresses = await self._wait_for("shop", shop, self._announced)
            self._write_store_file(addresses, broker.url)
            members = stack.enter_context(
                self._part("directory", ["directory", "import", str(self._members), *self._config()])
            )
            await self._wait_for("directory", members, lambda: members.poll() == 0 or None)
            self._make_users()
            crm = self._chain or stack.enter_context(self._part("crm", self._crm_arguments(broker.url)))
            self._say("starting the service; the first start compiles its kernels")
            service_arguments = ["run", *self._config(), "--visits", str(self._visits), *self._clock]
            service = stack.enter_context(self._part("service", service_arguments))
            seconds = self._second_gateway(stack) if self._chain is not None else {}
            first = await self._wait_for("service", service, self._all_up)
            self._say(f"the floor manager's page: {first['page']}")
            self._say(f"log in as {self._login}")
            parts = crm.parts if isinstance(crm, Chain) else {"crm": crm}
            last = await self._show({"shop": shop, "service": service, **seconds, **parts}) or first
            for second in seconds.values():
                await _stop(second)
            await _stop(service)
            await self._wait_for_last_ack(parts)
            self._last_crm = self._crm()
            if not isinstance(crm, Chain):
                await _stop(crm)
                self._last_crm = self._crm()
            await _stop(shop)
        return self._add_up(first, last)

    # Parts.

    async def _headquarters(self, stack: AsyncExitStack) -> Broker | Chain:
        """Start the broker, and with --chain all that stands behind it."""
        lacking = missing() if self._options.chain else None
        if self._options.chain and lacking is None:
            self._say("starting headquarters: Mosquitto, PostgreSQL, a log of three nodes, two sinks, a second store")
            clock = (self._options.speed, self._origin_us)
            chain = Chain(self._folder / "chain", self._store_id, self._part, clock, self._tills)
            self._chain = await stack.enter_async_context(chain)
            self._say(f"look into it from another terminal: tagtrail chain status --database {chain.database}")
            return self._chain
        if lacking is not None:
            self._say(f"a chain needs {lacking}: this is a single store with a CRM on SQLite instead")
        self._say("starting the broker: NATS, speaking MQTT 3.1.1")
        return await stack.enter_async_context(NatsBroker(self._folder / "nats"))

    @contextmanager
    def _part(self, name: str, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edge", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _second_gateway(self, stack: AsyncExitStack) -> dict[str, subprocess.Popen[bytes]]:
        """Start the store's second gateway, which runs half of the readers and stands by for the service."""
        self._say("the store's second gateway forwards half of the readers, and stands by: kill -9 the service, then")
        self._say(f"tagtrail takeover --config {self._second_file} --as {SECOND}")
        config = ["--config", str(self._second_file), "--as", SECOND]
        return {
            "forwarder": stack.enter_context(self._part("forwarder", ["forward", *config, *self._clock])),
            "standby": stack.enter_context(self._part("standby", ["standby", *config, "--no-web", *self._clock])),
        }

    def _shop_arguments(self) -> list[str]:
        options = self._options
        with resources.as_file(resources.files("config") / "demo.toml") as plan:
            return [
                *("simulate", "shop", "--config", str(plan), "--world", "drawn", "--seed", str(options.seed)),
                *("--shoppers", str(options.shoppers), "--speed", str(options.speed)),
                *("--origin-us", str(self._origin_us), "--announce", str(self._folder / "readers.json")),
                *("--truth", str(self._truth), "--members", str(self._members), "--tills", str(self._tills)),
            ]

    def _crm_arguments(self, broker: str) -> list[str]:
        files = ["--database", str(self._crm_database), "--status", str(self._crm_status)]
        sales = ["--tills", str(self._tills), "--store", self._store_id]
        return ["crm", "--url", broker, *files, *sales, *self._clock]

    @property
    def _store_id(self) -> str:
        return str(tomllib.loads((resources.files("config") / "demo.toml").read_text("utf-8"))["store"]["id"])

    def _config(self) -> list[str]:
        return ["--config", str(self._store_file)]

    def _write_store_file(self, addresses: dict[str, str], broker: str) -> None:
        store = tomllib.loads((resources.files("config") / "demo.toml").read_text(encoding="utf-8"))
        for reader in store["readers"]:
            reader["address"] = addresses[reader["id"]]
        # Lateness is in the store's time, which runs faster here; half a second of the wall's is ample on loopback.
        store.setdefault("thresholds", {})["lateness_s"] = min(60.0, max(2.0, 0.5 * self._options.speed))
        store["mqtt"] = {"url": broker}
        store["database"] = {"path": str(self._database), "checkpoint_s": 1.0}
        store["web"] |= {"listen": f"127.0.0.1:{self._options.port}"}
        store["special_days"] = [_opening(dt.datetime.now(ZoneInfo(store["store"]["timezone"])))]
        if self._chain is not None:
            self._share(store)
        self._store_file.write_text(tomli_w.dumps(store), encoding="utf-8")

    def _share(self, store: dict[str, Any]) -> None:
        """Give the store a second gateway, with half of the readers that are reached over the network."""
        networked = [reader for reader in store["readers"] if reader["driver"] == "llrp"]
        for reader in networked[1::2]:
            if not reader.get("outputs"):
                reader["via"] = SECOND
        token = self._folder / "gateways.token"
        token.write_text(secrets.token_hex(32))
        store["forwarding"] = {"address": f"127.0.0.1:{free_port()}"}
        store["forwarders"] = [{"id": SECOND, "token_file": str(token)}]
        store["standby"] = {"id": SECOND, "address": f"127.0.0.1:{free_port()}", "token_file": str(token)}
        self._second_file.parent.mkdir(exist_ok=True)
        own = store | {"database": store["database"] | {"path": str(self._second_file.with_name("store.db"))}}
        self._second_file.write_text(tomli_w.dumps(own), encoding="utf-8")

    def _make_users(self) -> None:
        """Create a manager and a viewer with random passwords for this run."""
        logins = []
        for name in ("manager", "viewer"):
            password = "-".join(f"{secrets.randbelow(10_000):04d}" for _ in range(4))
            made = subprocess.run(
                [sys.executable, "-m", "edge", "users", "set", name, "--role", name, *self._config()],
                input=f"{password}\n",
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                raise DemoFailed(f"no users could be made: {made.stderr.strip()}")
            logins.append(f"{name} with {password}")
        self._login = " or ".join(logins)

    def _announced(self) -> dict[str, str] | None:
        file = self._folder / "readers.json"
        return dict(json.loads(file.read_text())["readers"]) if file.exists() else None

    def _all_up(self) -> dict[str, Any] | None:
        live = self._live()
        return live if live and all(reader["link"] == "up" for reader in live["readers"]) else None

    async def _wait_for(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], T | None]) -> T:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if (result := ready()) is not None:
                return result
            if process.poll() is not None:
                raise DemoFailed(self._died(name, process))
            if self._stopped.is_set():
                raise DemoFailed("stopped before everything was up")
            await asyncio.sleep(0.05)
        raise DemoFailed(f"the {name} did not come up within {START_S:.0f} s:\n{self._tail(name)}")

    def _died(self, name: str, process: subprocess.Popen[bytes]) -> str:
        return f"the {name} ended with code {process.returncode}:\n{self._tail(name)}"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-2000:]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    # Watching.

    async def _show(self, parts: dict[str, subprocess.Popen[bytes]]) -> dict[str, Any] | None:
        """Show the state until the time is over; returns the last live state of the service."""
        duration_s = self._options.duration_s
        until = time.monotonic() + (float("inf") if duration_s is None else duration_s)
        with ExitStack() as stack:
            screen = None
            if not self._options.headless:
                screen = stack.enter_context(Live(console=self._console, screen=True, auto_refresh=False))
            while time.monotonic() < until and not self._stopped.is_set():
                for name, process in parts.items():
                    if process.poll() is not None:
                        raise DemoFailed(self._died(name, process))
                live = self._live()
                if screen is not None and live is not None:
                    screen.update(view(live, self._crm(), self._login), refresh=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(0.5, max(0.0, until - time.monotonic()))):
                        await self._stopped.wait()
        return self._live()

    def _live(self) -> dict[str, Any] | None:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(2)
                link.connect(f"{self._database}.live")
                with link.makefile("rb") as lines:
                    line = lines.readline()
        except OSError:
            return None
        return dict(json.loads(line)) if line else None

    def _crm(self) -> dict[str, Any]:
        if self._chain is not None:
            return self._chain.status()
        return dict(json.loads(self._crm_status.read_text())) if self._crm_status.exists() else {}

    async def _wait_for_last_ack(self, parts: dict[str, subprocess.Popen[bytes]]) -> None:
        sent = sum(sent for sent, _ in self._outbox())
        until = time.monotonic() + LAST_ACK_S
        while time.monotonic() < until and not _ended(parts) and self._crm().get("received", 0) < sent:
            await asyncio.sleep(0.05)

    # Adding up.

    def _query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as conn:
            return conn.execute(sql).fetchall()

    def _outbox(self) -> list[tuple[int, int]]:
        """Return committed and unacknowledged events per class, in the contract's order."""
        return self._query("SELECT next_seq - 1, next_seq - 1 - acked FROM outbox_class ORDER BY class")

    def _add_up(self, first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
        crm, outbox = self._last_crm, self._outbox()
        return {
            "readers": len(last["readers"]),
            "reads": last["reads"],
            "visits": self._query("SELECT count(*) FROM visit")[0][0],
            "journeys": self._query("SELECT count(*) FROM journey")[0][0],
            "recognitions": int(self._query("SELECT value FROM fact WHERE name = 'recognised'")[0][0]),
            "recognition_ms": crm["recognition_ms"],
            "cues": self._cues(last),
            "outbox": {"sent": sum(sent for sent, _ in outbox), "pending": sum(pending for _, pending in outbox)},
            "crm": {key: crm[key] for key in ("received", "duplicates", "gaps")},
            **({"chain": crm["chain"]} if "chain" in crm else {}),
            "truth": self._judge(first, last),
        }

    def _cues(self, last: dict[str, Any]) -> dict[str, Any]:
        """Return the number of cues of each kind, and the 95th percentile of their delay in real milliseconds."""
        counts = dict(self._query("SELECT kind, count(*) FROM cue GROUP BY kind"))
        took = last["cues"]["took_ms"]
        return {kind: {"n": counts.get(kind, 0), "p95_ms": took[kind]["p95"]} for kind in ("arrival", "waiting")}

    def _judge(self, first: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
        """Score the service's visits, including open ones, against the walkers' truth while all readers were up."""
        from_us, to_us = max(reader["since_us"] for reader in first["readers"]), last["watermark_us"]
        judged = score(_clip(self._truth, from_us, to_us), _clip(self._visits, from_us, to_us))
        return {"visit_f1": round(judged.f1, 4), "dwell_wape": round(judged.dwell_wape, 4)}


def _ended(parts: dict[str, subprocess.Popen[bytes]]) -> bool:
    return any(process.poll() is not None for process in parts.values())


def _opening(now: dt.datetime) -> dict[str, Any]:
    """Set opening hours that begin with the demo: coverage counts opening time."""
    opened = now.replace(minute=now.minute // 15 * 15)
    return {"date": (now - dt.timedelta(hours=4)).date(), "open": f"{opened:%H:%M}", "close": "04:00"}


def _clip(file: Path, from_us: int, to_us: int) -> list[Stay]:
    """Read the stays of a file, cut to a span of time."""
    stays = [
        stay._replace(enter_us=max(stay.enter_us, from_us), exit_us=min(stay.exit_us, to_us))
        for stay in read_stays(file)
    ]
    return [stay for stay in stays if stay.enter_us < stay.exit_us]


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    until = time.monotonic() + STOP_S
    while process.poll() is None and time.monotonic() < until:
        await asyncio.sleep(0.02)
    if process.poll() is None:
        process.kill()
