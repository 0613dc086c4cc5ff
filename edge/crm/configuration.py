"""Configuration pushed by the CRM: stored beside the database, merged over the store file, tried, and rolled back.

The store file belongs to store IT and is never written: on a gateway the service can't write there. A section in a
pushed configuration replaces the store's section as a whole; missing sections stay the store's, and the report lists
them. edge.crm.pushed defines what may not be pushed, or only to tighten it. When the store file is changed by hand, the
pushed configuration becomes void. One that arrives while another is tried waits for that.

    pushed → checked → `trying` → restart → self-test passed within SELF_TEST_S → `applied`
                                          → failed, or the process died         → `rolled_back` to what ran before

Self-test: the broker is connected, the database accepts writes, and a reader is up if one was before.
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
from edge.store.errors import Trouble
from sync.down import MAX_CONFIG_BYTES, DesiredConfig, ReportedConfig

if TYPE_CHECKING:
    from sync.mqtt import Incoming

log = logging.getLogger("tagtrail.config")

SELF_TEST_S = 60.0
CALIBRATION = "calibration"


@dataclass
class PushedConfig:
    """The last pushed configuration and its state; `base` is the hash of the store file that it was merged over."""

    generation: int = 0
    sha256: str = ""
    state: str = "none"
    reason: str = ""
    base: str = ""
    starts: int = 0
    running: int = 0
    """Generation in use, 0 for the store file alone."""
    saw: bool = False
    """True if a reader was up before it."""


class Overlay:
    """Files of the pushed configuration: its state, its text by generation, and the text that ran before.

    Only the state says which text is in use: an interrupted write leaves the previous one in use.
    """

    def __init__(self, config: StoreConfig, file: Path) -> None:
        self._config = config
        self._stem = Path(f"{config.database.path}.desired")
        self._state = Path(f"{self._stem}.json")
        self._base = sha256(file.read_bytes()).hexdigest()
        self.pushed = self._read()
        with suppress(OSError):  # an earlier name of the text in use
            os.replace(f"{self._stem}.toml", self._text(self.pushed.running))

    @property
    def running_hash(self) -> str:
        """SHA-256 of the text merged over the store file; empty without one."""
        if not self.pushed.running or self.pushed.base != self._base:
            return ""
        try:
            return sha256(self._text(self.pushed.running).read_bytes()).hexdigest()
        except OSError:
            return ""

    def knows(self, generation: int, digest: str) -> bool:
        """True for the last pushed configuration: its result holds, unless it was refused with another store file."""
        stale = self.pushed.state == "failed" and self.pushed.base != self._base
        return (generation, digest) == (self.pushed.generation, self.pushed.sha256) and not stale

    def config(self) -> StoreConfig:
        """Return the store file with the pushed configuration."""
        if self.pushed.running and self.pushed.base == self._base:
            try:
                return merged(self._text(self.pushed.running).read_text("utf-8"), self._config)
            except (OSError, ValueError, ConfigError) as error:
                log.error("the configuration from the CRM can't be used: %s", error)
        return self._config

    def kept(self) -> tuple[list[str], list[str]]:
        """Return the sections kept from the store file, and those of the store file that don't fit the configuration in
        use and have no effect."""
        if not self.pushed.running:
            return [], []
        try:
            text = self._text(self.pushed.running).read_text("utf-8")
            sections, made = set(tomllib.loads(text)), merged(text, self._config)
        except (OSError, ValueError, ConfigError):
            return [], []
        unused = [CALIBRATION] if made.calibration != self._config.calibration else []
        own = {name for name, section in self._config.model_dump(exclude_unset=True).items() if section}
        return sorted(own - sections - set(unused)), unused

    def begin(self) -> None:
        """Start the service: roll back a pushed configuration that did not survive its first start."""
        if self.pushed.running and self.pushed.base != self._base:
            self._end("rolled_back", "the store file has been changed", running=0)
        elif (reason := self._unfit()) and not self.roll_back(reason):
            self._end("rolled_back", reason, running=0)
        elif self.pushed.state == "trying":
            self.pushed.starts += 1
            if self.pushed.starts > 1:
                self.roll_back("the service ended during the trial")
            else:
                self._write()

    def _unfit(self) -> str:
        """Return why the pushed configuration can't be used any more: this version may check more than the last one."""
        if not self.pushed.running:
            return ""
        try:
            merged(self._text(self.pushed.running).read_text("utf-8"), self._config)
        except (OSError, ValueError, ConfigError) as error:
            return str(error)
        return ""

    def check(self, text: str) -> None:
        """Raise ConfigError or ValueError for a text that can't be merged over the store file."""
        merged(text, self._config)

    def try_out(self, generation: int, digest: str, text: str, *, saw: bool = False) -> None:
        """Use a checked text from the next start on; `saw`: a reader is up now."""
        before = self.pushed.running
        _replace(self._text(generation), text)
        pushed = PushedConfig(generation, digest, "trying", f"before it: {before}", self._base, 0, generation, saw)
        _replace(self._state, json.dumps(asdict(pushed)))
        self.pushed = pushed
        for other in self._stem.parent.glob(f"{self._stem.name}-*.toml"):
            if other not in (self._text(generation), self._text(before)):
                other.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Record that the trial has succeeded."""
        self._end("applied", "", running=self.pushed.generation)

    def refuse(self, generation: int, digest: str, reason: str) -> None:
        """Record a refused configuration; the one in use stays."""
        self.pushed.generation, self.pushed.sha256, self.pushed.base = generation, digest, self._base
        self._end("failed", reason, running=self.pushed.running)

    def stay(self) -> None:
        """Record that the pushed configuration is the one in use."""
        self.pushed.generation, self.pushed.sha256 = self.pushed.running, self.running_hash
        self._end("applied", "", running=self.pushed.running)

    def roll_back(self, reason: str) -> bool:
        """Roll back the configuration being tried; False if there is none."""
        if self.pushed.state != "trying":
            return False
        before = int(self.pushed.reason.rpartition(" ")[2] or 0)
        self._end("rolled_back", reason, running=before)
        return True

    def _text(self, generation: int) -> Path:
        return Path(f"{self._stem}-{generation}.toml")

    def _end(self, state: str, reason: str, *, running: int) -> None:
        self.pushed.state, self.pushed.reason, self.pushed.running = state, reason[:300], running
        self._write()

    def _write(self) -> None:
        _replace(self._state, json.dumps(asdict(self.pushed)))

    def _read(self) -> PushedConfig:
        try:
            return PushedConfig(**json.loads(self._state.read_text()))
        except (OSError, ValueError, TypeError):
            return PushedConfig()


class Desired:
    """Process `down/config` and report on `up/config`; `run` tests a configuration that is being tried."""

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
        if overlay.pushed.state == "failed":
            self._report_running()  # a refused one that is still retained comes again, and is reported then
        else:
            self.report()

    async def take(self, incoming: Incoming) -> None:
        """Take a message of `down/config`; while a configuration is tried, the last message waits."""
        pushed = self._overlay.pushed
        if pushed.state == "trying":
            self._later = incoming
            return
        if not incoming.payload:
            return  # no configuration desired
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
            if (desired.generation, desired.sha256) == (pushed.running, self._overlay.running_hash):
                self._overlay.stay()
                self.report()
                return
            if desired.generation <= pushed.running:
                raise ValueError(f"generation {pushed.running} is active")
            if sha256(desired.toml.encode()).hexdigest() != desired.sha256:
                raise ValueError("the text does not match the hash")
            self._overlay.check(desired.toml)
            self._overlay.try_out(desired.generation, desired.sha256, desired.toml, saw=self._sees())
        except (ValueError, ConfigError, OSError) as error:
            log.warning("configuration %d from the CRM refused: %s", desired.generation, error)
            with suppress(OSError):
                self._overlay.refuse(desired.generation, desired.sha256, str(error))
            self.report()
            return
        self.report()
        self._restart(f"trying configuration {desired.generation} from the CRM")

    async def run(self) -> None:
        """Test a configuration being tried, then process what arrived meanwhile, and wait forever."""
        if self._overlay.pushed.state == "trying":
            try:
                async with asyncio.timeout(SELF_TEST_S):
                    while not (self._well() and (self._sees() or not self._overlay.pushed.saw)):
                        await asyncio.sleep(0.2)
            except TimeoutError:
                what = "no reader was" if self._well() else "the broker was not"
                self._overlay.roll_back(f"{what} reached within {SELF_TEST_S:g} s")
                self._restart("the configuration from the CRM failed its self-test")
            else:
                self._overlay.confirm()
            self.report()
            if self._later is not None:
                await self.take(self._later)
        await asyncio.Event().wait()

    def report(self, failed: str | None = None) -> None:
        """Report the state; `failed`: reason for an invalid message."""
        pushed = self._overlay.pushed
        if failed is not None:
            self._tell(0, "", "failed", failed)
        else:
            self._tell(
                pushed.generation, pushed.sha256, pushed.state, "" if pushed.state == "trying" else pushed.reason
            )

    def _report_running(self) -> None:
        running = self._overlay.pushed.running
        self._tell(running, self._overlay.running_hash, "applied" if running else "none", "")

    def _tell(self, generation: int, digest: str, state: str, reason: str) -> None:
        kept, unused = self._overlay.kept()
        made = {
            "generation": generation,
            "sha256": digest,
            "state": state,
            "reason": reason,
            "at_us": self._clock(),
            "running": self._overlay.pushed.running,
            "kept": kept,
            "unused": unused,
        }
        self._say("up/config", ReportedConfig.model_validate(made).model_dump_json().encode())


def merged(text: str, config: StoreConfig) -> StoreConfig:
    """Merge pushed sections with the store's others; ValueError or ConfigError if that is invalid or not allowed.

    The store's calibration is left out if it was made for another layout.
    """
    try:
        sections = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid TOML: {error}") from None
    if foreign := sorted(set(sections) - set(SECTIONS)):
        raise ValueError(f"may not set {', '.join(foreign)}")
    store = sections.get("store", {"id": config.store.id})
    if not isinstance(store, dict) or store.get("id") != config.store.id:
        raise ValueError(f"[store] id must be {config.store.id!r}")
    own = _plain(config.model_dump(exclude_unset=True, exclude_none=True, by_alias=True))
    made = load_text(text, "the configuration from the CRM", config.database.path.parent, own, complete)
    if problems := loosened(made, config):
        raise ValueError("; ".join(problems))
    return made if _calibrated(made) else made.model_copy(update={CALIBRATION: Calibration()})


def _calibrated(config: StoreConfig) -> bool:
    """Return False if there is a calibration that can't be used."""
    try:
        from edge.store.compose import compose  # the page doesn't try anything, and has no memory to spare

        compose(config)
    except Trouble:
        return False
    return True


def _plain(value: Any) -> Any:
    """Convert a model's values to TOML types."""
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
