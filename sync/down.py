"""The contract downwards: commands, configuration and member directory, and what the store answers.

Inbound bytes are hostile: sizes are bounded, models are strict, and nothing in a message names a file or is run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from sync.contract import Epoch, EventClass, Message, Name, Reason, Seq, Us

MAX_COMMAND_BYTES = 4096
MAX_MANIFEST_BYTES = 64 * 1024
MAX_CONFIG_BYTES = 64 * 1024
MAX_DIRECTORY_BYTES = 256 * 1024 * 1024
PART_BYTES = 48 * 1024
"""Size of a part of a directory file, but for the last."""
MAX_WITHDRAWN = 1000
MAX_SALES_BYTES = 64 * 1024
MAX_SALES = 1000

CommandId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Generation = Annotated[int, Field(ge=1, lt=2**53)]
Sold = Annotated[int, Field(ge=0, lt=2**31)]


class _Command(Message):
    """Base of commands on `down/cmd`. A command repeated under its id is answered again, but not executed again."""

    v: Literal[1] = 1
    id: CommandId
    expires_us: Us = Field(description="the command is refused after this time")


class Ping(_Command):
    """Check that the gateway is alive; it answers with its clock and version."""

    command: Literal["ping"]


class Summary(_Command):
    """Return the figures of a business day (default: today), as `tagtrail summary --json` does."""

    command: Literal["summary"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None


class Replay(_Command):
    """Send events again, including acknowledged ones. Events that are no longer stored are reported as lost."""

    command: Literal["replay"]
    class_: Annotated[EventClass, Field(alias="class")]
    epoch: Epoch
    from_: Annotated[Seq, Field(alias="from")]
    to: Seq

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_ > self.to:
            raise ValueError("from is after to")
        return self


class Erase(_Command):
    """Erase a member. The answer is `pending` until nothing is left, then `applied` with a count of what was erased."""

    command: Literal["erase"]
    member: Annotated[Name, Field(min_length=1)]


class Reload(_Command):
    """Reload the store file. Refused if the file contains an error."""

    command: Literal["reload"]


class RestartReader(_Command):
    """Close and reopen the connection to a reader."""

    command: Literal["restart-reader"]
    reader: Name


class Capture(_Command):
    """Record raw reads on the gateway's disk for store IT. They are never sent over MQTT."""

    command: Literal["capture"]
    seconds: Annotated[int, Field(ge=1, le=600)]
    reader: Name | None = None


class Diagnostics(_Command):
    """Return diagnostics: connections, database, outbox and counters."""

    command: Literal["diagnostics"]


Command = Annotated[
    Ping | Summary | Replay | Erase | Reload | RestartReader | Capture | Diagnostics, Field(discriminator="command")
]
COMMAND: TypeAdapter[Command] = TypeAdapter(Command)


class Result(Message):
    """`up/result`: first `received`, then `applied` or `failed`; or `refused` if the command was not started.

    `pending`: the command was started and continues, even across restarts. `reason` says what it is waiting for;
    `applied` follows.
    """

    v: Literal[1] = 1
    id: Name = Field(description="id of the command; empty if it could not be read")
    state: Literal["received", "pending", "applied", "failed", "refused"]
    at_us: Us
    reason: Reason = ""
    output: dict[str, Any] = Field(default={})


class SalesHour(Message):
    """What was sold in one zone in one hour. An hour that is not sent is unknown: send 0 if nothing was sold."""

    zone: Name
    hour_us: Us = Field(description="beginning of an hour of the business day; the hour must be over")
    tickets: Sold | None = Field(
        description="number of receipts; null: unknown, which takes back what was sent before. Contract 1.4 and "
        "earlier refuse such an hour"
    )
    units: Sold | None = Field(default=None, description="number of articles")
    amount: Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)] | None = Field(
        default=None, description="value in the currency, to two decimals"
    )

    @model_validator(mode="after")
    def _all_or_nothing(self) -> Self:
        if self.tickets is None and (self.units is not None or self.amount is not None):
            raise ValueError("units and amount without tickets")
        return self


class SalesHead(Message):
    """What a message of sales says besides the hours."""

    v: Literal[1] = 1
    id: CommandId = Field(description="repeated in the answer on `up/result`")
    revision: Annotated[int, Field(ge=1, lt=2**53)] | None = Field(
        default=None,
        description="an hour is replaced by the same or a higher revision, never by a lower one; null: by any that "
        "comes later",
    )
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(
        default=None, description="of the amounts, ISO 4217; the same in all messages"
    )
    whole_days: bool = Field(
        default=False,
        description="true: on the business days of these hours, the zones of these hours sold nothing in all other "
        "hours that are over; ignored if any of these hours is refused",
    )


class Sales(SalesHead):
    """`down/sales`: sales by zone and hour. The same hour again replaces it. The answer on `up/result` counts the hours
    taken and lists those that were not, with the reason; one wrong hour does not affect the others."""

    hours: Annotated[list[SalesHour], Field(min_length=1, max_length=MAX_SALES)]


class DesiredConfig(Message):
    """`down/config`, retained: sections that replace those of the store file. Missing sections stay as in that file."""

    v: Literal[1] = 1
    generation: Generation
    sha256: Digest = Field(description="SHA-256 of the text in UTF-8")
    toml: Annotated[str, Field(max_length=60_000)] = Field(
        description="complete sections of a store file, except mqtt, database, web, monitoring, mail, "
        "privacy, calibration, forwarders, forwarding and standby, which only the gateway's own file can set"
    )


class ReportedConfig(Message):
    """`up/config`, retained: result of a pushed configuration. `running`: active generation, 0 for the store file."""

    v: Literal[1] = 1
    generation: Annotated[int, Field(ge=0)]
    sha256: str = ""
    state: Literal["trying", "applied", "failed", "rolled_back", "none"]
    reason: Reason = ""
    at_us: Us
    running: Annotated[int, Field(ge=0)] = 0
    kept: list[Name] = Field(default=[], description="sections not in the active generation; the store file's apply")
    unused: list[Name] = Field(
        default=[],
        description="sections of the store file that don't match the active generation and have no effect: "
        "calibration, if zones or antennas are different",
    )


class DirectoryFile(Message):
    """A gzipped CSV `epc,member,tier,consent,hint,hint_until_us`: all members, or the changes since generation `base`.

    In changes, a row without a member removes the card.
    """

    generation: Generation
    base: Generation | None = None
    size: Annotated[int, Field(ge=1, le=MAX_DIRECTORY_BYTES)]
    sha256: Digest

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.base is not None and self.base >= self.generation:
            raise ValueError("base is not before generation")
        return self


class Manifest(Message):
    """`down/directory`, retained: the directory that the store should have, and the files from which to build it."""

    v: Literal[1] = 1
    generation: Generation
    valid_until_us: Us = Field(
        description="from this time on, the store recognises nobody until it gets a newer manifest"
    )
    files: Annotated[list[DirectoryFile], Field(max_length=64)]
    withdrawn: Annotated[list[Annotated[Name, Field(min_length=1)]], Field(max_length=MAX_WITHDRAWN)] = Field(
        default=[], description="members who have withdrawn consent; applied immediately, before any file"
    )


class Want(Message):
    """`up/directory/want`: request for parts of a file, as raw bytes on `down/directory/part/{sha256}/{offset}`."""

    v: Literal[1] = 1
    sha256: Digest
    offset: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(gt=0)] = Field(description="size of a part in bytes")
    parts: Annotated[int, Field(ge=1, le=64)]


class ReportedDirectory(Message):
    """`up/directory`, retained: the directory that the store has."""

    v: Literal[1] = 1
    generation: Annotated[int, Field(ge=0)]
    state: Literal["applied", "fetching", "failed", "expired"]
    reason: Reason = ""
    members: Annotated[int, Field(ge=0)]
    at_us: Us
