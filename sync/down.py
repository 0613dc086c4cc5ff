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

CommandId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Generation = Annotated[int, Field(ge=1, lt=2**53)]


class _Command(Message):
    """Base of commands on `down/cmd`; one that comes again under its id is answered again and not done again."""

    v: Literal[1] = 1
    id: CommandId
    expires_us: Us = Field(description="after this it is refused")


class Ping(_Command):
    """Check that the gateway is alive; it answers with its clock and version."""

    command: Literal["ping"]


class Summary(_Command):
    """The numbers of a business day, today if absent, as `tagtrail summary --json` gives them."""

    command: Literal["summary"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None


class Replay(_Command):
    """Send events once more, acknowledged ones too; what is no longer kept comes as lost."""

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
    """Forget a member everywhere; the answer is a receipt of counts once nothing is left, `pending` until then."""

    command: Literal["erase"]
    member: Annotated[Name, Field(min_length=1)]


class Reload(_Command):
    """Read the store file anew; refused if there is an error in it."""

    command: Literal["reload"]


class RestartReader(_Command):
    """Close a reader's session and open it anew."""

    command: Literal["restart-reader"]
    reader: Name


class Capture(_Command):
    """Record raw reads on the gateway's disk for a while, for store IT; they never cross MQTT."""

    command: Literal["capture"]
    seconds: Annotated[int, Field(ge=1, le=600)]
    reader: Name | None = None


class Diagnostics(_Command):
    """Request the gateway's diagnostics: links, database, outbox, counters."""

    command: Literal["diagnostics"]


Command = Annotated[
    Ping | Summary | Replay | Erase | Reload | RestartReader | Capture | Diagnostics, Field(discriminator="command")
]
COMMAND: TypeAdapter[Command] = TypeAdapter(Command)


class Result(Message):
    """`up/result`: first `received`, then `applied` or `failed`; or `refused`, for a command that was not begun.

    `pending`: it is begun and goes on, over restarts too; `reason` says what it waits for, `applied` follows.
    """

    v: Literal[1] = 1
    id: Name = Field(description="the command's; empty if it could not be read")
    state: Literal["received", "pending", "applied", "failed", "refused"]
    at_us: Us
    reason: Reason = ""
    output: dict[str, Any] = Field(default={})


class DesiredConfig(Message):
    """`down/config`, retained: sections that stand in place of the store's; those that it lacks stay the store's."""

    v: Literal[1] = 1
    generation: Generation
    sha256: Digest = Field(description="of the text's UTF-8")
    toml: Annotated[str, Field(max_length=60_000)] = Field(
        description="sections of a store file, whole, but for the gateway's own mqtt, database, web, "
        "privacy and calibration"
    )


class ReportedConfig(Message):
    """`up/config`, retained: what became of it. `running` is the generation at work, 0 for the file of store IT."""

    v: Literal[1] = 1
    generation: Annotated[int, Field(ge=0)]
    sha256: str = ""
    state: Literal["trying", "applied", "failed", "rolled_back", "none"]
    reason: Reason = ""
    at_us: Us
    running: Annotated[int, Field(ge=0)] = 0
    kept: list[Name] = Field(
        default=[], description="sections that the running generation doesn't carry, which the store's own file decides"
    )
    unused: list[Name] = Field(
        default=[],
        description="sections of the store's own file that don't fit the running generation and have no effect: "
        "calibration, once zones or antennas are other ones",
    )


class DirectoryFile(Message):
    """A gzipped CSV `epc,member,tier,consent,hint,hint_until_us`: all members, or changes of generation `base`.

    In changes, a row without a member takes that card out.
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
    """`down/directory`, retained: which directory the store shall have, and the files that lead there."""

    v: Literal[1] = 1
    generation: Generation
    valid_until_us: Us = Field(description="from then on the store recognises nobody, unless a newer manifest came")
    files: Annotated[list[DirectoryFile], Field(max_length=64)]
    withdrawn: Annotated[list[Annotated[Name, Field(min_length=1)]], Field(max_length=MAX_WITHDRAWN)] = Field(
        default=[], description="members who took their consent back: applied at once, before any file"
    )


class Want(Message):
    """`up/directory/want`: please send parts of a file on `down/directory/part/{sha256}/{offset}`, raw bytes."""

    v: Literal[1] = 1
    sha256: Digest
    offset: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(gt=0)] = Field(description="of a part")
    parts: Annotated[int, Field(ge=1, le=64)]


class ReportedDirectory(Message):
    """`up/directory`, retained: which directory the store has."""

    v: Literal[1] = 1
    generation: Annotated[int, Field(ge=0)]
    state: Literal["applied", "fetching", "failed", "expired"]
    reason: Reason = ""
    members: Annotated[int, Field(ge=0)]
    at_us: Us
