"""The state of a chain as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 50


def show(told: dict[str, Any], console: Console) -> None:
    """Print sinks, what waits, and stores."""
    sinks = Table("sink", "host", "shards held", "events", "lag ms", "waiting", title="sinks", title_justify="left")
    for sink in told["sinks"]:
        counters = sink["counters"]
        held = f"{len(sink['shards'])} of {sink['first']}-{sink['last']}"
        figures = (f"{counters.get(name, 0):,}" for name in ("events", "lag_ms", "waiting"))
        sinks.add_row(sink["lane"], f"{sink['host']}:{sink['pid']}", held, *figures)
    console.print(sinks if told["sinks"] else "no sink is running")
    console.print(f"not yet in the log: {told['not_in_the_log']:,}; erasures under way: {told['erasures']}")
    if told["dead_letters"]:
        letters = ", ".join(f"{n:,} of type {kind or '(none)'}" for kind, n in told["dead_letters"].items())
        console.print(f"dead letters: {letters}")
    for rollout in told["rollouts"]:
        reason = f": {rollout['reason']}" if rollout["reason"] else ""
        console.print(f"{rollout['kind']} {rollout['generation']}: {rollout['state']}{reason}", markup=False)
    names = (
        "store",
        "state",
        "silent s",
        "backlog",
        "missing",
        "lost",
        "dead",
        "coverage",
        "readers",
        "clock",
        "version",
    )
    stores = Table(*names, "config", "directory", title="stores", title_justify="left")
    for one in told["stores"][:SHOWN]:
        readers = "" if one["readers"] is None else f"{one['readers_up']}/{one['readers']}"
        stores.add_row(
            one["store"],
            "online" if one["online"] else "offline",
            f"{one['silent_s']:,.0f}",
            *(f"{one[name]:,}" for name in ("backlog", "behind", "lost", "dead")),
            "" if one["coverage"] is None else f"{one['coverage']:.0%}",
            readers,
            *(str(one[name] or "") for name in ("clock", "version", "config", "directory")),
        )
    console.print(stores)
    if (more := len(told["stores"]) - SHOWN) > 0:
        console.print(f"and {more} more")
