"""Commands for installing and testing readers. Imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.store_file import Config, load_store
from edge.words.counts import counted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from config import StoreConfig
    from drivers.session import ReaderSettings
    from edge.readers.listening import Listener

readers = typer.Typer(help="Find, monitor and test readers.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The reader's id in the store file.")]


class Family(StrEnum):
    """Reader protocols, by driver name."""

    LLRP = "llrp"
    JSON = "json"
    THINGMAGIC = "thingmagic"
    R2000 = "r2000"
    UHFREADER18 = "uhfreader18"
    CHAFON_CF = "chafon-cf"
    M100 = "m100"
    CHAINWAY = "chainway"
    HOPELAND = "hopeland"
    GX = "gx"
    NORDICID = "nordicid"
    TSL = "tsl"
    METRATEC = "metratec"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(readers, name="readers")
    app.command()(capture)
    app.command()(decode)


def decode(
    family: Annotated[Family, typer.Argument(help="Protocol of the bytes.")],
    file: Annotated[
        Path, typer.Argument(help="File with captured bytes, or hex text with spaces and newlines; - for stdin.")
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV time_us,antenna,epc,rssi_dbm,count.")] = False,
    phase: Annotated[
        bool, typer.Option("--phase", help="Add the phase (phase_deg), if the reports contain it.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="JSON: impinj, zebra, keonn or speedway; default: the one that fits best.")
    ] = None,
) -> None:
    """Decode bytes captured from a reader, and report skipped bytes with the reason."""
    import sys

    from edge.readers.decode import decode as decode_bytes
    from edge.readers.decode import load, rows_table

    decoded = decode_bytes(family, load(file, family), profile)
    if as_csv:
        decoded.write_csv(sys.stdout, phase)
    else:
        for line in rows_table(decoded.rows, phase):
            typer.echo(line)
    for each in decoded.left_out:
        typer.echo(str(each), err=True)
    typer.echo(decoded.summary(), err=True)


@readers.command()
def scan(
    where: Annotated[
        list[str] | None,
        typer.Argument(
            help="For LLRP: hosts, host:port or networks (CIDR); for JSON: http(s)://host; for serial: /dev/… or "
            "tcp://host:port."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="LLRP port for addresses without one.")] = 5084,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Number of simultaneous LLRP connections.")] = 4,
    rate: Annotated[float, typer.Option(min=0.1, max=500, help="New LLRP connections per second.")] = 10,
) -> None:
    """Find readers; without an argument, on this machine's serial ports. Nothing is sent to LLRP readers."""
    import asyncio

    from edge.readers.scan import apart, llrp_addresses, search, serial_ports

    given = serial_ports() if where is None else where
    lines, pages, networks = apart(given)
    places = len(llrp_addresses(networks, port)) + len(pages)
    if not given:
        typer.echo("this machine has no serial port; give addresses or networks for LLRP", err=True)
    if lines:
        typer.echo(f"asking on {', '.join(lines)}: up to a minute each if nothing answers", err=True)

    async def look() -> int:
        found = 0
        async for finding in search(given, port=port, at_once=at_once, per_s=rate):
            typer.echo(f"{finding.address}  {finding.driver or '-'}  {finding.text}")
            found += bool(finding.driver)
        return found

    found = asyncio.run(look())
    typer.echo(f"readers found: {found}; searched: {places} × network, {len(lines)} × serial", err=True)
    raise typer.Exit(0 if found else 1)


@readers.command()
def show(
    reader: Id,
    config: Config,
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="How long to listen.")] = 10,
) -> None:
    """Show a reader and the reads of its antennas, live on a terminal."""
    import asyncio

    from rich.console import Console

    from edge.readers import listening as tools
    from edge.readers.antennas import HISTOGRAM_DBM

    store = load_store(config)
    shop, settings = tools.reader_of(store, reader)
    if state := asyncio.run(tools.service_state(store)):
        tools.live_reader(state, reader)
        _show_held(store, reader, seconds)
        return
    listener = tools.Listener(settings)

    def table() -> Any:
        from rich.table import Table

        last = listener.last
        title = f"{reader}: {last.link.value}: {last.reason}" if last else reader
        low, high, _ = HISTOGRAM_DBM
        columns = ("port", "zone", "reads", "reads/s", "tags", "median dBm", f"{low} … {high} dBm")
        drawn = Table(*columns, title=title, title_justify="left")
        for row in tools.by_antenna(shop, settings, listener):
            drawn.add_row(*row)
        return drawn

    console = Console()

    async def watch() -> bool:
        if not console.is_terminal:
            return await tools.listen(settings, listener, seconds, stop=_stop())
        from rich.live import Live

        with Live(table(), console=console, auto_refresh=False) as live:
            return await tools.listen(
                settings, listener, seconds, lambda: live.update(table(), refresh=True), stop=_stop()
            )

    was_up = asyncio.run(watch())
    if not console.is_terminal:
        console.print(table())
    _tell(tools.findings(settings, listener, was_up))
    if not was_up:
        raise typer.Exit(1)


@readers.command("test")
def check_reader(
    reader: Id,
    config: Config,
    seconds: Annotated[float, typer.Option(min=0, max=3600, help="How long to wait for tags.")] = 5,
) -> None:
    """Connect to a reader and report what works; exit code 1 if something doesn't."""
    import asyncio

    from edge.readers import listening as tools

    store = load_store(config)
    _, settings = tools.reader_of(store, reader)
    if state := asyncio.run(tools.service_state(store)):
        entry = tools.live_reader(state, reader)
        _show_live(state, entry)
        raise typer.Exit(0 if entry["link"] == "up" else 1)
    listener = tools.Listener(settings)

    async def watch() -> bool:
        return await tools.listen(settings, listener, seconds, stop=_stop())

    found = list(tools.findings(settings, listener, asyncio.run(watch())))
    _tell(found)
    raise typer.Exit(1 if any(verdict == "no" for verdict, _ in found) else 0)


@readers.command()
def tune(
    reader: Id,
    config: Config,
    minutes: Annotated[float, typer.Option(min=0.05, max=120, help="How long to listen.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="Write the proposal into the store file without asking.")] = False,
) -> None:
    """Measure a reader's antennas, propose session, mode, power and more, and write it into the store file after a
    yes; the service must not be using the reader."""
    import asyncio

    from rich.console import Console
    from rich.table import Table

    from drivers.session import Tables
    from edge.readers import listening as tools
    from edge.readers import tuning
    from edge.store.errors import Trouble
    from edge.store.file_edit import as_toml, edit

    store = load_store(config)
    shop, settings = tools.reader_of(store, reader)
    entry = next(each for each in store.readers if each.id == reader)
    if state := asyncio.run(tools.service_state(store)):
        raise Trouble(f"the service (process {state['pid']}) is using the reader; stop it for these minutes")
    collected = tuning.Collected()
    listener = tools.Listener(settings, collected.add)

    was_up = asyncio.run(_collect(settings, listener, minutes, lambda: collected.full))
    if not was_up:
        _tell(tools.findings(settings, listener, was_up))
        raise typer.Exit(1)
    reads = collected.reads()
    zones = {antenna: shop.zones[int(shop.layout.antenna_zone[antenna])] for antenna in settings.ports.values()}
    seconds = float(reads["time_us"].max() - reads["time_us"].min()) / 1e6 if len(reads) else 0.0
    ports = tuning.measure(reads, settings.ports, zones, seconds)
    table = Table(*tuning.COLUMNS, title=f"{reader}: {counted(len(reads), 'read')} in {seconds / 60:.1f} minutes")
    for row in tuning.rows(ports):
        table.add_row(*row)
    Console().print(table)
    if not any(port.says_enough for port in ports):
        typer.echo(
            f"too few reads: an antenna needs {tuning.READS_WANTED}; carry some tags through the zones meanwhile"
        )
        raise typer.Exit(1)
    proposal = tuning.propose(entry, ports, listener.last.tables if listener.last else Tables())
    if not proposal:
        typer.echo("nothing to change")
        return
    for reason in proposal.reasons:
        typer.echo(reason)
    if entry.driver != "llrp":
        typer.echo(
            f"the store file has no key for this with {entry.driver}: set it in the reader, with the vendor's program"
        )
        return
    for port, keys in proposal.antennas.items():
        typer.echo(f"  antenna {port}: {as_toml(keys)}")
    if proposal.keys:
        typer.echo(f"  reader {reader}: {as_toml(proposal.keys)}")
    if yes or typer.confirm(f"write this into {config}?"):
        kept = edit(config, reader, proposal.keys, proposal.antennas)
        typer.echo(f"written; the file as it was is {kept}. Restart the service, and measure again after a day")


def capture(
    reader: Id,
    config: Config,
    out: Annotated[
        Path, typer.Option(help="New CSV file time_us,reader,antenna,epc,rssi_dbm; gzipped if it ends in .gz.")
    ],
    minutes: Annotated[float, typer.Option(min=0.01, max=240, help="How long.")] = 5,
    max_mb: Annotated[float, typer.Option(min=0.001, max=4096, help="Stop at this size, before compression.")] = 100,
    clear: Annotated[bool, typer.Option("--clear", help="Write the tags' real EPCs.")] = False,
) -> None:
    """Record a reader's reads for `tagtrail replay`, with pseudonyms; the service must not be using the reader."""
    import asyncio

    from edge.readers import listening as tools
    from edge.readers.capture import CaptureFile
    from edge.store.errors import Trouble

    store = load_store(config)
    shop, settings = tools.reader_of(store, reader)
    if state := asyncio.run(tools.service_state(store)):
        raise Trouble(f"the service (process {state['pid']}) is using the reader; stop it during the capture")
    file = CaptureFile(out, shop, clear=clear, max_bytes=round(max_mb * (1 << 20)), phase=settings.phase)
    listener = tools.Listener(settings, file.add)

    try:
        was_up = asyncio.run(_collect(settings, listener, minutes, lambda: file.full))
    finally:
        file.close()
    _tell(each for each in tools.findings(settings, listener, was_up) if each[0] == "no")
    ended = f"; stopped at {max_mb:g} MB" if file.full else ""
    typer.echo(f"{counted(file.rows, 'read')} in {out}{'' if clear else ', EPCs pseudonymised'}{ended}", err=True)
    if not was_up:
        raise typer.Exit(1)


def _show_held(store: StoreConfig, reader: str, seconds: float) -> None:
    """Show the service's status of a reader that it is using, and the reads of its antennas, live on a terminal."""
    import asyncio
    from contextlib import nullcontext

    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from edge.readers import listening as tools
    from edge.readers.antennas import HISTOGRAM_DBM
    from edge.store.live_socket import follow, socket_path

    console = Console()
    states: list[dict[str, Any]] = []  # the first and the latest

    def table() -> Any:
        low, high, _ = HISTOGRAM_DBM
        drawn = Table("port", "zone", "reads", "reads/s", f"{low} … {high} dBm")
        for row in tools.live_antennas(states[0], states[-1]):
            drawn.add_row(*row)
        return drawn

    async def watch() -> None:
        stop, loop = _stop(), asyncio.get_running_loop()
        ends_s = loop.time() + seconds
        screen = Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext()
        with screen as live:
            async for state in follow(socket_path(store), reader):
                states[1 if states else 0 :] = [state]
                if live is not None:
                    live.update(table(), refresh=True)
                if stop.is_set() or loop.time() >= ends_s:
                    return

    asyncio.run(watch())
    if states:
        _show_live(states[-1], tools.live_reader(states[-1], reader))
        if not console.is_terminal:
            console.print(table())


def _show_live(state: dict[str, Any], entry: dict[str, Any]) -> None:
    """Print the service's status of a reader that it is using."""
    from edge.readers.radio import tell_radio

    typer.echo(f"the service (process {state['pid']}) is using this reader; its status:")
    typer.echo(f"{entry['id']} ({entry['driver']}): {entry['link']}: {entry['reason']}")
    typer.echo(f"{entry['reads']} reads, {entry['reads_per_s']:.1f} per second")
    if entry.get("clock_offset_us") is not None:
        typer.echo(f"clock {entry['clock_offset_us'] / 1e6:+.3f} s relative to this gateway")
    for port, passages in (entry.get("inputs") or {}).items():
        typer.echo(f"input {port}: {counted(passages, 'passage')} since the service started")
    for name, text in (entry.get("detail") or {}).items():
        typer.echo(f"{name}: {text}")
    if radio := state.get("radio"):
        for line in tell_radio(radio):
            typer.echo(line)


def _tell(found: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> None:
    for verdict, text in found:
        typer.echo(f"{verdict:<3} {text}")


async def _collect(settings: ReaderSettings, listener: Listener, minutes: float, full: Callable[[], bool]) -> bool:
    """Listen for some minutes, or until it is enough or Ctrl-C; returns whether the reader was up."""
    from edge.readers import listening as tools

    stop = _stop()

    def look() -> None:
        if full():
            stop.set()

    return await tools.listen(settings, listener, minutes * 60, look, stop)


def _stop() -> asyncio.Event:
    """Return an event that is set by Ctrl-C or SIGTERM, so that the reader can be disconnected cleanly."""
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
