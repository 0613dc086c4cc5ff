"""Commands for the upkeep of a gateway."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from edge.cli.store_file import Config, load_store


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(doctor)


def doctor(config: Config, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False) -> None:
    """Examine a gateway and say what to do; exit code 1 if anything is wrong or soon will be."""
    import asyncio
    import time

    store = load_store(config)
    from edge.doctor.examine import as_json as json_of
    from edge.doctor.examine import as_text, by_hand

    found = asyncio.run(by_hand(store, config, version("tagtrail"), lambda: time.time_ns() // 1000))
    typer.echo(json_of(found) if as_json else as_text(found))
    if any(one.bad for one in found):
        raise typer.Exit(1)
