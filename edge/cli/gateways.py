"""Commands that run a gateway, whatever it is in its store: the service, a forwarder, a standby, a witness."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from edge.cli.store_file import ClockOrigin, ClockSpeed, Config, calibrated, clock_of, load_store

if TYPE_CHECKING:
    from edge.store.clock import Clock

As = Annotated[
    str | None, typer.Option("--as", help="Which gateway this is, on the one of the store file's [standby].")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(forward)
    app.command()(standby)
    app.command()(takeover)
    app.command()(witness)


def serve(
    config: Path, id_: str | None, web: bool, visits: Path | None, calibration: Path | None, clock: Clock
) -> None:
    """Run the service of a store until SIGTERM."""
    import asyncio
    import os

    from edge.service.memory import import_compiler, settle
    from edge.store.journal import set_up

    settle()
    os.umask(0o077)  # all files written may contain member data
    set_up()
    own = load_store(config, files=True, overlay=False)
    import_compiler()
    from edge.crm.configuration import Overlay
    from edge.service.service import Service
    from edge.store.errors import RestartNeeded, Superseded, Trouble

    overlay = Overlay(own, config)
    try:
        overlay.begin()
        store = calibrated(overlay.config(), calibration)
        service = Service(
            store, config, clock, version=version("tagtrail"), web=web, trace=visits, overlay=overlay, id_=id_
        )
        asyncio.run(service.run())
    except RestartNeeded as why:
        _begin_anew(why)
    except Superseded:
        raise
    except Trouble as trouble:
        if not overlay.roll_back(str(trouble)):
            raise
        _begin_anew(trouble)


def forward(
    config: Config,
    id_: Annotated[
        str | None,
        typer.Option("--as", help="Which forwarder of the store file this is, if there are several."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for reads to be sent; default: beside the place of the database.")
    ] = None,
    clock_speed: ClockSpeed = 1.0,
    clock_origin_us: ClockOrigin = 0,
) -> None:
    """Run the readers of one of the store's other gateways, and send their reads to the service, until SIGTERM."""
    import asyncio
    import os

    from edge.store.journal import set_up

    os.umask(0o077)
    set_up()
    store = calibrated(load_store(config, overlay=False), None, without=True)
    from edge.service.forwarder import ForwarderService, chosen

    service = ForwarderService(store, chosen(store, id_), clock_of(clock_speed, clock_origin_us), state)
    asyncio.run(service.run())


def standby(
    config: Config,
    id_: As = None,
    web: Annotated[bool, typer.Option(help="Once it serves, run the web page too.")] = True,
    clock_speed: ClockSpeed = 1.0,
    clock_origin_us: ClockOrigin = 0,
) -> None:
    """Keep a copy of the service's database, ready to take over; once it has taken over, run the service."""
    import asyncio
    import os

    from edge.store.journal import set_up

    clock = clock_of(clock_speed, clock_origin_us)
    os.umask(0o077)
    set_up()
    store = load_store(config, files=True, overlay=False)
    from edge.service.standby import StandbyService
    from edge.standby import roles
    from edge.store.errors import Superseded

    path = store.database.path
    if roles.serves(path):
        try:
            serve(config, id_, web, None, None, clock)
        except Superseded as why:
            _begin_anew(why)  # as the standby
    elif asyncio.run(StandbyService(store, id_, clock).run()):
        _begin_anew("this gateway runs the service from now on")


def takeover(
    config: Config,
    id_: As = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Let the standby take over the store's service; run it on the standby's gateway."""
    import asyncio
    import os

    os.umask(0o077)
    store = load_store(config, overlay=False)
    from edge.standby.takeover import Plan

    plan = asyncio.run(Plan.of(store, id_))
    typer.echo(plan.text)
    if not yes:
        typer.confirm("Take over?", abort=True)
    typer.echo(asyncio.run(plan.carry_out()))


def witness(
    config: Config,
    state: Annotated[
        Path | None, typer.Option(help="File with what it is told; default: beside the place of the database.")
    ] = None,
) -> None:
    """Be the witness by which the store's standby takes over by itself, on a third gateway, until SIGTERM."""
    import asyncio
    import os

    from edge.store.journal import set_up

    os.umask(0o077)
    set_up()
    store = load_store(config, overlay=False)
    from edge.service.standby import WitnessService

    asyncio.run(WitnessService(store, state).run())


def _begin_anew(why: object) -> NoReturn:
    """Restart the program in the same process, for changes that can't be applied while it is running."""
    import logging
    import os

    from edge.service.notify import begin_anew

    logging.getLogger("tagtrail").warning("restarting: %s", why)
    begin_anew()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
