"""Score decided visits against the true positions of tags.

Pieces of one tag in one zone at most 30 s apart are one visit, and visits under 10 s don't count, on either side. A
decided visit is right if a true one of the same tag and zone overlaps it by half of their union.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

JOIN_US = 30_000_000
KEEP_US = 10_000_000
IOU = 0.5
MERCHANDISE = "30"
"""EPCs with this prefix (SGTIN-96) are goods and not scored."""


class Stay(NamedTuple):
    """One tag in one zone."""

    epc: str
    zone: str
    enter_us: int
    exit_us: int


@dataclass(frozen=True)
class Score:
    """Shares are 0..1; the WAPEs are absolute errors over the true total."""

    true_visits: int
    visits: int
    matched: int
    precision: float
    recall: float
    f1: float
    dwell_wape: float
    """WAPE of matched visits' dwell."""
    zone_dwell_wape: float
    """WAPE of each zone's total dwell, matched or not."""
    right_zone_share: float
    """Share of the time, from a tag's first to its last trace, with the right zone or correctly none."""
    path_similarity: float
    """1 − edit distance / longer path, mean over tags."""

    def as_dict(self) -> dict[str, float]:
        """Return values for JSON, rounded to four digits."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


def score(truth: Iterable[Stay], visits: Iterable[Stay], *, merchandise: str = MERCHANDISE) -> Score:
    """Score decided visits against the truth, including tags that occur in only one of them."""
    true_raw, raw = _by_tag(truth, merchandise), _by_tag(visits, merchandise)
    true_total = decided_total = matched = 0
    error_us = matched_us = right_us = span_us = 0
    zones: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    similarities: list[float] = []
    for epc in sorted(true_raw.keys() | raw.keys()):
        true_stays, stays = joined(true_raw.get(epc, ())), joined(raw.get(epc, ()))
        true_total += len(true_stays)
        decided_total += len(stays)
        for true, decided in _matches(true_stays, stays):
            matched += 1
            error_us += abs((true.exit_us - true.enter_us) - (decided.exit_us - decided.enter_us))
            matched_us += true.exit_us - true.enter_us
        for side, group in enumerate((true_stays, stays)):
            for stay in group:
                zones[stay.zone][side] += stay.exit_us - stay.enter_us
        right, span = _right_time(true_raw.get(epc, []), raw.get(epc, []))
        right_us += right
        span_us += span
        if true_stays or stays:
            similarities.append(path_similarity(_path(true_stays), _path(stays)))
    zone_true_us = sum(true for true, _ in zones.values())
    return Score(
        true_visits=true_total,
        visits=decided_total,
        matched=matched,
        precision=_share(matched, decided_total),
        recall=_share(matched, true_total),
        f1=_share(2 * matched, true_total + decided_total),
        dwell_wape=error_us / matched_us if matched_us else 0.0,
        zone_dwell_wape=sum(abs(a - b) for a, b in zones.values()) / zone_true_us if zone_true_us else 0.0,
        right_zone_share=_share(right_us, span_us),
        path_similarity=sum(similarities) / len(similarities) if similarities else 1.0,
    )


def joined(stays: Sequence[Stay]) -> list[Stay]:
    """Join one tag's stays for scoring: same-zone pieces ≤ 30 s apart are joined, then those ≥ 10 s kept, by enter
    time."""
    by_zone: dict[str, list[Stay]] = defaultdict(list)
    for stay in sorted(stays, key=lambda s: s.enter_us):
        pieces = by_zone[stay.zone]
        if pieces and stay.enter_us - pieces[-1].exit_us <= JOIN_US:
            pieces[-1] = pieces[-1]._replace(exit_us=max(pieces[-1].exit_us, stay.exit_us))
        else:
            pieces.append(stay)
    kept = [s for pieces in by_zone.values() for s in pieces if s.exit_us - s.enter_us >= KEEP_US]
    return sorted(kept, key=lambda s: (s.enter_us, s.zone))


def path_similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """Return 1 − Levenshtein distance / longer length; 1 for two empty paths."""
    if not a and not b:
        return 1.0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return 1 - row[-1] / max(len(a), len(b))


def read_stays(path: str | Path) -> list[Stay]:
    """Read stays from a CSV (also .gz) with columns epc, zone, enter_us, exit_us and any others; ValueError without
    them."""
    path = Path(path)
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        rows = csv.DictReader(file)
        missing = {"epc", "zone", "enter_us", "exit_us"} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        return [Stay(r["epc"].lower(), r["zone"], int(r["enter_us"]), int(r["exit_us"])) for r in rows]


def write_stays(path: str | Path, stays: Iterable[Stay]) -> None:
    """Write a CSV `epc,zone,enter_us,exit_us` (also .gz)."""
    path = Path(path)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Stay._fields)
        rows.writerows(stays)


def _by_tag(stays: Iterable[Stay], merchandise: str) -> dict[str, list[Stay]]:
    tags: dict[str, list[Stay]] = defaultdict(list)
    for stay in stays:
        if not (merchandise and stay.epc.startswith(merchandise)):
            tags[stay.epc].append(stay)
    return tags


def _matches(true_stays: list[Stay], stays: list[Stay]) -> list[tuple[Stay, Stay]]:
    pairs: list[tuple[float, int, int]] = []
    for i, a in enumerate(true_stays):
        for j, b in enumerate(stays):
            if a.zone == b.zone:
                both = min(a.exit_us, b.exit_us) - max(a.enter_us, b.enter_us)
                union = max(a.exit_us, b.exit_us) - min(a.enter_us, b.enter_us)
                if both >= IOU * union:
                    pairs.append((-both / union, i, j))
    used_true: set[int] = set()
    used: set[int] = set()
    result: list[tuple[Stay, Stay]] = []
    for _, i, j in sorted(pairs):
        if i not in used_true and j not in used:
            used_true.add(i)
            used.add(j)
            result.append((true_stays[i], stays[j]))
    return result


def _right_time(true_stays: list[Stay], stays: list[Stay]) -> tuple[int, int]:
    """Return the microseconds in which both agree (on a zone, or none), and the span from the first to the last
    trace."""
    edges = sorted({t for s in (*true_stays, *stays) for t in (s.enter_us, s.exit_us)})
    changes: list[tuple[int, int, str, int]] = []
    for side, group in enumerate((true_stays, stays)):
        for s in group:
            changes += [(s.enter_us, side, s.zone, 1), (s.exit_us, side, s.zone, -1)]
    changes.sort()
    present: list[dict[str, int]] = [defaultdict(int), defaultdict(int)]
    right = at = 0
    for start, end in pairwise(edges):
        while at < len(changes) and changes[at][0] <= start:
            _, side, zone, step = changes[at]
            present[side][zone] += step
            if not present[side][zone]:
                del present[side][zone]
            at += 1
        if present[0].keys() == present[1].keys():
            right += end - start
    return right, edges[-1] - edges[0] if edges else 0


def _path(stays: list[Stay]) -> list[str]:
    zones = [stay.zone for stay in stays]
    return [zone for i, zone in enumerate(zones) if i == 0 or zone != zones[i - 1]]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
