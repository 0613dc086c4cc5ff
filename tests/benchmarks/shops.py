"""Judge rules on drawn shops: a table of errors beside the best peer's.

    python tests/benchmarks/shops.py --shops 0-11 --seeds 0-1 --rules engine,learnt,oracle

Choose by seeds 0 to 99 only; those from 1000 on are for judging.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0:1] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "support")]


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def main() -> None:
    from drawn import RULES, case, pooled, row, table

    from simulators.shop.draws import SKETCHES

    parser = argparse.ArgumentParser(description="Judge rules on drawn shops.")
    parser.add_argument("--shops", type=_numbers, default=list(range(len(SKETCHES))), help="0-11 or 0,3,5")
    parser.add_argument("--seeds", type=_numbers, default=[0], help="development: 0 to 99")
    parser.add_argument("--rules", default="engine,learnt", help=f"of {', '.join(RULES)}; peers are always there")
    parser.add_argument("--each", action="store_true", help="a line for each seed, too")
    asked = parser.parse_args()
    rules = [rule for rule in asked.rules.split(",") if rule != "peers"]
    shops = []
    for shop in asked.shops:
        rows = [row(case(shop, seed), rules) for seed in asked.seeds]
        shops += rows if asked.each else []
        shops.append(pooled(rows))
        print(table(shops[-1:]).splitlines()[2], flush=True)
    print(table(shops))


if __name__ == "__main__":
    main()
