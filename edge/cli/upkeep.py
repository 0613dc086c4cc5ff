"""Commands for the upkeep of a gateway."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.store_file import Config, load_store


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(status)
    app.command()(top)
    app.command()(doctor)
    app.command("support-bundle")(support_bundle)
    app.command()(backup)
    app.command()(restore)


def status(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    as_good_as: Annotated[
        Path | None,
        typer.Option(help="File with an earlier --json output: wait until everything that worked then works again."),
    ] = None,
    within: Annotated[float, typer.Option(min=0, help="Seconds to wait at most, with --as-good-as.")] = 120,
) -> None:
    """Print the state of the service in one line, or of what else runs here; exit code 1 if nothing does."""
    import asyncio

    store = load_store(config)
    from edge.doctor import status as tools
    from edge.store.errors import Trouble

    if as_good_as is not None:
        now = asyncio.run(tools.wait_for(store, tools.load(as_good_as), within))
    elif (found := asyncio.run(tools.status(store))) is None:
        if (said := asyncio.run(tools.other(store))) is None:
            raise Trouble("the service does not answer: is it running?")
        if as_json:
            raise Trouble(f"this gateway runs no service: it {said}")
        typer.echo(f"Tagtrail {version('tagtrail')}: {said}")
        return
    else:
        now = found
    typer.echo(tools.as_json(now) if as_json else str(now))


def top(
    config: Config,
    once: Annotated[bool, typer.Option("--once", help="Print it once instead.")] = False,
) -> None:
    """Show the gateway live on a terminal: readers, backlog, zones, memory; Ctrl-C ends."""
    import asyncio
    import contextlib

    from rich.console import Console

    store = load_store(config)
    from edge.doctor.top import watch

    console = Console(highlight=False, markup=False, emoji=False)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch(store, console, once=once or not console.is_terminal))


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


def support_bundle(
    config: Config, out: Annotated[Path, typer.Option(help="Output file, a .tar.gz readable by its owner only.")]
) -> None:
    """Collect what support needs in one file, without secrets, EPCs and member numbers."""
    import asyncio
    import io
    import time

    store = load_store(config)
    from edge.doctor.bundle import write
    from edge.store.errors import Trouble
    from edge.store.private import create_private

    made = io.BytesIO()
    asyncio.run(write(store, config, version("tagtrail"), lambda: time.time_ns() // 1000, made))
    try:
        create_private(out, made.getvalue())
    except OSError as error:
        raise Trouble(f"can't write {out}: {error.strerror}") from error
    typer.echo(f"written: {out}; look through it before you pass it on", err=True)


def backup(
    config: Config,
    to: Annotated[Path, typer.Option(help="Folder for backups, or - to write one to standard output.")],
    keep: Annotated[int, typer.Option(min=1, help="Number of backups kept in the folder.")] = 7,
    through: Annotated[
        str | None, typer.Option(help="Command that encrypts standard input to standard output, e.g. 'age -r age1…'.")
    ] = None,
) -> None:
    """Write a verified backup of a store, whether its service runs or not; without the tag key and passwords."""
    import os

    os.umask(0o077)
    store = load_store(config, overlay=False)
    from edge.backup import archive

    if to != Path("-"):
        typer.echo(archive.keep(store, config, version("tagtrail"), to, number=keep, through=through))
        return
    if through is not None or sys.stdout.isatty():
        raise typer.BadParameter("standard output must be a pipe or a file, without --through", param_hint="--to")
    archive.write(store, config, version("tagtrail"), sys.stdout.buffer)
    archive.note(store)


def restore(
    archive: Annotated[Path, typer.Argument(help="Backup, decrypted; - for standard input.")],
    config: Config,
    replace: Annotated[
        bool, typer.Option("--replace", help="Even if there is a database; it is kept beside for a week.")
    ] = False,
) -> None:
    """Put a backup of a store in place, on this machine or a new one; its service must be stopped."""
    import os

    os.umask(0o077)
    store = load_store(config, overlay=False)
    from edge.backup.restore import restore as put
    from edge.store.errors import Trouble

    if archive == Path("-"):
        made = put(store, sys.stdin.buffer, replace=replace)
    else:
        try:
            with archive.open("rb") as file:
                made = put(store, file, replace=replace)
        except OSError as error:
            raise Trouble(f"cannot read {archive}: {error.strerror}") from error
    typer.echo(
        f"restored {made.store} as of {made.made}. Erase the members again who were erased since, then start it."
    )
