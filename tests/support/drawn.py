"""Drawn shops to be judged on: half an hour to learn from, the next half hour with its truth, and rules to compare.

Seeds 0 to 99 are for development. Those from 1000 on are for judging (`make bench`): nobody chooses anything by them.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import PEERS, TIMEOUTS_S, Heard
from recordings import stays, total

import simulators.shop
from drivers.read import epc_words
from dwell.layout import Layout, Settings
from dwell.markov import cells, learning
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.read import READ, Reads
from edge.store.compose import Shop as Store
from edge.store.compose import compose
from simulators.shop.draws import Drawn, draw
from simulators.shop.replays import ORIGIN_US
from simulators.shop.score import MERCHANDISE, Score, Stay, joined, score
from simulators.shop.world import SLICE_US, SimulatedShop

MINUTES = 30
DEVELOPMENT, JUDGING = range(100), range(1000, 1005)
"""Seeds."""
GHOST_US = 10_000_000
"""A visit more than this before or after its tag was about is a ghost's."""

Decide = Callable[[Layout, Settings, Reads, Any], NDArray[Any]]
"""A rule: layout, settings, reads in order of arrival and what was learnt (None: nothing) to visits (VISIT)."""
Learn = Callable[[Layout, Settings, Reads], Any]
"""What a rule learns from reads without labels."""


@dataclass(frozen=True)
class Case:
    """An hour of a drawn shop."""

    shop: int
    seed: int
    drawn: Drawn
    store: Store
    early: Reads
    """Of the first half hour, in order of arrival, as all reads here."""
    late: Reads
    """Of the second."""
    truth: tuple[Stay, ...]
    """Of the second."""
    cut_us: int
    until_us: int
    outages: tuple[tuple[int, int, int], ...]
    """Reader, from, to; for the oracle only."""
    about: dict[str, list[tuple[int, int]]]
    """EPC: when it was in the store or before its doors."""

    @property
    def name(self) -> str:
        return f"{self.shop}/{self.seed}"

    def first(self, minutes: float) -> Reads:
        """The reads of the first minutes."""
        return self.early[self.early["time_us"] < ORIGIN_US + minutes * 60e6]


def case(shop: int, seed: int) -> Case:
    """Make a shop's hour, or take it from the cache: the same one as long as the simulators' sources are the same."""
    drawn = draw(shop, seed)
    store = compose(drawn.config)
    cut_us, until_us = (ORIGIN_US + n * MINUTES * 60_000_000 for n in (1, 2))
    file = _cache() / f"{shop}-{seed}.npz"
    if not file.exists():
        _save(file, _play(drawn, seed, until_us))
    with np.load(file) as kept:
        reads = np.zeros(len(kept["time_us"]), READ)
        for name in ("time_us", "antenna", "rssi_cdbm"):
            reads[name] = kept[name]
        reads["epc"][:, :2], reads["epc_bits"], reads["count"] = kept["words"][kept["tag"]], 96, 1
        epcs = [word.astype(">u8").tobytes()[:12].hex() for word in kept["words"]]
        true = [Stay(epcs[t], store.zones[z], a, b) for t, z, a, b in kept["truth"].tolist()]
        about: dict[str, list[tuple[int, int]]] = {}
        for t, a, b in kept["about"].tolist():
            about.setdefault(epcs[t], []).append((a, b))
        outages = tuple((int(r), int(a), int(b)) for r, a, b in kept["outages"])
    early = reads["time_us"] < cut_us
    later = tuple(s._replace(enter_us=max(s.enter_us, cut_us)) for s in true if s.exit_us > cut_us)
    return Case(shop, seed, drawn, store, reads[early], reads[~early], later, cut_us, until_us, outages, about)


@dataclass(frozen=True)
class Result:
    """What became of a rule in one case."""

    score: Score
    ghosts: int
    learnt_s: float = 0.0
    decided_s: float = 0.0


def judged(it: Case, found: Iterable[Stay], learnt_s: float = 0.0, decided_s: float = 0.0) -> Result:
    """Score stays of the second half hour, and count the ghosts among them."""
    found = [s._replace(enter_us=max(s.enter_us, it.cut_us)) for s in found if s.exit_us > it.cut_us]
    return Result(score(it.truth, found), ghosts(it.about, found), learnt_s, decided_s)


def ghosts(about: dict[str, list[tuple[int, int]]], found: Iterable[Stay]) -> int:
    """Visits, as they are scored, of tags that were nowhere near at that time."""
    decided: dict[str, list[Stay]] = {}
    for stay in found:
        if not stay.epc.startswith(MERCHANDISE):
            decided.setdefault(stay.epc, []).append(stay)
    return sum(
        not any(a - GHOST_US < s.exit_us and s.enter_us < b + GHOST_US for a, b in about.get(epc, ()))
        for epc, mine in decided.items()
        for s in joined(mine)
    )


def evaluate(it: Case, decide: Decide, learn: Learn | None = None, minutes: float = MINUTES) -> Result:
    """Let a rule learn from the first `minutes` (with `learn`) and judge what it decides of the second half hour."""
    layout, settings = it.store.layout, it.store.settings
    started = time.process_time()
    learnt = learn(layout, settings, it.first(minutes)) if learn else None
    learnt_s = time.process_time() - started
    started = time.process_time()
    visits = decide(layout, settings, it.late, learnt)
    return judged(it, stays(it.store, visits), learnt_s, time.process_time() - started)


def engine(layout: Layout, settings: Settings, reads: Reads, learnt: Field | None) -> NDArray[Any]:
    """The zone engine."""
    made = ZoneEngine(layout, settings, field=learnt)
    made.feed(reads)
    return np.concatenate([made.advance(int(reads["time_us"].max())).closed, made.finish().closed])


def first(layout: Layout, settings: Settings, reads: Reads) -> Field:
    """What the first minutes tell of the radio."""
    return learning.first(layout, reads)


def learn(layout: Layout, settings: Settings, reads: Reads) -> Field | None:
    """What the engine learns; None where there is too little."""
    try:
        found = learning.learn(layout, reads)
    except ValueError:
        return None
    return found.field if found.better else learning.first(layout, reads)


def peers(it: Case) -> dict[str, tuple[int, Result]]:
    """For each peer its best timeout in this very case, and the result with it."""
    heard = Heard.of(it.late, it.store.layout.antenna_zone)
    found: dict[str, tuple[int, Result]] = {}
    for name, peer in PEERS.items():
        for timeout_s in TIMEOUTS_S:
            rows = peer(heard, timeout_s).tolist()
            result = judged(it, [Stay(heard.epc[t], it.store.zones[z], a, b) for t, z, a, b in rows])
            if name not in found or result.score.f1 > found[name][1].score.f1:
                found[name] = (timeout_s, result)
    return found


def oracle(it: Case) -> Result:
    """Decide with the radio as it really is: what no engine can be asked to beat."""
    from oracle import decided

    started = time.process_time()
    return judged(it, decided(it), 0.0, time.process_time() - started)


def knowing(it: Case, *, shadows: bool) -> Result:
    """Let the engine decide with what it has learnt, but every antenna's true level everywhere."""
    from oracle import levels

    def told(layout: Layout, settings: Settings, reads: Reads) -> Field:
        known = learn(layout, settings, reads) or Field.prior(layout)
        table = levels(it, cells.build(layout, fine=True), shadows=shadows)
        return replace(known, table=table, offset_db=np.zeros_like(known.offset_db))

    return evaluate(it, engine, told)


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

RULES: dict[str, Callable[[Case], Result]] = {
    "engine": lambda it: evaluate(it, engine),
    "usual2": lambda it: evaluate(it, engine, first, 2),
    "first2": lambda it: evaluate(it, engine, learn, 2),
    "first10": lambda it: evaluate(it, engine, learn, 10),
    "learnt": lambda it: evaluate(it, engine, learn),
    "levels": lambda it: knowing(it, shadows=False),
    "shadows": lambda it: knowing(it, shadows=True),
    "oracle": oracle,
}
"""By column: out of the box; the best of some usual radios by the first 2 minutes; learnt from the first 2, 10 or 30
minutes; learnt, but with levels as they are, without and with the shadows of single places; and the true radio."""


@dataclass(frozen=True)
class Row:
    """A shop, or a case of it: its best peer, and each rule beside it."""

    name: str
    best: str
    peer: Result
    peers: dict[str, Result]
    rules: dict[str, Result]

    def ratio(self, rule: str) -> float:
        """Errors of visits over those of the best peer."""
        return (1 - self.rules[rule].score.f1) / max(1e-3, 1 - self.peer.score.f1)


def row(it: Case, rules: Sequence[str]) -> Row:
    """Run peers and rules on a case."""
    found = {name: result for name, (_, result) in peers(it).items()}
    best = max(found, key=lambda name: found[name].score.f1)
    return Row(it.name, best, found[best], found, {rule: RULES[rule](it) for rule in rules})


def pooled(rows: Sequence[Row]) -> Row:
    """Cases of one shop as one: visits added up. Each peer keeps its best timeout in each case."""

    def add(results: Sequence[Result]) -> Result:
        ghosts_, learnt_s, decided_s = (
            sum(getattr(r, n) for r in results) for n in ("ghosts", "learnt_s", "decided_s")
        )
        return Result(total([r.score for r in results]), ghosts_, learnt_s, decided_s)

    found = {name: add([r.peers[name] for r in rows]) for name in rows[0].peers}
    best = max(found, key=lambda name: found[name].score.f1)
    rules = {rule: add([r.rules[rule] for r in rows]) for rule in rows[0].rules}
    return Row(rows[0].name.split("/")[0], best, found[best], found, rules)


def table(rows: Sequence[Row]) -> str:
    """Lines of text: a shop each, then median and worst of the ratios."""
    rules = list(rows[0].rules)
    lines = [f"{'shop':>8} {'best peer':<17}   F1  dwell right" + "".join(f" | {r:^30}" for r in rules)]
    lines.append(f"{'':>8} {'':<17} {'':>17}" + " |    F1 ratio dwell right ghosts" * len(rules))
    for each in rows:
        p = each.peer.score
        text = f"{each.name:>8} {each.best:<17} {p.f1:.3f} {p.zone_dwell_wape:.3f} {p.right_zone_share:.3f}"
        for rule in rules:
            r = each.rules[rule]
            text += f" | {r.score.f1:.3f} {each.ratio(rule):5.2f} {r.score.zone_dwell_wape:.3f}"
            text += f" {r.score.right_zone_share:.3f} {r.ghosts:6}"
        lines.append(text)
    for name, of in (("median", statistics.median), ("worst", max)):
        text = f"{name:>8} {'':<17} {'':>17}"
        for rule in rules:
            dwell = of(each.rules[rule].score.zone_dwell_wape for each in rows)
            text += f" |       {of(each.ratio(rule) for each in rows):5.2f} {dwell:.3f} {'':>12}"
        lines.append(text)
    for rule in rules:
        learnt_s = max(each.rules[rule].learnt_s for each in rows)
        decided_s = sum(each.rules[rule].decided_s for each in rows)
        lines.append(f"{rule}: CPU of learning at most {learnt_s:.1f} s, of deciding {decided_s:.1f} s in all")
    return "\n".join(lines)


# ── cache ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _play(drawn: Drawn, seed: int, until_us: int) -> dict[str, NDArray[Any]]:
    shop = SimulatedShop(
        drawn.config,
        drawn.world,
        seed=seed,
        shoppers=drawn.shoppers,
        origin_us=ORIGIN_US,
        antennas=drawn.antennas,
    )
    rows = np.concatenate([shop.slice()[2] for _ in range(-(-(until_us - ORIGIN_US) // SLICE_US))])
    rows = rows[np.argsort(rows["arrival_us"], kind="stable")]
    rows = rows[rows["arrival_us"] < until_us]
    number, zone = {epc.hex(): n for n, epc in enumerate(shop.epcs)}, {id_: n for n, id_ in enumerate(shop.plan.ids)}
    true = [(number[s.epc], zone[s.zone], s.enter_us, s.exit_us) for s in shop.truth(until_us)]
    return {
        "time_us": rows["time_us"],
        "antenna": rows["antenna"].astype(np.uint16),
        "tag": rows["tag"],
        "rssi_cdbm": rows["rssi_cdbm"].astype(np.int16),
        "words": np.array([epc_words(epc)[:2] for epc in shop.epcs], np.uint64),
        "truth": np.array(true, np.int64).reshape(-1, 4),
        "about": np.array(shop.spans, np.int64).reshape(-1, 3),
        "outages": np.array(shop.outages, np.int64).reshape(-1, 3),
    }


def _sources() -> str:
    folder = Path(simulators.shop.__path__[0])
    digest = hashlib.sha256(f"{MINUTES}".encode())
    for file in sorted((*folder.rglob("*.py"), Path(__file__))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


SOURCES = _sources()
"""As imported: who edits them while this runs must not find this run's shops under the new hash."""


def _cache() -> Path:
    made = Path(os.environ.get("TAGTRAIL_CACHE", tempfile.gettempdir())) / f"tagtrail-shops-{SOURCES}"
    made.mkdir(parents=True, exist_ok=True)
    return made


def _save(file: Path, arrays: dict[str, Any]) -> None:
    # Beside it first: two runs at once must not read each other's half a file.
    beside = file.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(beside, **arrays)
    os.replace(beside, file)
