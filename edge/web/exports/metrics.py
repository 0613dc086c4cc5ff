"""The gateway's state for a monitoring system, in Prometheus' text format. Of no person, and of nobody's way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.store.live_state import Now
from edge.web.site import Site

if TYPE_CHECKING:
    from prometheus_client import Metric

TRUST = ("trusted", "holding over", "untrusted")


class Metrics:
    """`/metrics`, for whoever may log in: with HTTP Basic."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [Route("/metrics", self.metrics)]

    async def metrics(self, _: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        now = self._site.present()

        class Collector:
            def collect(self) -> Iterator[Metric]:
                return families(now)

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector())
        headers = {"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE_LATEST}
        return Response(generate_latest(registry), headers=headers)


def families(now: Now | None) -> Iterator[Metric]:
    """What there is to measure; without the service only that it does not answer."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    def gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"tagtrail_{name}", about, labels=labels)

    def one(name: str, about: str, value: float) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"tagtrail_{name}", about, value=value)

    yield one("up", "1 while the service answers the page.", float(now is not None))
    if now is None:
        return
    yield InfoMetricFamily("tagtrail_service", "Which.", {"store": now.store, "version": now.version})
    yield one("as_of_seconds", "The gateway's clock.", now.as_of_us / 1e6)
    yield one("watermark_seconds", "Up to when everything has been weighed.", now.watermark_us / 1e6)
    up = gauge("reader_up", "1 while a reader takes inventory.", "reader")
    reads = CounterMetricFamily("tagtrail_reader_reads", "Reads of a reader since the start.", labels=["reader"])
    left_out = CounterMetricFamily(
        "tagtrail_reader_left_out_reads", "Of these left out, of more new tags than a shop has.", labels=["reader"]
    )
    for reader in now.readers:
        up.add_metric([reader.id], float(reader.link == "up"))
        reads.add_metric([reader.id], reader.reads)
        left_out.add_metric([reader.id], reader.left_out)
    yield from (up, reads, left_out)
    covered = gauge("zone_covered", "1 while a reader watches a zone.", "zone")
    for zone in now.zones:
        covered.add_metric([zone.id], float(zone.state == "ok"))
    yield covered
    yield one("tags_present", "Tags in the store.", now.tags_present)
    yield one("double_tags", "Tags at two places at once.", len(now.doubles))
    yield one("broker_connected", "1 while the broker of the CRM is connected.", float(now.broker.connected))
    pending = gauge("outbox_pending", "Events that the CRM has not acknowledged.", "class")
    for name, backlog in now.outbox.items():
        pending.add_metric([name], backlog.pending)
    yield pending
    yield one("database_trouble", "1 while the database can't be written.", float(now.database.trouble is not None))
    failing = gauge("job_failures", "Times in a row that a background job has failed; of those that fail.", "task")
    for job in now.failing:
        failing.add_metric([job.job], job.times)
    yield failing
    if now.doctor.at_us is not None:
        yield one("doctor_at_seconds", "When the gateway was last examined, since 1970.", now.doctor.at_us / 1e6)
        found = gauge("doctor_findings", "What the last examination found wrong.", "state")
        for state in ("warning", "error"):
            found.add_metric([state], sum(each.state == state for each in now.doctor.found))
        yield found
    clock = gauge("clock_trust", "1 for how far the gateway's clock is trusted.", "trust")
    for trust in TRUST:
        clock.add_metric([trust], float(now.clock.trust == trust))
    yield clock
    yield CounterMetricFamily("tagtrail_clock_steps", "Times that the clock was set since the start.", now.clock.steps)
    until = gauge("certificate_expires_seconds", "When a certificate expires, since 1970.", "certificate")
    for certificate in now.certificates:
        until.add_metric([certificate.what], certificate.until_us / 1e6)
    yield until
