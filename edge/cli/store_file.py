"""Load the store file for commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from config import StoreConfig
    from edge.store.clock import Clock

Config = Annotated[Path, typer.Option("--config", "-c", help="The store file (TOML).")]
Calibration = Annotated[
    Path | None, typer.Option(help="Output of `tagtrail calibrate`, used instead of the store file's [calibration].")
]
ClockSpeed = Annotated[float, typer.Option(hidden=True, min=0.01, max=1000, help="Run the clock faster (demo).")]
ClockOrigin = Annotated[int, typer.Option(hidden=True, help="Where the faster clock started, UTC microseconds.")]


def load_store(file: Path, *, files: bool = False, overlay: bool = True) -> StoreConfig:
    """Load the store, or print all problems and exit with 2.

    `files`: password and certificate files must exist, as for running the service. `overlay`: include the
    configuration pushed by the CRM.
    """
    from config.check import ConfigError, load

    try:
        store = load(file, files=files)
        if overlay:
            from edge.crm.configuration import Overlay

            return Overlay(store, file).config()
        return store
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(2) from error


def calibrated(store: StoreConfig, file: Path | None, *, without: bool = False) -> StoreConfig:
    """Replace the store's calibration, or remove it."""
    if file is None and not without:
        return store
    from config.model import Calibration as Chosen

    return store.model_copy(update={"calibration": Chosen(file=file)})


def clock_of(speed: float, origin_us: int) -> Clock:
    from edge.store.clock import Clock

    return Clock(speed, origin_us)
