"""Dashboard and alert rules ask for metrics that there are, with labels that they have, and every metric is used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from measured import ANTENNAS, FULL
from prometheus_client.parser import text_string_to_metric_families

from edge.service.metrics import render
from edge.store.live_state import Now

OBSERVABILITY = Path(__file__).parents[3] / "docs" / "observability"
ALERTS = (OBSERVABILITY / "alerts.yml").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text("utf-8"))
README = (OBSERVABILITY / "README.md").read_text("utf-8")
METRICS: dict[str, set[str]] = {
    sample.name: set(sample.labels)
    for family in text_string_to_metric_families(render(Now.model_validate(FULL), ANTENNAS)[1].decode())
    for sample in family.samples
    if sample.name.startswith(("tagtrail_", "process_"))
}
OF_PYTHON = {"process_virtual_memory_bytes", "process_start_time_seconds", "process_max_fds"}
"""Measured by the library, and watched by nobody."""
RULES = re.findall(
    r"      - alert: (\w+)\n        expr: (.+)\n(?:        for: \w+\n)?        labels: \{severity: (\w+)\}\n"
    r'        annotations:\n          summary: "(.+)"\n          action: "(.+)"\n',
    ALERTS,
)
PANELS = [
    (panel["title"], target["expr"], target["legendFormat"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
ASKED = [(name, expression, f"{summary} {action}") for name, expression, _, summary, action in RULES] + PANELS


def metrics_in(expression: str) -> list[str]:
    return re.findall(r"(?:tagtrail|process)_\w+", expression)


def test_the_rules_are_read_whole() -> None:
    assert len(RULES) == ALERTS.count("- alert:") > 15
    assert len({name for name, *_ in RULES}) == len(RULES)
    assert {severity for _, _, severity, _, _ in RULES} == {"warning", "critical"}


@pytest.mark.parametrize(("name", "expression", "text"), ASKED)
def test_what_is_asked_for_is_there(name: str, expression: str, text: str) -> None:
    found = metrics_in(expression)
    assert found or expression.startswith('up{job="tagtrail"}'), name
    labels = {"instance", "job"}
    for metric in found:
        assert metric in METRICS, f"{name} asks for {metric}"
        labels |= METRICS[metric]
    selected = re.findall(r"(\w+)\s*=~?\s*\"", expression)
    shown = re.findall(r"\{\{\s*(?:\$labels[.])?(\w+)\s*\}\}", text)
    assert set(selected) | set(shown) <= labels, name
    assert expression.count("(") == expression.count(")")


def test_every_metric_is_watched_and_explained() -> None:
    """A metric nobody looks at is not worth its place."""
    asked = {metric for _, expression, _ in ASKED for metric in metrics_in(expression)}
    assert asked == set(METRICS) - OF_PYTHON
    assert set(metrics_in(README)) == set(METRICS) - OF_PYTHON


def test_no_label_is_one_that_prometheus_sets_itself() -> None:
    """It would call ours exported_job."""
    assert not {label for labels in METRICS.values() for label in labels} & {"job", "instance"}


def test_a_metric_that_is_gone_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="tagtrail_gone"):
        test_what_is_asked_for_is_there("alert", "tagtrail_gone == 0", "")


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert sorted(set(ids)) == ids
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}
