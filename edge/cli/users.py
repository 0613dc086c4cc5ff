"""Commands for managing users of the web page, and tokens of programs. Imports nothing heavy."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.store_file import Config, load_store

if TYPE_CHECKING:
    from config import StoreConfig
    from edge.access.users import Users

group = typer.Typer(help="Manage the users of the web page.", no_args_is_help=True)
tokens = typer.Typer(help="Manage the tokens with which programs read figures.", no_args_is_help=True)
group.add_typer(tokens, name="token")


class RoleName(StrEnum):
    """Roles, as in edge.access.users.Role, which is imported only when needed."""

    VIEWER = "viewer"
    MANAGER = "manager"
    IT = "it"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(group, name="users")


@group.command("set")
def put(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    config: Config,
    role: Annotated[RoleName, typer.Option(help="Role of the user.")],
) -> None:
    """Create a user, or set a new password and role. Asks for the password, or reads it from standard input."""
    store = load_store(config, overlay=False)
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = first_line()
    put_user(store, name, role, password)


def first_line() -> str:
    """Return the first line of standard input, without its end."""
    return sys.stdin.readline().rstrip("\r\n")


def put_user(store: StoreConfig, name: str, role: str, password: str) -> None:
    """Create a user of a store's page, or change one."""
    from edge.access.users import Role

    users = _users(store)
    users.put(name, Role(role), password)
    users.record("console", "", "", "user set", f"{name} ({role})")
    typer.echo(f"user {name} set, role {role}")


@group.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The user's name.")], config: Config) -> None:
    """Remove a user and end the user's sessions."""
    from edge.store.errors import Trouble

    users = _users(load_store(config, overlay=False))
    if not users.remove(name):
        raise Trouble(f"no such user: {name}")
    users.record("console", "", "", "user removed", name)
    typer.echo(f"user {name} removed")


@group.command("list")
def show(config: Config) -> None:
    """List all users with their roles."""
    for user in _users(load_store(config, overlay=False)).users():
        typer.echo(f"{user.name}\t{user.role}")


@tokens.command("make")
def make_token(
    name: Annotated[str, typer.Argument(help="Name of the program, as it will be in the audit log.")],
    config: Config,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until the token expires.")] = 365,
) -> None:
    """Create a token for a program and print it, once: only its hash is kept. It reads figures, as a viewer does."""
    users = _users(load_store(config, overlay=False))
    token = users.make_token(name, days)
    users.record("console", "", "", "token made", name)
    typer.echo(token)
    typer.echo(f"keep it now, it is not shown again; valid for {days} days: Authorization: Bearer …", err=True)


@tokens.command("list")
def show_tokens(config: Config) -> None:
    """List the tokens of programs: name, day made, last day, day of last use."""
    import datetime as dt

    def day(at_s: float | None) -> str:
        return "never" if at_s is None else f"{dt.datetime.fromtimestamp(at_s):%Y-%m-%d}"

    for one in _users(load_store(config, overlay=False)).programs():
        typer.echo("\t".join((one.name, day(one.made_s), day(one.ends_s), day(one.used_s))))


@tokens.command("revoke")
def revoke_token(name: Annotated[str, typer.Argument(help="Name of the program.")], config: Config) -> None:
    """Revoke the token of a program, from its next request on."""
    from edge.store.errors import Trouble

    users = _users(load_store(config, overlay=False))
    if not users.revoke_token(name):
        raise Trouble(f"no such token: {name}")
    users.record("console", "", "", "token revoked", name)
    typer.echo(f"{name} revoked")


def _users(store: StoreConfig) -> Users:
    from edge.access.page_file import prove
    from edge.access.users import Users, users_path
    from edge.store.errors import Trouble

    path = users_path(store)
    try:
        prove(path)
    except Trouble as trouble:
        if path.exists():
            raise
        typer.echo(f"tagtrail: {trouble}", err=True)
    return Users(path)
