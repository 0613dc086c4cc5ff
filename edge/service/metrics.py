"""The gateway's state for a monitoring system, in Prometheus' text format. Of no person, and of nobody's way.

Names follow the conventions of Prometheus: base units, `_total` for counters, `_timestamp_seconds` for moments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.doctor.health import lag_s
from edge.store.live_state import Now

if TYPE_CHECKING:
    from prometheus_client import Metric

TRUST = ("trusted", "holding over", "untrusted")
Antennas = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of each reader, as edge.readers.antennas.Antennas.of."""


def render(now: Now, antennas: Antennas) -> tuple[str, bytes]:
    """Return content type and text of all metrics, with those of this process."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

    class Collector:
        def collect(self) -> Iterator[Metric]:
            return families(now, antennas)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    ProcessCollector(pid=os.getpid, registry=registry)
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def families(now: Now, antennas: Antennas) -> Iterator[Metric]:
    """Yield what there is to measure, but for the process itself."""
    from prometheus_client.core import InfoMetricFamily

    yield _one("up", "1 while the service answers.", 1)
    yield InfoMetricFamily("tagtrail_service", "Store and version.", {"store": now.store, "version": now.version})
    yield from _reads(now, antennas)
    yield from _forwarders(now)
    yield from _standby(now)
    yield from _to_crm(now)
    yield from _database(now)
    yield from _gateway(now)


def _reads(now: Now, antennas: Antennas) -> Iterator[Metric]:
    up = _gauge("reader_up", "1 while a reader takes inventory.", "reader")
    reads = _counter("reader_reads", "Reads of a reader since the start.", "reader")
    left_out = _counter("reader_left_out_reads", "Of these left out, of more new tags than a shop has.", "reader")
    for reader in now.readers:
        up.add_metric([reader.id], float(reader.link == "up"))
        reads.add_metric([reader.id], reader.reads)
        left_out.add_metric([reader.id], reader.left_out)
    yield from (up, reads, left_out)
    by_antenna = _counter("antenna_reads", "Reads of an antenna since the start.", "reader", "port", "zone")
    for id_, its in antennas.items():
        for antenna in its:
            by_antenna.add_metric([id_, str(antenna["port"]), antenna["zone"]], antenna["reads"])
    yield by_antenna
    yield _total("late_reads", "Reads that came too late to be weighed.", now.counters.get("late", 0))
    yield _one("queue_reads", "Reads that wait for the engine.", now.queue.reads)
    yield _one("queue_age_seconds", "Time that the oldest of them has waited.", now.queue.oldest_s)
    yield _one("held_reads", "Reads held back until the time is known.", now.queue.held)
    yield _one("engine_lag_seconds", "Time by which the engine is behind the clock.", lag_s(now))
    covered = _gauge("zone_covered", "1 while a reader watches a zone.", "zone")
    for zone in now.zones:
        covered.add_metric([zone.id], float(zone.state == "ok"))
    yield covered
    yield _one("tags_present", "Tags in the store.", now.tags_present)
    yield _one("double_tags", "Tags at two places at once.", len(now.doubles))


def _forwarders(now: Now) -> Iterator[Metric]:
    if not now.forwarders:
        return
    up = _gauge("forwarder_up", "1 while a forwarder's reads come as they are made.", "forwarder")
    behind = _gauge("forwarder_behind_seconds", "How old what a forwarder sends is.", "forwarder")
    kept = _gauge("forwarder_kept_bytes", "Reads on a forwarder's disk.", "forwarder")
    clock = _gauge("forwarder_clock_offset_seconds", "A forwarder's clock minus the service's.", "forwarder")
    lost = _counter("forwarder_lost", "Times that a forwarder deleted reads unsent.", "forwarder")
    left_out = _counter("forwarder_left_out_reads", "Reads of a forwarder whose time is not known.", "forwarder")
    for one in now.forwarders:
        up.add_metric([one.id], float(one.link == "up"))
        lost.add_metric([one.id], one.lost)
        left_out.add_metric([one.id], one.left_out)
        if one.behind_us is not None:
            behind.add_metric([one.id], one.behind_us / 1e6)
        if one.kept_bytes is not None:
            kept.add_metric([one.id], one.kept_bytes)
        if one.clock_offset_us is not None:
            clock.add_metric([one.id], one.clock_offset_us / 1e6)
    yield from (up, behind, kept, clock, lost, left_out)


def _standby(now: Now) -> Iterator[Metric]:
    it = now.standby
    if it is None:
        return
    yield _one("standby_protected", "1 while nothing leaves the store that the standby lacks.", float(it.protected))
    if it.behind_bytes is not None:
        yield _one("standby_behind_bytes", "Bytes that the standby has yet to get.", it.behind_bytes)
    if it.witness is not None:
        yield _one("lease_valid", "1 while the lease lets events leave the store.", float(it.witness.valid))


def _to_crm(now: Now) -> Iterator[Metric]:
    yield _one("broker_connected", "1 while the broker of the CRM is connected.", float(now.broker.connected))
    pending = _gauge("outbox_pending", "Events that the CRM has not acknowledged.", "class")
    oldest = _gauge("outbox_age_seconds", "Time that the oldest of them has waited, since the start at most.", "class")
    acked = _gauge("crm_ack_age_seconds", "Time since the CRM last acknowledged events.", "class")
    for name, backlog in now.outbox.items():
        pending.add_metric([name], backlog.pending)
        oldest.add_metric([name], backlog.oldest_s)
        if backlog.acked_s is not None:
            acked.add_metric([name], backlog.acked_s)
    yield from (pending, oldest, acked)


def _database(now: Now) -> Iterator[Metric]:
    from prometheus_client.core import SummaryMetricFamily

    it = now.database
    yield _one("database_trouble", "1 while the database can't be written.", float(it.trouble is not None))
    yield SummaryMetricFamily(
        "tagtrail_database_commit_seconds", "Commits and the time they took.", it.commits, it.commit_s
    )
    yield _total("database_failed_commits", "Transactions that the database refused.", it.failed_commits)
    yield _one("database_bytes", "Size of the database with its log.", it.bytes)
    yield _one("database_quota_bytes", "Size that the database may have.", it.quota_bytes)
    yield _one("checkpoint_bytes", "Size of the engine's last checkpoint.", it.checkpoint_bytes)
    if now.process.written_bytes is not None:
        yield _total("written_bytes", "Bytes written to disk since the start.", now.process.written_bytes)


def _gateway(now: Now) -> Iterator[Metric]:
    if now.page is not None:
        yield _one("page_up", "1 while the page answers.", float(now.page_took_s is not None))
        if now.page_took_s is not None:
            yield _one("page_latency_seconds", "Time that the page took to answer the service.", now.page_took_s)
    failing = _gauge("job_failures", "Times in a row that a background job has failed; of those that fail.", "task")
    for job in now.failing:
        failing.add_metric([job.job], job.times)
    yield failing
    if now.doctor.at_us is not None:
        yield _one(
            "doctor_timestamp_seconds", "When the gateway was last examined, since 1970.", now.doctor.at_us / 1e6
        )
        found = _gauge("doctor_findings", "What the last examination found wrong.", "state")
        for state in ("warning", "error"):
            found.add_metric([state], sum(each.state == state for each in now.doctor.found))
        yield found
    clock = _gauge("clock_trust", "1 for how far the gateway's clock is trusted.", "trust")
    for trust in TRUST:
        clock.add_metric([trust], float(now.clock.trust == trust))
    yield clock
    yield _total("clock_steps", "Times that the clock was set since the start.", now.clock.steps)
    until = _gauge("certificate_expiry_timestamp_seconds", "When a certificate expires, since 1970.", "certificate")
    for certificate in now.certificates:
        until.add_metric([certificate.what], certificate.until_us / 1e6)
    yield until


def _gauge(name: str, about: str, *labels: str) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"tagtrail_{name}", about, labels=labels)


def _one(name: str, about: str, value: float) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"tagtrail_{name}", about, value=value)


def _counter(name: str, about: str, *labels: str) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"tagtrail_{name}", about, labels=labels)


def _total(name: str, about: str, value: float) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"tagtrail_{name}", about, value=value)
