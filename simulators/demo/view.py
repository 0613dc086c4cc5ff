"""The demo's terminal screen, and its summary."""

from __future__ import annotations

from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def view(live: dict[str, Any], crm: dict[str, Any], login: str) -> RenderableType:
    """Render the service's live state and the CRM's totals; `login`: users of the page."""
    up = sum(reader["link"] == "up" for reader in live["readers"])
    head = Text.assemble(
        ("Tagtrail ", "bold"),
        f"{live['store']} · {live['page']} · {live['reads_per_s']:,.0f} reads/s · {live['reads']:,} reads · "
        f"{up}/{len(live['readers'])} readers · {live['tags_present']} tags present · Ctrl-C ends",
    )
    door = f"log in to the page as {login}"
    return Group(head, door, Columns([_zones(live), Group(_cues(live), _recognitions(live), _totals(live, crm))]))


def farewell(result: dict[str, Any]) -> RenderableType:
    """Render the summary of the run."""
    table = Table(title="What the demo came to", show_header=False)
    latency, truth = result["recognition_ms"], result["truth"]
    for name, value in (
        ("readers", result["readers"]),
        ("reads", f"{result['reads']:,}"),
        ("visits decided", f"{result['visits']:,}"),
        ("journeys ended", f"{result['journeys']:,}"),
        ("members recognised", f"{result['recognitions']:,}"),
        ("read → recognition at the CRM", f"p50 {_number(latency['p50'])} ms, p99 {_number(latency['p99'])} ms"),
        ("cues: members to greet", _cue(result, "arrival")),
        ("cues: members kept waiting", _cue(result, "waiting")),
        ("events committed to the outbox", f"{result['outbox']['sent']:,}"),
        ("events in the CRM's database", f"{result['crm']['received']:,}"),
        ("counted twice / missing", f"{result['crm']['duplicates']} absorbed / {result['crm']['gaps']}"),
        *_chain(result.get("chain")),
        ("visits against the walkers' truth", f"F1 {_number(truth['visit_f1'], 3)}"),
        ("dwell against the truth", f"WAPE {_number(truth['dwell_wape'], 3)}"),
    ):
        table.add_row(name, str(value))
    return table


def _chain(chain: dict[str, Any] | None) -> list[tuple[str, str]]:
    if chain is None:
        return []
    return [
        ("events of the chain in PostgreSQL", f"{chain['events']:,} of {chain['stores']} stores"),
        ("not yet in the log / files at its reader", f"{chain['not_in_the_log']} / {chain['files']}"),
        ("hours of sales of a counter, taken by the store", _sales(chain)),
    ]


def _sales(chain: dict[str, Any]) -> str:
    """Return how much of what was sold the store has; tills tell an hour when it is over."""
    taken, sold = chain["sales_hours"], chain["sold_hours"]
    return f"{taken:,} of {sold:,}" if sold else "none yet: no hour was over"


def _zones(live: dict[str, Any]) -> Table:
    table = Table(title="People per zone")
    for column, justify in (("floor", "left"), ("zone", "left"), ("people", "right"), ("staff", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for zone in live["zones"]:
        people = str(zone["people"]) if zone["state"] == "ok" else "unknown"
        table.add_row(zone["floor"], zone["id"], people, str(zone["by_class"].get("staff", 0)))
    return table


def _cues(live: dict[str, Any]) -> Table:
    table = Table(title="Who needs somebody (cues)")
    for column in ("kind", "tier", "zone", "state"):
        table.add_column(column)
    for cue in live["cues"]["open"][-6:]:
        table.add_row(cue["kind"], cue["tier"], cue["zone"], cue["state"])
    return table


def _recognitions(live: dict[str, Any]) -> Table:
    table = Table(title="Last recognitions")
    for column in ("member", "tier", "zone"):
        table.add_column(column)
    for seen in live["recognitions"][:8]:
        table.add_row(seen["member"], seen["tier"], seen["zone"])
    return table


def _totals(live: dict[str, Any], crm: dict[str, Any]) -> Panel:
    table = Table(show_header=True)
    for column in ("class", "committed", "not yet acknowledged"):
        table.add_column(column)
    for name, depth in live["outbox"].items():
        table.add_row(name, str(depth["sent"]), str(depth["pending"]))
    broker = "connected" if live["broker"]["connected"] else live["broker"]["reason"]
    cues = ", ".join(f"{number} {what}" for what, number in crm.get("cues", {}).items())
    counted = Text(
        f"broker: {broker}\nCRM: {crm.get('received', 0)} received, {crm.get('duplicates', 0)} duplicates absorbed, "
        f"{crm.get('gaps', 0)} gaps\ncues told to the CRM: {cues or 'none yet'}\n"
        f"{live['visits']} visits, {live['journeys']} journeys"
    )
    if chain := crm.get("chain"):
        counted.append(
            f"\nchain: {chain['stores']} stores, {chain['events']:,} events, {chain['not_in_the_log']} not yet in"
            f" the log, {chain['files']} files at its reader, counter-hours of sales: {_sales(chain)}"
        )
    return Panel(Group(table, counted), title="Outbox and CRM")


def _cue(result: dict[str, Any], kind: str) -> str:
    cues = result["cues"][kind]
    return f"{cues['n']:,}, p95 {_number(cues['p95_ms'])} ms"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
