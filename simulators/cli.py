"""Commands of the simulators, added to the command line through an entry point. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from config import StoreConfig
    from simulators.shop.antennas import Antennas
    from simulators.shop.worlds import World


class WorldName(StrEnum):
    """The named worlds, and worlds drawn by the seed."""

    MILD = "mild"
    WORN = "worn"
    HARSH = "harsh"
    DRAWN = "drawn"


class Family(StrEnum):
    """Reader families that can be simulated alone."""

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


class Profile(StrEnum):
    """JSON formats that can be simulated."""

    IMPINJ = "impinj"
    ZEBRA = "zebra"
    KEONN = "keonn"
    SPEEDWAY = "speedway"
    GENERIC = "generic"


class Fault(StrEnum):
    """Faults of LLRP readers, by the names in llrp_faults."""

    CUT = "cut"
    SILENT = "silent"
    HALF_MESSAGE = "half-message"
    BOGUS_LENGTH = "bogus-length"
    ODD_REPORTS = "odd-reports"
    REBOOT = "reboot"
    CLOCK_JUMP = "clock-jump"
    INVENTORY_ENDS = "inventory-ends"
    INVENTORY_LOST = "inventory-lost"
    EVENTS = "events"


simulate = typer.Typer(
    help="Simulate shops, readers and stores; write recordings and score results.", no_args_is_help=True
)

Config = Annotated[Path, typer.Option("--config", "-c", help="The store file (TOML).", exists=True, dir_okay=False)]
Kind = Annotated[
    WorldName, typer.Option(help="Behaviour of radio and people; drawn: chosen by the seed from wide ranges.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Another shop of the same kind; default: the world's own.")]
Shoppers = Annotated[
    int, typer.Option(min=0, help="Number of people with tags in the shop at a time, in addition to staff.")
]
TruthOut = Annotated[Path | None, typer.Option(help="Write where every tag was: epc,zone,enter_us,exit_us.")]


def register(app: typer.Typer) -> None:
    """Add the simulators' commands to the command line."""
    app.add_typer(simulate, name="simulate")
    app.command()(crm)
    app.command()(demo)


def crm(
    url: Annotated[str, typer.Option(help="The broker: mqtt://host:port or mqtts://host:port.")],
    database: Annotated[str, typer.Option(help="The CRM's own SQLite file, or postgresql://user@host/name.")],
    status: Annotated[Path | None, typer.Option(help="Keep this JSON file up to date with the totals.")] = None,
    username: Annotated[str | None, typer.Option(help="User name for the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificate of the broker's CA (PEM).")] = None,
    tills: Annotated[
        Path | None, typer.Option(help="Send the sales in this CSV file to a store, as for tagtrail sales import.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="The store that the tills are in.")] = None,
    clock_speed: Annotated[float, typer.Option(hidden=True)] = 1.0,
    clock_origin_us: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run a central CRM: commit every store's events once, acknowledge them, and count missing events."""
    from simulators.headquarters.crm import command

    if (tills is None) != (store is None):
        raise typer.BadParameter("--tills and --store go together", param_hint="--tills")
    command(url, database, status, clock_speed, clock_origin_us, username, password_file, ca, tills, store)


def demo(
    headless: Annotated[bool, typer.Option("--headless", help="No screen.")] = False,
    duration: Annotated[float | None, typer.Option(min=1, help="Seconds to run; default: until Ctrl-C.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON at the end.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for radio and people.")] = 1,
    shoppers: Annotated[int, typer.Option(min=0, help="Number of people with tags in the shop at a time.")] = 60,
    speed: Annotated[float, typer.Option(min=1, max=60, help="How much faster than real time the shop runs.")] = 30,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the web page; 0: any free port.")] = 8080,
    keep: Annotated[
        Path | None, typer.Option(help="Keep store file, databases, truth and logs in this folder.")
    ] = None,
    chain: Annotated[
        bool, typer.Option("--chain", help="With a chain's headquarters: PostgreSQL, two sinks, a log, a second store.")
    ] = False,
) -> None:
    """Run the complete system: a simulated store with readers on real wires, the service, a broker and a CRM."""
    from simulators.demo.run import Options
    from simulators.demo.run import demo as run

    raise typer.Exit(run(Options(seed, shoppers, speed, port, duration, headless, as_json, keep, chain)))


@simulate.command()
def shop(
    config: Config,
    world: Kind = WorldName.WORN,
    seed: Seed = None,
    shoppers: Shoppers = 40,
    speed: Annotated[float, typer.Option(min=0.01, max=1000, help="Store seconds per second.")] = 1.0,
    origin_us: Annotated[int, typer.Option(help="UTC µs at which a faster clock started; 0: now.")] = 0,
    announce: Annotated[
        Path | None, typer.Option(help="Write the readers' addresses (JSON) once they are listening.")
    ] = None,
    truth: TruthOut = None,
    members: Annotated[
        Path | None, typer.Option(help="Write the member directory: epc,member,tier,consent,hint.")
    ] = None,
    tills: Annotated[
        Path | None, typer.Option(help="Write what was sold in each hour: hour,zone,tickets,units,amount,currency.")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds to run; default: until stopped.")] = None,
) -> None:
    """Simulate a store's readers with their real protocols and people walking past, until SIGTERM or Ctrl-C."""
    import asyncio
    import time

    from simulators.shop.real_time import Plays, StoreClock, play

    store = _store(config)
    chosen, antennas = _world(world, store, seed, shoppers)
    clock = StoreClock(speed, origin_us or time.time_ns() // 1000)
    seed = chosen.seed if seed is None else seed
    told = Plays(store, chosen, seed, shoppers, clock, announce, truth, members, duration, tills, antennas)
    with _mendable():
        typer.echo(json.dumps(asyncio.run(play(told))))


@simulate.command()
def reads(
    config: Config,
    out: Annotated[Path, typer.Option("--reads", help="Write the reads: time_us,reader,antenna,epc,rssi_dbm (.gz).")],
    truth: TruthOut = None,
    world: Kind = WorldName.WORN,
    seed: Seed = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the recording.")] = 60,
    shoppers: Shoppers = 40,
) -> None:
    """Write a recording for `tagtrail replay`, and the truth to score it against."""
    from rich.progress import Progress

    from simulators.shop.replays import write_replay

    store = _store(config)
    chosen, antennas = _world(world, store, seed, shoppers)
    with _mendable(), Progress(transient=True) as bar:
        task = bar.add_task("simulating", total=1.0)
        written = write_replay(
            store,
            chosen,
            out,
            truth,
            seed=chosen.seed if seed is None else seed,
            minutes=minutes,
            shoppers=shoppers,
            antennas=antennas,
            progress=lambda done: bar.update(task, completed=done),
        )
    typer.echo(f"{written} reads written to {out}")


@simulate.command()
def reader(
    family: Annotated[Family, typer.Option(help="Protocol of the reader.")] = Family.LLRP,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of an LLRP reader; 0: any free port.")] = 5084,
    profile: Annotated[Profile, typer.Option(help="JSON: format.")] = Profile.IMPINJ,
    address: Annotated[
        str, typer.Option(help="JSON: address of the reader as in the store file; port 0: any free port.")
    ] = "http://127.0.0.1:0",
    tags: Annotated[int, typer.Option(min=1, max=10_000, help="Number of tags in range.")] = 8,
    rate: Annotated[float, typer.Option(min=0.1, max=5000, help="Total reads per second.")] = 50,
    garbage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of serial frames preceded by 24 bytes of noise.")
    ] = 0,
    split: Annotated[bool, typer.Option("--split", help="Send serial frames in pieces of 1 to 8 bytes.")] = False,
    gpi: Annotated[
        float | None, typer.Option(min=0.05, help="LLRP: interval in seconds between changes of input 1.")
    ] = None,
    held: Annotated[
        int | None, typer.Option(min=0, help="LLRP: number of reports stored while disconnected; 0: none.")
    ] = None,
    clock_offset: Annotated[float, typer.Option(help="LLRP: seconds that its clock is ahead.")] = 0,
    drift: Annotated[float, typer.Option(help="LLRP: drift of its clock in parts per million.")] = 0,
    from_2000: Annotated[bool, typer.Option("--from-2000", help="LLRP: its clock started at 2000-01-01.")] = False,
    uptime: Annotated[bool, typer.Option("--uptime", help="LLRP: it has no UTC, only its uptime.")] = False,
    fault: Annotated[
        list[Fault] | None, typer.Option(help="LLRP: fault to inject; several are injected in turn.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="LLRP: seconds between faults.")] = 30,
) -> None:
    """Simulate one reader with a few tags in range, for any client, until Ctrl-C."""
    import asyncio

    from simulators.readers.lone import Wrongs, run_json, run_llrp, run_serial
    from simulators.readers.serial_line import Faults

    line = Faults(garbage=garbage, split=split)
    wrongs = Wrongs(clock_offset, drift, from_2000, uptime, gpi, held, tuple(fault or ()), every)
    if family in (Family.LLRP, Family.JSON) and line != Faults():
        raise typer.BadParameter("--garbage and --split are for serial readers")
    if family is not Family.LLRP and wrongs != Wrongs(every_s=every):
        raise typer.BadParameter("inputs, clock, memory and faults are options of LLRP readers only")
    if from_2000 and uptime:
        raise typer.BadParameter("--from-2000 and --uptime exclude each other")
    with _mendable():
        if family is Family.LLRP:
            asyncio.run(run_llrp(port, tags, rate, typer.echo, wrongs))
        elif family is Family.JSON:
            asyncio.run(run_json(profile, address, tags, rate, typer.echo))
        else:
            asyncio.run(run_serial(family, tags, rate, typer.echo, line))


@simulate.command()
def fleet(
    broker: Annotated[str, typer.Option(help="The broker, mqtt://host:port or mqtts://host:port.")],
    stores: Annotated[int, typer.Option(min=1, max=5000, help="Number of stores.")] = 200,
    rate: Annotated[float, typer.Option(min=0.001, max=1000, help="Events per second and store.")] = 0.2,
    duration: Annotated[float | None, typer.Option(help="Seconds to run; default: until Ctrl-C.")] = None,
) -> None:
    """Simulate many stores that publish valid messages, for testing a consumer; the last line is JSON."""
    import asyncio

    from simulators.headquarters.fleet import run

    def tell(totals: dict[str, int]) -> None:
        typer.echo("  ".join(f"{name} {number}" for name, number in totals.items()), err=True)

    try:
        typer.echo(json.dumps(asyncio.run(run(stores, broker, rate, duration, tell))))
    except ValueError as error:
        raise _failed(error, 2) from error


@simulate.command()
def score(
    truth: Annotated[Path, typer.Option(help="Where tags were: epc,zone,enter_us,exit_us.", exists=True)],
    visits: Annotated[Path, typer.Option(help="Computed visits: the same columns, others are ignored.", exists=True)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score computed visits against the truth."""
    from simulators.shop.score import read_stays
    from simulators.shop.score import score as judge

    try:
        result = judge(read_stays(truth), read_stays(visits)).as_dict()
    except ValueError as error:
        raise _failed(error, 2) from error
    if as_json:
        typer.echo(json.dumps(result))
        return
    width = max(map(len, result))
    for name, value in result.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {value:g}")


def _store(file: Path) -> StoreConfig:
    from config.check import ConfigError, load
    from simulators.shop.epcs import EpcMaker

    try:
        store = load(file, files=False)
        EpcMaker(store)
    except (ConfigError, ValueError) as error:
        raise _failed(error, 2) from error
    if not store.readers:
        raise _failed(f"{file} has no readers to simulate", 2)
    return store


def _world(name: WorldName, store: StoreConfig, seed: int | None, shoppers: int) -> tuple[World, Antennas | None]:
    """Return a world, and the real mounting of antennas if it differs from the store file."""
    if name is not WorldName.DRAWN:
        from simulators.shop.worlds import WORLDS

        return WORLDS[name], None
    from simulators.shop.draws import inhabit

    drawn = inhabit(store, seed or 0, shoppers)
    return drawn.world, drawn.antennas


@contextmanager
def _mendable() -> Iterator[None]:
    """Report ports in use and unwritable paths in one line."""
    try:
        yield
    except OSError as error:
        raise _failed(error, 1) from error


def _failed(why: object, code: int) -> typer.Exit:
    typer.echo(f"tagtrail: {why}", err=True)
    return typer.Exit(code)
