"""The command for the digest by e-mail. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.store_file import Config, load_store
from edge.words.counts import counted


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(mail)


def mail(
    config: Config,
    test: Annotated[bool, typer.Option("--test", help="Send a short message to all recipients now.")] = False,
) -> None:
    """Show when the digest is sent by e-mail, and when it was sent last; with --test try the mail server."""
    store = load_store(config)
    from edge.store.errors import Trouble

    if store.mail is None:
        raise Trouble("the store file has no [mail]: see config/demo.toml for its keys")
    from edge.service import post
    from edge.store.credentials import at_its_source

    if test:
        settings = store.mail.model_copy(update={"password_file": at_its_source(store.mail.password_file, config.stem)})
        refused = post.send(settings, post.trial(settings, store.store.id))
        if refused:
            raise Trouble(f"sent, but the mail server refuses {counted(refused, 'recipient')}: check [mail] to")
        typer.echo(f"sent to {counted(len(settings.to), 'recipient')}")
        return
    from edge.service.mailing import told

    for line in told(store, store.mail):
        typer.echo(line)
