"""Slopes of what is sampled over several runs of a program, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True)
class Slope:
    """Change per hour, and half of its 95 % interval; `first` and `last`: means of a run's first and last fifth."""

    per_hour: float
    within: float
    first: float
    last: float

    @property
    def rises(self) -> bool:
        """True if the whole interval is above zero."""
        return self.per_hour - self.within > 0


def slope(runs: Mapping[int, Sequence[tuple[float, float]]], settles_s: float) -> Slope:
    """Fit one slope to all runs, each with a level of its own; samples are (seconds since its start, value).

    The first `settles_s` of a run are left out. Samples that follow each other are alike: the interval is that of means
    of blocks of ten, which are less so.
    """
    blocks = [
        _blocks([(second, value) for second, value in samples if second >= settles_s]) for samples in runs.values()
    ]
    blocks = [each for each in blocks if len(each) >= 2]
    if not blocks:
        raise ValueError("no run was long enough")
    centred = [
        (second - sum(s for s, _ in each) / len(each), value - sum(v for _, v in each) / len(each))
        for each in blocks
        for second, value in each
    ]
    spread = sum(x * x for x, _ in centred)
    rate = sum(x * y for x, y in centred) / spread
    free = max(1, len(centred) - len(blocks) - 1)
    error = sqrt(sum((y - rate * x) ** 2 for x, y in centred) / free / spread)
    fifths = [max(1, len(each) // 5) for each in blocks]
    first = [value for each, n in zip(blocks, fifths, strict=True) for _, value in each[:n]]
    last = [value for each, n in zip(blocks, fifths, strict=True) for _, value in each[-n:]]
    return Slope(rate * 3600, 1.96 * error * 3600, sum(first) / len(first), sum(last) / len(last))


def _blocks(samples: Sequence[tuple[float, float]], size: int = 10) -> list[tuple[float, float]]:
    return [
        (sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part))
        for part in (samples[at : at + size] for at in range(0, len(samples), size))
        if len(part) == size
    ]
