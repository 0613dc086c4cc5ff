"""Commands for setting up a store. Imports nothing heavy."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.store_file import load_store
from edge.cli.users import first_line, put_user
from edge.words.counts import counted

if TYPE_CHECKING:
    from config import StoreConfig
    from edge.setup.first_file import Answers, FoundReader

STORES = Path("/etc/tagtrail")
STATE = Path("/var/lib/tagtrail")
SERIAL = "serial"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(init)
    app.command()(layout)


def init(
    file: Annotated[Path, typer.Argument(help="The store file to write, for example /etc/tagtrail/STORE.toml.")],
    store: Annotated[str | None, typer.Option(help="Id by which the CRM knows the store.")] = None,
    name: Annotated[str | None, typer.Option(help="The store's name; default: its id.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA time zone; default: that of this machine.")] = None,
    broker: Annotated[str | None, typer.Option(help="mqtts://HOST or mqtt://HOST of the chain's broker.")] = None,
    username: Annotated[str | None, typer.Option(help="The store's name at the broker, if it asks for one.")] = None,
    members: Annotated[
        str | None, typer.Option(help="GS1 company prefix of member cards, or 0x with the beginning of their EPCs.")
    ] = None,
    scan: Annotated[
        list[str] | None,
        typer.Option(help="Where to look for readers: as for `readers scan`, or serial. Can be repeated."),
    ] = None,
    antennas: Annotated[int, typer.Option(min=1, max=64, help="Antennas of each LLRP reader that is found.")] = 4,
    database: Annotated[Path | None, typer.Option(help="The database; default: where the service can write.")] = None,
    listen: Annotated[str, typer.Option(help="Address and port of the page.")] = "127.0.0.1:8080",
    user: Annotated[str, typer.Option(help="First user of the page, with the role it.")] = "admin",
) -> None:
    """Write a store file with comments, create the page's first user, examine the gateway, and print the next commands.

    Asks on a terminal. Otherwise --store and --broker are required, and the password is read from standard input.
    """
    import asyncio

    from edge.setup import first_file
    from edge.setup.first_file import Answers, machine_timezone
    from edge.store.errors import Trouble

    if file.exists():
        raise Trouble(f"{file} exists: change it with an editor, or choose another name")
    if not file.parent.is_dir():
        raise Trouble(f"there is no folder {file.parent}: is Tagtrail installed? See docs/install.md")
    asks = sys.stdin.isatty()
    timezone = timezone or (None if asks else machine_timezone())
    if asks:
        store = store or _ask("Id of the store at the CRM", "store", file.stem)
        name = name or _ask("Name of the store", "name", store)
        timezone = timezone or _ask("Time zone", "timezone", machine_timezone() or "")
        broker = broker or _ask("Broker of the chain, such as mqtts://broker.example", "broker", None)
        username = username or _ask("The store's name at the broker (empty: none)", "username", "") or None
        members = members or _ask("GS1 company prefix of member cards (empty: none)", "members", "") or None
        where = f"Where to look for readers (networks, hosts, {SERIAL}; empty: nowhere)"
        scan = scan or typer.prompt(where, default="", show_default=False).split()
    given = {"--store": store, "--timezone": timezone, "--broker": broker}
    if not (store and timezone and broker):
        missing = ", ".join(option for option, value in given.items() if not value)
        raise Trouble(f"without a terminal to ask on, these options are required: {missing}")
    readers = asyncio.run(_found(scan or [], antennas))
    answers = Answers(
        store, name or store, timezone, broker, database or _database(file), username, members, listen, readers
    )
    first_file.write(file, answers)
    typer.echo(f"written: {file}, with {counted(len(readers), 'reader')}")
    config = load_store(file, overlay=False)
    try:
        created = _create_user(config, user, asks)
    except Trouble:
        file.unlink()
        raise
    _examine(config, file)
    _say_what_comes_next(file, answers, None if created else user)


def layout(
    file: Annotated[Path, typer.Argument(help="The store file.")],
    image: Annotated[
        list[str] | None,
        typer.Option(help="New floor-plan picture: FLOOR=FILE, or FILE for the first floor. Can be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; default: any free one.")] = 0,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the layout to this file instead; - for standard output.")
    ] = None,
) -> None:
    """Open a page on this machine to move zones and antennas over a floor plan, or note a walk test; Ctrl-C ends."""
    import asyncio
    import contextlib

    config = load_store(file, overlay=False)
    if svg is not None:
        _draw(config, svg)
        return
    from edge.setup.editor import Editor, pictures
    from edge.store.page_socket import listen

    editor = Editor(file, pictures(image or [], config))
    with contextlib.closing(listen(f"127.0.0.1:{port}", "--port", "the editor")) as listening:
        at = listening.getsockname()[1]
        typer.echo(f"open http://127.0.0.1:{at}/?key={editor.key}")
        typer.echo(f"from another machine, first: ssh -L {at}:127.0.0.1:{at} THIS-MACHINE", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(editor.serve(listening))


def _draw(config: StoreConfig, out: Path) -> None:
    from edge.setup.layout_file import drawing, pictures
    from edge.setup.plan_svg import svg as draw
    from edge.store.errors import Trouble

    drawn = draw(drawing(config), pictures(config))
    if out == Path("-"):
        typer.echo(drawn, nl=False)
        return
    try:
        out.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise Trouble(f"can't write {out}: {error.strerror}") from error
    typer.echo(f"written: {out}", err=True)


def _ask(question: str, name: str, default: str | None) -> str:
    """Ask until the answer would be valid in a store file."""
    from edge.setup.first_file import mistake

    while True:
        answer = str(typer.prompt(question, default=default, show_default=bool(default))).strip()
        if not answer or (wrong := mistake(name, answer)) is None:
            return answer
        typer.echo(f"  {wrong}", err=True)


async def _found(where: list[str], antennas: int) -> tuple[FoundReader, ...]:
    from edge.readers.scan import search, serial_ports
    from edge.setup.first_file import FoundReader

    places = [place for text in where for place in (serial_ports() if text == SERIAL else [text])]
    readers = []
    async for finding in search(places):
        typer.echo(f"{finding.address}  {finding.driver or '-'}  {finding.text}", err=True)
        if finding.driver == "json":
            typer.echo("  add it by hand: it needs a profile and a password (docs/readers.md)", err=True)
        elif finding.driver:
            ports = antennas if finding.driver == "llrp" else 1
            readers.append(FoundReader(finding.driver, finding.address, ports))
    return tuple(readers)


def _database(file: Path) -> Path:
    if file.parent.absolute() == STORES:
        return STATE / file.stem / "tagtrail.db"
    return Path(f"{file.stem}.db")


def _create_user(config: StoreConfig, user: str, asks: bool) -> bool:
    from edge.store.errors import Trouble

    question = f"Password of the page's user {user} (empty: no user yet)"
    while True:
        password = (
            typer.prompt(question, default="", show_default=False, hide_input=True, confirmation_prompt=True)
            if asks
            else first_line()
        )
        if not password:
            return False
        try:
            put_user(config, user, "it", password)
        except Trouble as trouble:
            if not asks:
                raise
            typer.echo(f"  {trouble}", err=True)
        else:
            return True


def _examine(config: StoreConfig, file: Path) -> None:
    import asyncio
    import time

    from edge.doctor.examine import as_text, by_hand

    found = asyncio.run(by_hand(config, file, version("tagtrail"), lambda: time.time_ns() // 1000))
    # It can't run yet.
    typer.echo(as_text([one for one in found if one.what != "service"]))


def _say_what_comes_next(file: Path, answers: Answers, missing: str | None) -> None:
    """Print the next commands; `missing`: the page's first user, if there is none yet."""
    unit = file.parent.absolute() == STORES
    typer.echo("\nNext:")
    if answers.username and unit:
        typer.echo(
            f"  install -m 0600 /dev/stdin /etc/credstore/tagtrail.{file.stem}.mqtt-password   # the password, Ctrl-D"
        )
    if missing is not None:
        typer.echo(f"  tagtrail users set {missing} --role it -c {file}")
    typer.echo(f"  tagtrail layout {file}   # where zones and antennas are")
    typer.echo(f"  systemctl enable --now tagtrail@{file.stem}" if unit else f"  tagtrail run -c {file}")
