"""Commands for the sales of a store, which the chain's tills know."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.audit import record
from edge.cli.store_file import Config, load_store
from edge.words.counts import counted

group = typer.Typer(help="Manage the sales by zone and hour.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(group, name="sales")


@group.command("import")
def take(
    file: Annotated[Path, typer.Argument(help="CSV file hour,zone,tickets and, if known, units,amount,currency.")],
    config: Config,
    whole_days: Annotated[
        bool,
        typer.Option("--whole-days", help="In all other hours of these days, these zones sold nothing."),
    ] = False,
) -> None:
    """Import sales by zone and hour; the same hour again replaces it. Exit code 1 if lines were left out."""
    import time

    store = load_store(config)
    from edge.crm.sales_csv import import_csv

    done = import_csv(store, file, time.time_ns() // 1000, whole_days=whole_days)
    for problem in done.problems:
        typer.echo(problem, err=True)
    filled = f", {done.filled} filled with 0" if done.filled else ""
    left_out = f"; {counted(len(done.problems), 'line')} left out" if done.problems else ""
    typer.echo(f"{counted(done.hours, 'hour')}, {done.changed} new or different{filled}{left_out}")
    if whole_days and done.problems:
        typer.echo("no hours were filled with 0, because lines were left out", err=True)
    if done.problems:
        raise typer.Exit(1)


@group.command()
def delete(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First business day.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last business day.")],
    config: Config,
    zone: Annotated[str | None, typer.Option(help="Only this zone.")] = None,
) -> None:
    """Delete sales that were imported by mistake; these hours are unknown then. Exit code 1 if there were none."""
    if last < first:
        raise typer.BadParameter("before --from", param_hint="--to")
    store = load_store(config)
    from edge.crm.sales import delete as do

    span = f"{first:%Y-%m-%d} – {last:%Y-%m-%d}"
    done = do(store, first.date(), last.date(), zone)
    if not done.hours:
        typer.echo(f"no sales are known of {span}" + (f" in zone {zone}" if zone else ""), err=True)
        raise typer.Exit(1)
    record(store, "deleted sales", f"{span} {zone or ''}".strip())
    of = f"{counted(len(done.zones), 'zone')} on {counted(len(done.dates), 'day')}"
    typer.echo(f"{counted(done.hours, 'hour')} deleted, of {of}; now unknown")
