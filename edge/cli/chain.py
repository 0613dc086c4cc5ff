"""Commands for a chain's headquarters: what commits the events of all stores, and steers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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
    mqtt: Annotated[str, typer.Option(help="MQTT version, 5 or 3.1.1.")] = "5",
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
        supervise(sys.argv[1:])
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

    async def until_told() -> int:
        task = asyncio.create_task(
            copy(settings, Path(folder), wanted, range(first, last + 1), every_s=every, once=once)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            return await task
        return 0

    try:
        n = asyncio.run(until_told())
    except (NatsError, OSError) as error:
        raise Trouble(f"the log at {log}: {error or type(error).__name__}") from None
    except InUseError as error:
        raise Trouble(str(error)) from None
    if once:
        typer.echo(f"{n} events")


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


def _need(module: str, extra: str) -> None:
    from importlib.util import find_spec

    from edge.store.errors import Trouble

    if find_spec(module) is None:
        raise Trouble(f"this needs {module}: pip install 'tagtrail[{extra}]'")
