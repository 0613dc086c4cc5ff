"""Configuration from the CRM: kept beside the database, laid over the store file, tried, and taken back if it fails.

The store file stays store IT's and is never written: on a gateway it lies where the service may not write. A section
that a wish of the CRM carries replaces the store's, whole; those that it doesn't carry stay the store's, and the report
names them. What no wish may carry, or only to tighten it, edge.crm.pushed says. Once the store file is changed by hand,
the wish is void. A wish that comes while another is tried is taken after that.

    wish → checked → `trying` → start anew → self-test passed within SELF_TEST_S → `applied`
                                           → not passed, or the process died     → `rolled_back` to what ran before

Self-test: the broker is reached, the database takes what is decided, and a reader is up if one was before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from config import StoreConfig
from config.check import ConfigError, load_text
from config.model import Calibration
from edge.crm.pushed import SECTIONS, complete, loosened
from edge.store.compose import compose
from edge.store.errors import Trouble
from sync.down import MAX_CONFIG_BYTES, DesiredConfig, ReportedConfig

if TYPE_CHECKING:
    from sync.mqtt import Incoming

log = logging.getLogger("tagtrail.config")

SELF_TEST_S = 60.0
CALIBRATION = "calibration"


@dataclass
class Wish:
    """The last wish and what became of it; `base` is the hash of the store file that it was laid over."""

    generation: int = 0
    sha256: str = ""
    state: str = "none"
    reason: str = ""
    base: str = ""
    starts: int = 0
    running: int = 0
    """Generation at work, 0 for the store file alone."""
    saw: bool = False
    """Whether a reader was up before it."""


class Overlay:
    """The files of the wish: its state, and by generation its text and the one that ran before it.

    The state alone says which text is at work: whatever ends a write half-way leaves what ran.
    """

    def __init__(self, config: StoreConfig, file: Path) -> None:
        self._config = config
        self._stem = Path(f"{config.database.path}.desired")
        self._state = Path(f"{self._stem}.json")
        self._base = sha256(file.read_bytes()).hexdigest()
        self.wish = self._read()
        with suppress(OSError):  # as the text at work was named once
            os.replace(f"{self._stem}.toml", self._text(self.wish.running))

    @property
    def running_hash(self) -> str:
        """SHA-256 of the text that is laid over the store file; empty if none is."""
        if not self.wish.running or self.wish.base != self._base:
            return ""
        try:
            return sha256(self._text(self.wish.running).read_bytes()).hexdigest()
        except OSError:
            return ""

    def knows(self, generation: int, digest: str) -> bool:
        """Is this the last wish: what became of it holds, unless it was refused beside another store file."""
        stale = self.wish.state == "failed" and self.wish.base != self._base
        return (generation, digest) == (self.wish.generation, self.wish.sha256) and not stale

    def config(self) -> StoreConfig:
        """The store file with what is laid over it."""
        if self.wish.running and self.wish.base == self._base:
            try:
                return merged(self._text(self.wish.running).read_text("utf-8"), self._config)
            except (OSError, ValueError, ConfigError) as error:
                log.error("the configuration of the CRM cannot be used: %s", error)
        return self._config

    def kept(self) -> tuple[list[str], list[str]]:
        """Sections that the configuration at work leaves as the store's own file has them; and those of the store's
        own file that don't fit it and are without effect."""
        if not self.wish.running:
            return [], []
        try:
            text = self._text(self.wish.running).read_text("utf-8")
            wished, made = set(tomllib.loads(text)), merged(text, self._config)
        except (OSError, ValueError, ConfigError):
            return [], []
        unused = [CALIBRATION] if made.calibration != self._config.calibration else []
        own = {name for name, section in self._config.model_dump(exclude_unset=True).items() if section}
        return sorted(own - wished - set(unused)), unused

    def begin(self) -> None:
        """At a start of the service: a wish that did not live through its first start is taken back."""
        if self.wish.running and self.wish.base != self._base:
            self._end("rolled_back", "the store file was changed by hand", running=0)
        elif (reason := self._unfit()) and not self.roll_back(reason):
            self._end("rolled_back", reason, running=0)
        elif self.wish.state == "trying":
            self.wish.starts += 1
            if self.wish.starts > 1:
                self.roll_back("the service ended while it tried it")
            else:
                self._write()

    def _unfit(self) -> str:
        """Why what is laid over the store file can't be any more: this version may check what the last one did not."""
        if not self.wish.running:
            return ""
        try:
            merged(self._text(self.wish.running).read_text("utf-8"), self._config)
        except (OSError, ValueError, ConfigError) as error:
            return str(error)
        return ""

    def check(self, text: str) -> None:
        """ConfigError or ValueError for a text that can't be laid over the store file."""
        merged(text, self._config)

    def try_out(self, generation: int, digest: str, text: str, *, saw: bool = False) -> None:
        """Lay a checked text over the store file, from the next start on; `saw`: a reader is up now."""
        before = self.wish.running
        _replace(self._text(generation), text)
        wish = Wish(generation, digest, "trying", f"before it: {before}", self._base, 0, generation, saw)
        _replace(self._state, json.dumps(asdict(wish)))
        self.wish = wish
        for other in self._stem.parent.glob(f"{self._stem.name}-*.toml"):
            if other not in (self._text(generation), self._text(before)):
                other.unlink(missing_ok=True)

    def confirm(self) -> None:
        """It works."""
        self._end("applied", "", running=self.wish.generation)

    def refuse(self, generation: int, digest: str, reason: str) -> None:
        """Remember that a wish was not taken; what runs goes on."""
        self.wish.generation, self.wish.sha256, self.wish.base = generation, digest, self._base
        self._end("failed", reason, running=self.wish.running)

    def stay(self) -> None:
        """The wish is now what runs already."""
        self.wish.generation, self.wish.sha256 = self.wish.running, self.running_hash
        self._end("applied", "", running=self.wish.running)

    def roll_back(self, reason: str) -> bool:
        """Take a wish back that is being tried; False if none is."""
        if self.wish.state != "trying":
            return False
        before = int(self.wish.reason.rpartition(" ")[2] or 0)
        self._end("rolled_back", reason, running=before)
        return True

    def _text(self, generation: int) -> Path:
        return Path(f"{self._stem}-{generation}.toml")

    def _end(self, state: str, reason: str, *, running: int) -> None:
        self.wish.state, self.wish.reason, self.wish.running = state, reason[:300], running
        self._write()

    def _write(self) -> None:
        _replace(self._state, json.dumps(asdict(self.wish)))

    def _read(self) -> Wish:
        try:
            return Wish(**json.loads(self._state.read_text()))
        except (OSError, ValueError, TypeError):
            return Wish()


class Desired:
    """Takes `down/config` and reports on `up/config`; `run` proves a wish that is being tried."""

    def __init__(
        self,
        overlay: Overlay,
        clock: Callable[[], int],
        say: Callable[[str, bytes], None],
        well: Callable[[], bool],
        sees: Callable[[], bool],
        restart: Callable[[str], None],
    ) -> None:
        self._overlay = overlay
        self._clock = clock
        self._say = say
        self._well = well
        self._sees = sees
        self._restart = restart
        self._later: Incoming | None = None
        if overlay.wish.state == "failed":
            self._report_running()  # a wish that stands refused comes again, and is told of then
        else:
            self.report()

    async def take(self, incoming: Incoming) -> None:
        """Take a message of `down/config`; while a wish is tried the last one waits."""
        wish = self._overlay.wish
        if wish.state == "trying":
            self._later = incoming
            return
        if not incoming.payload:
            return  # nothing is desired
        try:
            if len(incoming.payload) > MAX_CONFIG_BYTES:
                raise ValueError(f"{len(incoming.payload)} bytes; the limit is {MAX_CONFIG_BYTES}")
            desired = DesiredConfig.model_validate_json(incoming.payload, strict=True)
        except ValueError as error:
            told = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
            self.report(failed=f"not a desired configuration: {told}")
            return
        if self._overlay.knows(desired.generation, desired.sha256):
            self.report()
            return
        try:
            if (desired.generation, desired.sha256) == (wish.running, self._overlay.running_hash):
                self._overlay.stay()
                self.report()
                return
            if desired.generation <= wish.running:
                raise ValueError(f"generation {wish.running} is at work")
            if sha256(desired.toml.encode()).hexdigest() != desired.sha256:
                raise ValueError("the text does not have this hash")
            self._overlay.check(desired.toml)
            self._overlay.try_out(desired.generation, desired.sha256, desired.toml, saw=self._sees())
        except (ValueError, ConfigError, OSError) as error:
            log.warning("configuration %d of the CRM is refused: %s", desired.generation, error)
            with suppress(OSError):
                self._overlay.refuse(desired.generation, desired.sha256, str(error))
            self.report()
            return
        self.report()
        self._restart(f"configuration {desired.generation} of the CRM is tried")

    async def run(self) -> None:
        """Prove what is being tried, then take what came meanwhile, and wait for ever."""
        if self._overlay.wish.state == "trying":
            try:
                async with asyncio.timeout(SELF_TEST_S):
                    while not (self._well() and (self._sees() or not self._overlay.wish.saw)):
                        await asyncio.sleep(0.2)
            except TimeoutError:
                what = "no reader was" if self._well() else "the broker was not"
                self._overlay.roll_back(f"{what} reached within {SELF_TEST_S:g} s")
                self._restart("the configuration of the CRM failed its self-test")
            else:
                self._overlay.confirm()
            self.report()
            if self._later is not None:
                await self.take(self._later)
        await asyncio.Event().wait()

    def report(self, failed: str | None = None) -> None:
        """Say how it stands; `failed`: a message that was no wish at all."""
        wish = self._overlay.wish
        if failed is not None:
            self._tell(0, "", "failed", failed)
        else:
            self._tell(wish.generation, wish.sha256, wish.state, "" if wish.state == "trying" else wish.reason)

    def _report_running(self) -> None:
        running = self._overlay.wish.running
        self._tell(running, self._overlay.running_hash, "applied" if running else "none", "")

    def _tell(self, generation: int, digest: str, state: str, reason: str) -> None:
        kept, unused = self._overlay.kept()
        made = {
            "generation": generation,
            "sha256": digest,
            "state": state,
            "reason": reason,
            "at_us": self._clock(),
            "running": self._overlay.wish.running,
            "kept": kept,
            "unused": unused,
        }
        self._say("up/config", ReportedConfig.model_validate(made).model_dump_json().encode())


def merged(text: str, config: StoreConfig) -> StoreConfig:
    """A wish's sections with the store's own others; ValueError or ConfigError if that can't or may not be.

    The store's calibration is left out where it was made for another layout than that.
    """
    try:
        wished = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not TOML: {error}") from None
    if foreign := sorted(set(wished) - set(SECTIONS)):
        raise ValueError(f"may not set {', '.join(foreign)}")
    store = wished.get("store", {"id": config.store.id})
    if not isinstance(store, dict) or store.get("id") != config.store.id:
        raise ValueError(f"[store] id must be {config.store.id!r}")
    own = _plain(config.model_dump(exclude_unset=True, exclude_none=True, by_alias=True))
    made = load_text(text, "the configuration of the CRM", config.database.path.parent, own, complete)
    if problems := loosened(made, config):
        raise ValueError("; ".join(problems))
    return made if _calibrated(made) else made.model_copy(update={CALIBRATION: Calibration()})


def _calibrated(config: StoreConfig) -> bool:
    """Can the calibration be used, if there is one."""
    try:
        compose(config)
    except Trouble:
        return False
    return True


def _plain(value: Any) -> Any:
    """What a model holds as TOML gives it."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _replace(file: Path, text: str) -> None:
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)
