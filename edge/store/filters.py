"""Select filters for readers from the tag classes: readers then report only members, carts and staff."""

from __future__ import annotations

from collections.abc import Iterable

from config.model import TagClass
from config.tags import masks
from drivers.session import Select

WANTED = ("member", "cart", "staff")


def selects(rules: Iterable[TagClass]) -> tuple[Select, ...]:
    """Make one filter per rule, without duplicates; none without rules, so that a reader is never told to report
    nothing.

    A filter compares contiguous bits. A rule with a gap (the filter value of a GS1 scheme) uses the longest run: other
    tags than those of the class may pass, and the service classifies them as usual.
    """
    return tuple(dict.fromkeys(_select(*masks(rule)) for rule in rules if rule.class_ in WANTED))


def _select(mask: bytes, value: bytes) -> Select:
    pattern = f"{int.from_bytes(mask, 'big'):0{8 * len(mask)}b}"
    bits = max(map(len, pattern.split("0")))
    offset = pattern.index("1" * bits)
    wanted = int.from_bytes(value, "big") >> 8 * len(mask) - offset - bits & (1 << bits) - 1
    return Select(offset, bits, (wanted << -bits % 8).to_bytes((bits + 7) // 8, "big"))
