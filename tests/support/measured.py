"""A live state in which there is something to measure of everything."""

from __future__ import annotations

from typing import Any

FULL: dict[str, Any] = {
    "as_of_us": 1,
    "watermark_us": 1,
    "store": "s1",
    "version": "1.2",
    "broker": {"connected": True, "since_us": 1},
    "zones": [{"id": "z", "floor": "f", "state": "ok", "people": 1}],
    "readers": [{"id": "r", "driver": "llrp", "link": "up", "since_us": 1, "reads": 8}],
    "standby": {
        "link": "up",
        "protected": True,
        "since_us": 1,
        "behind_bytes": 4096,
        "witness": {"valid": True},
    },
    "outbox": {"member": {"sent": 1, "pending": 1, "oldest_s": 3, "acked_s": 12}},
    "queue": {"reads": 5, "oldest_s": 0.5},
    "database": {"commits": 9, "commit_s": 0.25, "checkpoint_bytes": 4096},
    "process": {"up_s": 3, "written_bytes": 1},
    "counters": {"late": 2},
    "page": "http://127.0.0.1:8080/",
    "page_took_s": 0.1,
    "failing": [{"job": "j", "reason": "x", "since_us": 1, "times": 1}],
    "certificates": [{"what": "c", "until_us": 1, "days": 1}],
    "doctor": {"at_us": 1},
}
ANTENNAS = {"r": [{"port": 2, "zone": "z", "reads": 7}]}
