"""Messages of many stores for a chain's ledger and sinks, as bytes, and what is in the chain's database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from brokers import MAKERS

from config import topics
from sync.contract import EventClass, event_id


def batch(
    store: str,
    first: int,
    n: int,
    class_: EventClass = "health",
    epoch: str = "e",
    lost: Sequence[tuple[int, int]] = (),
) -> tuple[str, bytes]:
    """Topic and payload of a batch of valid events."""
    events = [
        MAKERS[class_](seq).model_copy(update={"id": event_id(store, epoch, class_, seq)}).model_dump(mode="json")
        for seq in range(first, first + n)
    ]
    return message(store, first, events, class_, epoch, lost)


def message(
    store: str,
    first: int,
    events: Iterable[Any],
    class_: EventClass = "health",
    epoch: str = "e",
    lost: Sequence[tuple[int, int]] = (),
) -> tuple[str, bytes]:
    """Topic and payload of a batch of any events; `first` above the lost ranges."""
    events = list(events)
    head = {"v": 1, "store": store, "epoch": epoch, "class": class_, "first": first, "n": len(events), "sent_us": 1}
    gaps = [{"from": low, "to": high, "reason": "quota"} for low, high in lost]
    told = head | {"boot": "b", "mono_us": 1, "lost": gaps, "events": events}
    return topics.topic(store, f"up/{class_}"), json.dumps(told, ensure_ascii=False).encode()


def counted(conn: Any) -> dict[str, dict[str, int]]:
    """Per class: the ledger's running totals, and rows of events, each number counted once."""
    names = ("received", "duplicates", "lost", "dead", "upto", "highest")
    sums = ", ".join(f"sum({name})::bigint" for name in names)
    rows = conn.execute(f"SELECT class, {sums} FROM chain.series GROUP BY class").fetchall()
    found = {class_: dict(zip(names, numbers, strict=True)) for class_, *numbers in rows}
    query = (
        "SELECT class, count(*), count(DISTINCT (series, seq)) FROM chain.event e JOIN chain.series s"
        " ON s.id = e.series GROUP BY class"
    )
    for class_, rows_, distinct in conn.execute(query).fetchall():
        assert rows_ == distinct, f"{class_}: {rows_} rows of {distinct} events"
        found[class_]["rows"] = rows_
    return found


def in_the_log(conn: Any) -> bool:
    """Whether the log has confirmed everything that is committed."""
    return bool(conn.execute("SELECT count(*) FROM chain.fanout").fetchone() == (0,))


def dashboard_queries(file: Path, store: str = "s1") -> list[str]:
    """The queries of a Grafana dashboard, as Grafana sends them for a store and the last day."""
    dashboard = json.loads(file.read_text("utf-8"))
    queries = [target["rawSql"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries.append(next(one["query"] for one in dashboard["templating"]["list"] if one["name"] == "store"))
    macro = re.compile(r"\$__timeFilter\((.*?)\)")
    return [macro.sub(r"\1 > now() - interval '1 day'", one).replace("$store", f"'{store}'") for one in queries]
