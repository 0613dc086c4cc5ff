"""Command line entry point. Imports nothing heavy, so that `tagtrail --help` is fast."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated

import typer

from edge.cli import chain, gateways, mail, privacy, readers, sales, setup, upkeep, users
from edge.cli.store_file import Calibration, ClockOrigin, ClockSpeed, Config, calibrated, clock_of, load_store
from edge.words.counts import counted

app = typer.Typer(
    name="tagtrail",
    help="Tagtrail: in-store edge service for UHF RFID readers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
directory = typer.Typer(help="Manage the member directory.", no_args_is_help=True)
app.add_typer(directory, name="directory")
setup.register(app)
gateways.register(app)
readers.register(app)
users.register(app)
sales.register(app)
privacy.register(app)
upkeep.register(app)
mail.register(app)
chain.register(app)


class DigestOf(StrEnum):
    """Period of a digest."""

    DAY = "day"
    WEEK = "week"


def main() -> None:
    """Entry point. Errors that store IT can fix are printed in one line, with exit code 1."""
    for plugin in entry_points(group="tagtrail.commands"):
        plugin.load()(app)
    from edge.store.errors import Trouble

    try:
        app()
    except Trouble as trouble:
        import logging

        from edge.store.journal import prioritised, to_journal

        said = f"tagtrail: {trouble}"
        typer.echo(prioritised(said, logging.ERROR) if to_journal() else said, err=True)
        sys.exit(getattr(trouble, "EXIT_CODE", 1))
    except BrokenPipeError:
        sys.exit(1)


@app.command()
def run(
    config: Config,
    web: Annotated[bool, typer.Option(help="Run the web page too, in a separate process.")] = True,
    visits: Annotated[Path | None, typer.Option(help="Also write every visit, with its EPC, to this CSV file.")] = None,
    calibration: Calibration = None,
    id_: Annotated[
        str | None, typer.Option("--as", help="Which gateway this is, on the one of the store file's [standby].")
    ] = None,
    clock_speed: ClockSpeed = 1.0,
    clock_origin_us: ClockOrigin = 0,
) -> None:
    """Run the service for a store (readers, engine, database, CRM, web page) until SIGTERM."""
    gateways.serve(config, id_, web, visits, calibration, clock_of(clock_speed, clock_origin_us))


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The store file.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors instead.")] = False,
    database: Annotated[
        bool, typer.Option("--database", help="Also check, read-only, that this release can use the store's database.")
    ] = False,
) -> None:
    """Check a store file: list all errors with their lines and how to fix them; exit code 2 if there are any."""
    if schema:
        from config.check import schema as make

        typer.echo(json.dumps(make(), indent=2, ensure_ascii=False))
        return
    if file is None:
        raise typer.BadParameter("a store file is required", param_hint="FILE")
    from config.check import check as problems_of

    for problem in (problems := problems_of(file)):
        typer.echo(str(problem), err=True)
    if not all(problem.warning for problem in problems):
        raise typer.Exit(2)
    store = load_store(file, files=False)
    antennas = sum(len(reader.antennas) for reader in store.readers)
    typer.echo(
        f"{file}: {store.store.id}: {counted(len(store.floors), 'floor')}, {counted(len(store.zones), 'zone')}, "
        f"{counted(len(store.readers), 'reader')}, {counted(antennas, 'antenna')}: "
        f"{'no errors' if problems else 'valid'}"
    )
    if database:
        from edge.database.schema import prove

        typer.echo(f"{file}: {prove(store.database.path, store.store.id)}")


@app.command()
def replay(
    reads: Annotated[
        Path, typer.Argument(help="CSV file time_us,reader,antenna,epc,rssi_dbm; may be .gz, or - for stdin.")
    ],
    config: Config,
    visits: Annotated[
        Path, typer.Option(help="Output file for epc,zone,enter_us,exit_us,reads,censored; - for stdout.")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first malformed row.")] = False,
    calibration: Calibration = None,
) -> None:
    """Run recorded reads through the engine; the same file always gives the same visits."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    store = calibrated(load_store(config), calibration)
    from edge.readers.replay import replay as put_through
    from edge.readers.visit_file import VisitFile
    from edge.store.compose import compose

    shop = compose(store)
    size = reads.stat().st_size if reads.is_file() else None
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=size is None or not console.is_terminal)
    with bar, VisitFile(visits, shop.zones) as out:
        task = bar.add_task("replay", total=size)
        decided, report = put_through(
            shop, reads, strict=strict, progress=lambda done: bar.update(task, completed=done)
        )
        out.write(decided)
    for problem in report.problems:
        typer.echo(f"{reads}: {problem}", err=True)
    if report.malformed > len(report.problems):
        typer.echo(f"{reads}: {counted(report.malformed - len(report.problems), 'more malformed row')}", err=True)
    typer.echo(
        f"{counted(report.rows, 'read')}, {counted(report.visits, 'visit')}; skipped: {report.malformed} malformed, "
        f"{report.late} late, "
        f"{report.unknown_antenna} from unknown antennas",
        err=True,
    )


@app.command()
def calibrate(
    reads: Annotated[
        Path, typer.Option("--from", help="Recorded reads, as for replay; one or two hours of opening time.")
    ],
    config: Config,
    out: Annotated[
        Path | None, typer.Option(help="Output file for the calibration; by default it is only shown.")
    ] = None,
    walk: Annotated[Path | None, typer.Option(help="CSV file zone,from,to[,epc] of a walk test with a tag.")] = None,
) -> None:
    """Learn a store's radio model from its own reads, and show whether it explains them better."""
    from rich.console import Console
    from rich.progress import Progress

    store = calibrated(load_store(config), None, without=True)
    from edge.readers.calibrate import calibrate as learn
    from edge.readers.calibrate import show
    from edge.readers.read_file import load as load_reads
    from edge.store import calibration_file
    from edge.store.compose import compose
    from edge.store.errors import Trouble

    shop = compose(store)
    recorded, report = load_reads(shop, reads)
    if report.malformed or report.unknown_antenna:
        typer.echo(
            f"skipped: {report.malformed} malformed rows, {report.unknown_antenna} from unknown antennas", err=True
        )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("calibrate", total=1.0)
        result = learn(shop, recorded, walk, lambda share: bar.update(task, completed=share))
    show(result, Console(width=None if console.is_terminal else 110))
    if out is not None:
        if not result.better:
            raise Trouble(f"{out} not written: the calibration would not improve the results")
        calibration_file.save(out, store.store.id, shop.layout, shop.zones, shop.ports, result.learnt)
        typer.echo(f"written: {out}", err=True)


@app.command()
def summary(
    config: Config,
    date: Annotated[str | None, typer.Option(help="Business date, YYYY-MM-DD; default: today.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the counters as CSV.")] = False,
    lang: Annotated[str, typer.Option(help="Language of the text output: zh or en.")] = "en",
    digest: Annotated[
        DigestOf | None,
        typer.Option(help="Print cues and service cases of the day, or of the 7 days up to it, instead."),
    ] = None,
    as_html: Annotated[
        bool,
        typer.Option("--html", help="With --digest: print an A4 page of figures, pictures and what to do, as HTML."),
    ] = False,
) -> None:
    """Print a day in the store (traffic, dwell, flows) and the state of the service."""
    store = load_store(config)
    if digest is not None:
        from edge.reports.digest import as_html as digest_as_html
        from edge.reports.digest import render as render_digest

        days = 7 if digest is DigestOf.WEEK else 1
        if as_csv or (as_html and as_json):
            raise typer.BadParameter(
                "a digest can be printed as text, with --json or with --html",
                param_hint="--csv" if as_csv else "--html",
            )
        if as_html:
            typer.echo(digest_as_html(store, date, days, lang))
            return
        typer.echo(render_digest(store, date, days, "json" if as_json else "text", lang))
        return
    if as_html:
        raise typer.BadParameter("only a digest can be printed as HTML: --digest day or week", param_hint="--html")
    from edge.reports.render import render

    form = "json" if as_json else "csv" if as_csv else "text"
    typer.echo(render(store, date, form, lang))


@app.command()
def web(config: Config) -> None:
    """Run the floor manager's web page only; `run` includes it."""
    import os

    os.umask(0o077)
    store = load_store(config)
    from edge.web.serve import serve

    serve(store, fd=None, clock=clock_of(1.0, 0))


@directory.command("import")
def import_members(
    file: Annotated[Path, typer.Argument(help="CSV file epc,member,tier,consent,hint; replaces the directory.")],
    config: Config,
    with_erased: Annotated[
        bool, typer.Option("--with-erased", help="Also import members who were erased here and have joined again.")
    ] = False,
) -> None:
    """Import the member directory. Cards are stored as keyed hashes, never as EPCs."""
    store = load_store(config)
    from edge.crm.directory_csv import import_csv

    done = import_csv(store, file, with_erased=with_erased)
    left_out = f"; {done.left_out} left out because they were erased here" if done.left_out else ""
    typer.echo(f"{counted(done.rows, 'member')}{left_out}")


@app.command()
def contract(
    out: Annotated[Path, typer.Option(help="Output folder for asyncapi.json and schemas/.")] = Path("docs/contract"),
) -> None:
    """Write the contract with the CRM as JSON Schemas and an AsyncAPI 3 document."""
    from sync.documents import write

    for file in write(out):
        typer.echo(str(file))


@app.command()
def warmup() -> None:
    """Compile all kernels, so that the next start is fast."""
    from edge.service.warmup import warm_up_all

    typer.echo(f"compiled in {warm_up_all():.1f} s")


@app.command("version")
def show_version() -> None:
    """Print the version."""
    typer.echo(version("tagtrail"))
