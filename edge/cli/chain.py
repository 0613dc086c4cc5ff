"""Commands for a chain's headquarters: what commits the events of all stores, and steers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import psycopg

    from sync.chain.log import LogSettings

app = typer.Typer(help="Run a chain's headquarters: sinks, the log, and the fleet of stores.", no_args_is_help=True)

Database = Annotated[
    str, typer.Option(help="The chain's database, postgresql://user@host/name.", envvar="TAGTRAIL_CHAIN_DATABASE")
]
Log = Annotated[str | None, typer.Option(help="Servers of the log: nats://host:port, several separated by commas.")]
Replicas = Annotated[int, typer.Option(min=1, max=5, help="Copies of each message in the log.")]
LogGib = Annotated[int, typer.Option(min=1, help="Disk on each node of the log for each of its four streams, in GiB.")]
LogCredentials = Annotated[Path | None, typer.Option(help="Credentials file for the log (.creds).")]
LogCa = Annotated[Path | None, typer.Option(help="Certificate of the log's CA (PEM).")]
LogCert = Annotated[Path | None, typer.Option(help="Certificate for the log (PEM).")]
LogKey = Annotated[Path | None, typer.Option(help="Its key (PEM).")]


CONNECT_S = 15
WIDTH = 150
"""Columns of tables that are not shown in a terminal."""


def register(into: typer.Typer) -> None:
    """Add the commands to the command line."""
    into.add_typer(app, name="chain")


@app.command()
def sink(
    broker: Annotated[str, typer.Option(help="The cell's broker: mqtt://host:port or mqtts://host:port.")],
    database: Database,
    shards: Annotated[str, typer.Option(help="Shards of this cell, 0-63 or a part of it.")] = "0-63",
    log: Log = None,
    lane: Annotated[
        str | None, typer.Option(help="Only this lane, member or bulk; by default a process for each.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="User name for the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificate of the broker's CA (PEM).")] = None,
    cert: Annotated[Path | None, typer.Option(help="Certificate for the broker (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    mqtt: Annotated[str, typer.Option(help="MQTT version, 3.1.1 or 5; the latter takes more of a core.")] = "3.1.1",
    replicas: Replicas = 3,
    log_gib: LogGib = 5,
    log_credentials: LogCredentials = None,
    log_ca: LogCa = None,
    log_cert: LogCert = None,
    log_key: LogKey = None,
) -> None:
    """Commit the events of a cell's stores to PostgreSQL, acknowledge them, and feed the log."""
    import sys
    from importlib.metadata import version

    from edge.store.journal import set_up

    set_up()
    _need("psycopg", "postgresql")
    from edge.store.errors import Trouble
    from sync.chain.leases import LANES
    from sync.chain.processes import run_lane, supervise
    from sync.chain.sink import SinkSettings
    from sync.mqtt import MqttSettings

    try:
        first, last = _shards(shards)
        if mqtt not in ("5", "3.1.1"):
            raise ValueError(f"no MQTT version {mqtt!r}: 5 or 3.1.1")
        if lane is not None and lane not in LANES:
            raise ValueError(f"no lane {lane!r}: {' or '.join(LANES)}")
        settings = MqttSettings.from_url(
            broker, "", username=username, password_file=password_file, ca=ca, cert=cert, key=key, version=mqtt
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    servers = _log(log, log_credentials, (log_ca, log_cert, log_key), replicas, log_gib)
    _try_database(database)
    if lane is None:
        supervise([sys.executable, "-m", "edge", *sys.argv[1:]])
        return
    try:
        run_lane(SinkSettings(settings, database, lane, first, last, servers, version("tagtrail")))
    except OSError as error:
        raise Trouble(str(error)) from None


@app.command()
def setup(
    database: Database,
    keep_events: Annotated[int | None, typer.Option(min=1, help="Days to keep events as they came.")] = None,
    keep_windows: Annotated[int | None, typer.Option(min=1, help="Days to keep windows and day reports.")] = None,
    keep_members: Annotated[int | None, typer.Option(min=1, help="Days to keep journeys and recognitions.")] = None,
) -> None:
    """Create or upgrade the tables, as the owner of the database; sinks do so themselves where they may."""
    _need("psycopg", "postgresql")
    import psycopg

    from edge.store.errors import Trouble
    from sync.chain import schema

    try:
        with psycopg.connect(database, autocommit=True, connect_timeout=5) as conn:
            applied = schema.set_up(conn)
            for name, days in (("events", keep_events), ("windows", keep_windows), ("members", keep_members)):
                if days is not None:
                    conn.execute(
                        "UPDATE chain.setting SET value = %s WHERE name = %s", (str(days), f"keep_{name}_days")
                    )
    except psycopg.Error as error:
        raise Trouble(f"cannot set up the database: {str(error).strip()}") from None
    typer.echo(f"applied: {', '.join(applied)}" if applied else "up to date")


@app.command()
def read(
    log: Annotated[str, typer.Option(help="Servers of the log: nats://host:port, several separated by commas.")],
    to: Annotated[str, typer.Option(help="Where to: parquet:FOLDER.")],
    classes: Annotated[str, typer.Option(help="Classes of events.")] = "member,journey,agg,health",
    shards: Annotated[str, typer.Option(help="Only these shards, so that several readers share the work.")] = "0-63",
    every: Annotated[float, typer.Option(min=1, help="Seconds between files.")] = 60,
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of what is there.")] = False,
    log_credentials: LogCredentials = None,
    log_ca: LogCa = None,
    log_cert: LogCert = None,
    log_key: LogKey = None,
) -> None:
    """Copy the log into files for a data lake, each event once, until SIGTERM."""
    import asyncio
    import contextlib
    import signal

    from config.topics import CLASSES
    from edge.store.errors import Trouble

    kind, _, folder = to.partition(":")
    wanted = classes.split(",")
    if kind != "parquet" or not folder:
        raise typer.BadParameter(f"{to!r}; write parquet:FOLDER", param_hint="--to")
    if unknown := set(wanted) - set(CLASSES):
        raise typer.BadParameter(f"no class {', '.join(sorted(unknown))}: {', '.join(CLASSES)}", param_hint="--classes")
    try:
        first, last = _shards(shards)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shards") from None
    _need("nats", "chain")
    _need("pyarrow", "parquet")
    from nats.errors import Error as NatsError

    from sync.chain.log import LogSettings
    from sync.chain.parquet import InUseError, copy

    settings = LogSettings(log, log_credentials, log_ca, log_cert, log_key)

    said: list[str] = []

    def tell(error: str) -> None:
        if error not in said[-1:]:
            typer.echo(f"the log: {error}", err=True)
            said.append(error)

    async def until_told() -> int:
        task = asyncio.create_task(
            copy(settings, Path(folder), wanted, range(first, last + 1), every_s=every, once=once, tell=tell)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            return await task
        return 0

    try:
        n = asyncio.run(until_told())
    except (NatsError, OSError, ValueError) as error:
        raise Trouble(f"the log at {log}: {error or type(error).__name__}") from None
    except InUseError as error:
        raise Trouble(str(error)) from None
    if once:
        typer.echo(f"{n} events")


@app.command()
def status(
    database: Database,
    store: Annotated[list[str] | None, typer.Argument(help="Only these stores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show sinks and stores: freshness, what is missing, versions, clocks; those that need looking after first."""
    from sync.chain import fleet
    from sync.chain.leases import holders

    with _connected(database) as conn:
        stores, sinks = fleet.status(conn, store or []), holders(conn)
        left = conn.execute("SELECT count(*) FROM chain.fanout").fetchone()
        erasures = conn.execute("SELECT count(*) FROM chain.erasure WHERE completed_at IS NULL").fetchone()
        letters = conn.execute("SELECT type, count(*) FROM chain.dead_letter GROUP BY type ORDER BY 2 DESC").fetchall()
        rollouts = conn.execute(
            "SELECT DISTINCT ON (kind) kind, generation, state, reason FROM chain.rollout ORDER BY kind, id DESC"
        ).fetchall()
    told = {
        "sinks": list(sinks.values()),
        "not_in_the_log": left[0] if left else 0,
        "erasures": erasures[0] if erasures else 0,
        "dead_letters": dict(letters),
        "rollouts": [dict(zip(("kind", "generation", "state", "reason"), row, strict=True)) for row in rollouts],
        "stores": stores,
    }
    if as_json:
        import json

        typer.echo(json.dumps(told, default=str, ensure_ascii=False))
        return
    from rich.console import Console

    from edge.cli.chain_status import show

    console = Console()
    show(told, console if console.is_terminal else Console(width=WIDTH))


@app.command()
def push(
    kind: Annotated[str, typer.Argument(help="What: config, directory or sales.")],
    file: Annotated[
        Path, typer.Argument(help="Sections of a store file (TOML), or a CSV file of members or of sales.", exists=True)
    ],
    database: Database,
    wave: Annotated[str, typer.Option(help="Number of stores in each wave; the last number is repeated.")] = "1,10,100",
    halt_on: Annotated[str, typer.Option(help="What halts the rollout: refused, offline, both, or none.")] = "refused",
    within: Annotated[float, typer.Option(min=1, help="Seconds within which a store must have answered.")] = 900,
    valid_days: Annotated[float, typer.Option(min=0.01, help="Days that a directory is valid.")] = 30,
    store: Annotated[list[str] | None, typer.Option(help="Only this store; may be repeated.")] = None,
) -> None:
    """Push a configuration or a member directory to the stores, in waves; or sales, to all at once. Run again to go on
    after a halt."""
    from edge.store.errors import Trouble
    from sync.chain import fleet

    try:
        waves = [int(size) for size in wave.split(",")]
        halts = [] if halt_on == "none" else halt_on.split(",")
    except ValueError:
        waves, halts = [0], []
    if min(waves) < 1:
        raise typer.BadParameter(f"no sizes of waves: {wave!r}; write for example 1,10,100", param_hint="--wave")
    if unknown := set(halts) - set(fleet.HALTS):
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: {', '.join(fleet.HALTS)}, none", param_hint="--halt-on"
        )
    if kind not in ("config", "directory", "sales"):
        raise typer.BadParameter(f"{kind!r}: config, directory or sales", param_hint="KIND")
    with _connected(database) as conn:
        if kind == "sales":
            _push_sales(conn, file, store or [], within)
            return
        try:
            pushed = fleet.config_push(file) if kind == "config" else fleet.directory_push(conn, file, valid_days)
        except (OSError, ValueError) as error:
            raise Trouble(f"{file}: {error}") from None
        try:
            for one in fleet.roll_out(conn, pushed, waves, halts, stores=store or [], within_s=within):
                typer.echo(
                    f"wave {one.number}: {len(one.applied)} applied, {len(one.refused)} refused, "
                    f"{len(one.offline)} offline, {len(one.waiting)} without an answer"
                )
                for name, why in one.refused.items():
                    typer.echo(f"  {name}: {why}")
        except fleet.HaltedError as halted:
            raise Trouble(str(halted)) from None


def _push_sales(conn: psycopg.Connection[Any], file: Path, stores: list[str], within_s: float) -> None:
    import time

    from edge.store.errors import Trouble
    from sync.chain import sales

    try:
        orders = sales.orders(file, stores)
    except (OSError, ValueError) as error:
        raise Trouble(f"{file}: {error}") from None
    prefix = sales.push(conn, orders)
    until_s = time.monotonic() + within_s
    while (found := sales.progress(conn, prefix)).waiting and time.monotonic() < until_s:
        time.sleep(0.5)
    typer.echo(f"{found.taken} hours taken, {found.refused} refused")
    for name, why in found.reasons.items():
        typer.echo(f"  {name}: {why}", err=True)
    if found.waiting:
        names = ", ".join(found.waiting[:5]) + (" …" if len(found.waiting) > 5 else "")
        typer.echo(f"not answered yet: {names}; these stores are asked every minute", err=True)
    if found.reasons or found.waiting:
        raise typer.Exit(1)


@app.command()
def erase(
    member: Annotated[str, typer.Argument(help="The member's number.")],
    database: Database,
    log: Log = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the stores.")] = 60,
    proof: Annotated[Path | None, typer.Option(help="Write the proof to this file (JSON).")] = None,
    log_credentials: LogCredentials = None,
    log_ca: LogCa = None,
    log_cert: LogCert = None,
    log_key: LogKey = None,
) -> None:
    """Erase a member in the database, the log and all stores. Run again until it is complete; then there is a proof."""
    import asyncio
    import json
    import time

    from edge.store.errors import Trouble
    from sync.chain import erasure
    from sync.chain.desk import OPEN

    settings = _log(log, log_credentials, (log_ca, log_cert, log_key), 3, 1)
    if not 0 < len(member) <= 128:
        raise typer.BadParameter("expected: 1 to 128 characters", param_hint="MEMBER")
    with _connected(database) as conn:
        id_ = erasure.ask(conn, member)
        until_s = time.monotonic() + wait
        while sum(erasure.progress(conn, id_).get(state, 0) for state in OPEN) and time.monotonic() < until_s:
            time.sleep(0.5)
        there = None
        if settings is not None:
            from nats.errors import Error as NatsError

            async def in_log() -> dict[str, int]:
                from sync.chain.log import connect

                async with asyncio.timeout(CONNECT_S):
                    client = await connect(settings, "tagtrail-erase")
                try:
                    return await erasure.erase_in_log(client, conn, member)
                finally:
                    await client.close()

            erasure.erase_here(conn, id_, member)
            try:
                there = asyncio.run(in_log())
            except (NatsError, OSError, TimeoutError) as error:
                raise Trouble(f"the log at {log}: {error or type(error).__name__}; run it again") from None
        done = erasure.complete(conn, id_, there)
        counts = erasure.progress(conn, id_)
    if done is None:
        told = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        raise Trouble(f"not complete yet: {told}; the stores are asked every minute, run it again later")
    text = json.dumps(done, indent=1, ensure_ascii=False)
    if proof is not None:
        proof.write_text(text, encoding="utf-8")
    typer.echo(f"erased at {len(done['stores'])} stores" if proof is not None else text)


@app.command()
def replay(
    database: Database,
    store: Annotated[
        str | None, typer.Argument(help="The store; by default all gaps of all stores are asked for.")
    ] = None,
    class_: Annotated[str, typer.Option("--class", help="Class of events.")] = "agg",
    first: Annotated[int, typer.Option("--from", min=1, help="First number.")] = 1,
    last: Annotated[int | None, typer.Option("--to", help="Last number; default: the highest received.")] = None,
    epoch: Annotated[str | None, typer.Option(help="Epoch; default: the one heard last.")] = None,
    to_log: Annotated[
        str | None, typer.Option("--to-log", help="Instead have the log fed again with what was received since (UTC).")
    ] = None,
) -> None:
    """Have stores send events again, a few stores at a time; or have the log fed again with what it lost."""
    from datetime import UTC, datetime

    from edge.store.errors import Trouble
    from sync.chain import fleet
    from sync.chain.ledger import feed_again

    with _connected(database) as conn:
        if to_log is not None:
            try:
                since = datetime.fromisoformat(to_log)
            except ValueError:
                raise typer.BadParameter(
                    f"no time: {to_log!r}; write 2026-03-14T09:00", param_hint="--to-log"
                ) from None
            since = since if since.tzinfo else since.replace(tzinfo=UTC)
            n = feed_again(conn, max(0, round(since.timestamp() * 1_000_000)))
            typer.echo(f"{n} events will be published again; readers drop those that they have")
            return
        if store is None:
            wanted = fleet.gaps(conn)
        else:
            if last is None:
                row = conn.execute(
                    "SELECT max(highest) FROM chain.series WHERE store = %s AND class = %s", (store, class_)
                ).fetchone()
                last = row[0] if row and row[0] else 0
            wanted = [(store, epoch or "", class_, first, last)]
        try:
            n = sum(fleet.replay(conn, one, kind, low, high, of or None) for one, of, kind, low, high in wanted)
        except ValueError as error:
            raise Trouble(str(error)) from None
    typer.echo(f"{n} replays will be asked for" if n else "nothing is missing")


def _shards(text: str) -> tuple[int, int]:
    from config.topics import SHARDS

    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last if dash else first)
    except ValueError:
        low, high = -1, -1
    if not 0 <= low <= high < SHARDS:
        raise ValueError(f"no range of shards: {text!r}; write for example 0-31, at most 0-{SHARDS - 1}")
    return low, high


def _log(
    servers: str | None,
    credentials: Path | None,
    tls: tuple[Path | None, Path | None, Path | None],
    replicas: int,
    gib: int,
) -> LogSettings | None:
    if servers is None:
        return None
    _need("nats", "chain")
    from sync.chain.log import LogSettings

    return LogSettings(servers, credentials, *tls, replicas, gib)


def _try_database(url: str) -> None:
    """Say at once what is wrong with the database's address, its user or its schema; an outage is waited for."""
    import psycopg

    from edge.store.errors import Trouble
    from sync.chain import schema

    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
            schema.require(conn)
    except schema.OutdatedError as error:
        raise Trouble(str(error)) from None
    except psycopg.OperationalError:
        return
    except psycopg.Error as error:
        raise Trouble(f"cannot use the PostgreSQL database: {str(error).strip()}") from None


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the chain's database; what is wrong with it is one line."""
    _need("psycopg", "postgresql")
    import psycopg

    from edge.store.errors import Trouble
    from sync.chain import schema
    from sync.chain.ledger import connect

    try:
        with connect(url, "tagtrail-chain") as conn:
            schema.require(conn)
            yield conn
    except schema.OutdatedError as error:
        raise Trouble(str(error)) from None
    except psycopg.Error as error:
        raise Trouble(f"the PostgreSQL database: {str(error).strip()}") from None


def _need(module: str, extra: str) -> None:
    from importlib.util import find_spec

    from edge.store.errors import Trouble

    if find_spec(module) is None:
        raise Trouble(f"this needs {module}: pip install 'tagtrail[{extra}]'")
