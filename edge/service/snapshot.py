"""Live state of the service, sent over its socket twice a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from config import StoreConfig
from config.facts import TAG_CLASSES
from dwell.layout import TagClass
from dwell.visits import Visits
from edge.database.writer import SIDES, Database
from edge.intake.pipeline import Pipeline
from edge.readers import antennas
from edge.service import page_process
from edge.service.expiry import Certificates
from edge.service.jobs import Jobs
from edge.service.learning import Learning
from edge.service.totals import Totals
from edge.store.clock import Clock
from edge.store.compose import Shop
from sync.contract import EventClass
from sync.publisher import Publisher

RATE_WINDOW = 4
"""Number of snapshots used for reads/s."""


class Snapshot:
    """Collect the live state from the parts of a service."""

    def __init__(
        self,
        config: StoreConfig,
        shop: Shop,
        database: Database,
        publisher: Publisher,
        pipeline: Pipeline,
        totals: Totals,
        jobs: Jobs,
        certificates: Certificates,
        learning: Learning,
        examined: Callable[[], dict[str, Any]],
        forwarders: Callable[[], list[dict[str, Any]]],
        standby: Callable[[], dict[str, Any] | None],
        clock: Clock,
        *,
        version: str,
        page: page_process.Probe | None,
    ) -> None:
        self._config = config
        self._shop = shop
        self._database = database
        self._publisher = publisher
        self._pipeline = pipeline
        self._learning = learning
        self._examined = examined
        self._forwarders = forwarders
        self._standby = standby
        self._via = {reader.id: reader.via for reader in config.readers}
        self._clock = clock
        self._version = version
        self._page = page
        self._totals = totals
        self._jobs = jobs
        self._certificates = certificates
        self._began_s = time.monotonic()
        self._rates: dict[str, list[tuple[float, int]]] = {}

    def take(self) -> dict[str, Any]:
        """Return the live state for the live socket."""
        pipeline, shop = self._pipeline, self._shop
        visits = pipeline.here()
        members = self._members(visits)
        as_of_us = self._clock.now_us()
        counters = pipeline.engine.counters
        publisher = self._publisher.status
        return {
            "as_of_us": as_of_us,
            "watermark_us": pipeline.engine.weighed_us,
            "speed": self._clock.speed,
            "store": self._config.store.id,
            "version": self._version,
            "pid": os.getpid(),
            "page": self._page and self._page.url,
            "page_took_s": self._page and self._page.took_s,
            "zones": self._zones(visits, pipeline.covered()),
            "members": members,
            "cues": pipeline.desk.told({member["member"]: member["zone"] for member in members}, as_of_us),
            "recognitions": pipeline.recognitions,
            "readers": [self._reader(reader.id) for reader in shop.readers],
            "forwarders": self._forwarders(),
            "standby": self._standby(),
            "reads": sum(pipeline.reads_of.values()),
            "reads_per_s": self._rate("", sum(pipeline.reads_of.values())),
            "tags_present": len(np.unique(visits[["epc", "epc_bits"]])),
            **self._totals.stored,
            "broker": {
                "connected": publisher.connected,
                "reason": publisher.reason,
                "since_us": publisher.since_us,
            },
            "database": {
                "trouble": pipeline.trouble or self._publisher.trouble,
                "quarantined": self._database.quarantined and str(self._database.quarantined),
                **self._sizes(),
            },
            "queue": dict(zip(("reads", "oldest_s", "held"), pipeline.queue, strict=True)),
            "process": {"up_s": round(time.monotonic() - self._began_s, 1), "written_bytes": written_bytes()},
            "clock": self._time(),
            "outbox": self._outbox(),
            "failing": [asdict(each) for each in self._jobs.failing],
            "certificates": [asdict(one) for one in self._certificates.all],
            "counters": counters,
            "drifted": antennas.drifted(shop, pipeline.engine.drift_db),
            "doubles": [
                {
                    "zones": [self._shop.zones[self._shop.layout.antenna_zone[antenna]] for antenna in one.antennas],
                    "tag_class": TAG_CLASSES[one.tag_class],
                    "since_us": one.since_us,
                }
                for one in pipeline.doubles.now
            ],
            "resting": antennas.resting(shop, pipeline.engine.stuck_tags()),
            "radio": self._learning.told(),
            "doctor": self._examined(),
        }

    def antennas(self, id_: str) -> list[dict[str, Any]]:
        """Return the reads of each antenna of a reader; empty for an unknown reader."""
        return self._pipeline.antennas.of(id_) if id_ in self._pipeline.readers else []

    def all_antennas(self) -> dict[str, list[dict[str, Any]]]:
        """Return the reads of each antenna of all readers."""
        return {id_: self._pipeline.antennas.of(id_) for id_ in self._pipeline.readers}

    def keep_rates(self) -> None:
        """Update the rates, so that the first client also gets those of the last few seconds."""
        for reader, count in self._pipeline.reads_of.items():
            self._rate(reader, count)
        self._rate("", sum(self._pipeline.reads_of.values()))

    def _sizes(self) -> dict[str, Any]:
        path, database = self._database.path, self._database
        return {
            "bytes": sum(size_of(path.with_name(path.name + side)) for side in ("", *SIDES)),
            "quota_bytes": self._config.database.quota_mb << 20,
            "checkpoint_bytes": self._pipeline.checkpoint_bytes,
            "commits": database.commits,
            "commit_s": round(database.commit_s, 6),
            "failed_commits": database.failed_commits,
        }

    def _outbox(self) -> dict[str, dict[str, Any]]:
        oldest_s, heard_s = self._totals.oldest_s(), self._publisher.heard_s()
        return {
            name: depth | {"oldest_s": round(oldest_s[name], 1), "acked_s": heard_s.get(cast("EventClass", name))}
            for name, depth in self._totals.depth.items()
        }

    def _time(self) -> dict[str, Any]:
        time = self._pipeline.time
        step = time.last_step
        return {
            "trust": time.trust.value,
            "reason": time.judgement.reason,
            "since_us": time.since_us,
            "steps": time.steps,
            "stepped_us": step and step.to_us,
            "stepped_by_us": step.by_us if step else 0,
        }

    def _zones(self, visits: Visits, covered: set[int]) -> list[dict[str, Any]]:
        by_class = np.zeros((len(self._shop.zones), len(TagClass)), np.int64)
        np.add.at(by_class, (visits["zone"], visits["tag_class"]), 1)
        return [
            {
                "id": zone,
                "floor": self._shop.zone_floor[number],
                "state": "ok" if number in covered else "unknown",
                "people": int(counts[TagClass.MEMBER] + counts[TagClass.UNKNOWN]),
                "by_class": {class_.name.lower(): int(counts[class_]) for class_ in TagClass},
            }
            for number, (zone, counts) in enumerate(zip(self._shop.zones, by_class, strict=True))
        ]

    def _members(self, visits: Visits) -> list[dict[str, Any]]:
        here = [
            (member.tier, int(visit["enter_us"]), member.member, self._shop.zones[visit["zone"]])
            for member, visit in self._pipeline.members(visits)
        ]
        return [
            {"member": member, "tier": tier, "zone": zone, "since_us": since_us}
            for tier, since_us, member, zone in sorted(here)
        ]

    def _reader(self, id_: str) -> dict[str, Any]:
        status = self._pipeline.readers[id_]
        reads = self._pipeline.reads_of[id_]
        flooded, left_out = self._pipeline.admission.of(id_)
        return {
            "id": id_,
            "driver": next(reader.driver for reader in self._shop.readers if reader.id == id_),
            "via": self._via[id_],
            "link": status.link.value,
            "reason": status.reason,
            "since_us": status.since_us,
            "reads": reads,
            "reads_per_s": self._rate(id_, reads),
            "clock_offset_us": status.clock_offset_us,
            "flooded": flooded,
            "left_out": left_out,
            "inputs": self._pipeline.doors.passages(id_),
            "detail": dict(status.detail),
        }

    def _rate(self, what: str, count: int) -> float:
        """Return the rate per second of real time over the last few seconds."""
        now = asyncio.get_running_loop().time()
        seen = self._rates.setdefault(what, [])
        if not seen or now - seen[-1][0] >= 0.5:
            seen.append((now, count))
            del seen[: -RATE_WINDOW - 1]
        (t0, n0), (t1, n1) = seen[0], seen[-1]
        return round((n1 - n0) / (t1 - t0), 1) if t1 > t0 else 0.0


def written_bytes() -> int | None:
    """Return the bytes that this process has had written to disk, see proc(5); None if the system doesn't tell."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), None)


def size_of(file: Path) -> int:
    """Return the size of a file; 0 if it isn't there."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
