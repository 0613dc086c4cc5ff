"""The store file as commands take it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from config import StoreConfig
    from edge.store.clock import Clock

Config = Annotated[Path, typer.Option("--config", "-c", help="The store file (TOML).")]
Calibration = Annotated[
    Path | None, typer.Option(help="What `tagtrail calibrate` wrote, in place of the store file's [calibration].")
]


def load_store(file: Path, *, files: bool = False, overlay: bool = True) -> StoreConfig:
    """The store, or exit 2 with all that is wrong; `files`: password and certificates must be there, as for serving.

    `overlay`: with what the CRM has laid over the file.
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
    """The store with another calibration than its file names, or without any."""
    if file is None and not without:
        return store
    from config.model import Calibration as Chosen

    return store.model_copy(update={"calibration": Chosen(file=file)})


def clock_of(speed: float, origin_us: int) -> Clock:
    from edge.store.clock import Clock

    return Clock(speed, origin_us)
