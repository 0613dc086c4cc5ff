"""Commands for the person on the ladder. Imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Family(StrEnum):
    """Protocols, by the names of their drivers."""

    LLRP = "llrp"
    THINGMAGIC = "thingmagic"
    R2000 = "r2000"
    UHFREADER18 = "uhfreader18"
    CHAFON_CF = "chafon-cf"
    M100 = "m100"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(decode)


def decode(
    family: Annotated[Family, typer.Argument(help="Which protocol the bytes are of.")],
    file: Annotated[Path, typer.Argument(help="Captured bytes, or hex text with spaces and newlines; - for stdin.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV time_us,antenna,epc,rssi_dbm,count on stdout.")] = False,
) -> None:
    """Decode captured bytes of a reader, and say what was left out and why."""
    import sys

    from edge.decode import decode as decode_bytes
    from edge.decode import load, rows_table

    decoded = decode_bytes(family, load(file))
    if as_csv:
        decoded.write_csv(sys.stdout)
    else:
        for line in rows_table(decoded.rows):
            typer.echo(line)
    for each in decoded.left_out:
        typer.echo(str(each), err=True)
    typer.echo(decoded.summary(), err=True)
