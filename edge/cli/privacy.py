"""Commands for member data: erase, export, check retention, store the tag key separately."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.audit import record
from edge.cli.store_file import Config, load_store

Member = Annotated[str, typer.Argument(help="The member number.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(erase)
    app.command()(subject)
    app.command()(retention)
    app.command("tag-key")(tag_key)


def erase(member: Member, config: Config) -> None:
    """Erase a member at this store; exit code 1 while pending, 0 when nothing is left."""
    import asyncio
    import time

    store = load_store(config)
    from edge.crm.console import erase as do

    answer = asyncio.run(do(store, member, lambda: time.time_ns() // 1000))
    record(store, "erased a member")
    if answer["state"] == "pending":
        typer.echo(
            f"tagtrail: pending: {answer['reason']}. It continues by itself; run this command again to check.", err=True
        )
        raise typer.Exit(1)
    typer.echo("erased: " + ", ".join(f"{name} {count}" for name, count in answer["receipt"].items()))


def subject(
    member: Member,
    config: Config,
    out: Annotated[
        Path | None, typer.Option(help="Output file, readable by its owner only; default: standard output.")
    ] = None,
) -> None:
    """Export all data that this gateway stores about a member, as JSON, for an access request."""
    import time

    store = load_store(config)
    from edge.reports.subject import subject as of

    text = json.dumps(of(store, member, time.time_ns() // 1000), ensure_ascii=False, indent=2)
    record(store, "gave out a member's data", member=member)
    if out is None:
        typer.echo(text)
        return
    from edge.store.errors import Trouble
    from edge.store.private import create_private

    try:
        create_private(out, f"{text}\n".encode())
    except OSError as error:
        raise Trouble(f"can't write {out}: {error.strerror}") from error
    typer.echo(f"written: {out}", err=True)


def retention(
    config: Config, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False
) -> None:
    """Print the age of all stored data with its maximum; exit code 1 if anything is too old."""
    import time

    store = load_store(config)
    from edge.reports.retention import as_json as json_of
    from edge.reports.retention import as_text, lines

    found = list(lines(store, time.time_ns() // 1000, time.time()))
    typer.echo(json_of(found) if as_json else as_text(found))
    if not all(line.ok for line in found):
        raise typer.Exit(1)


def tag_key(config: Config) -> None:
    """Print the tag key, or a new one, for `systemd-creds encrypt`; never to a terminal."""
    store = load_store(config, overlay=False)
    from edge.database.keys import key_to_seal
    from edge.store.errors import Trouble

    if sys.stdout.isatty():
        raise Trouble("not printed to a terminal: pipe the key into systemd-creds encrypt --name=tag-key-sealed - FILE")
    typer.echo(key_to_seal(store.database.path).hex())
