"""EPCs of cards, badges, carts and goods that match the store file's tag classes."""

from __future__ import annotations

from config import StoreConfig
from config.tags import grai96, gsrn96, gsrnp96, sgtin96

_DEFAULT_SCHEMES = {"member": "gsrn-96", "staff": "gsrnp-96", "cart": "grai-96", "merchandise": "sgtin-96"}
_DEFAULT_PREFIX = "9521141"
"""From the range that GS1 reserves for demonstrations."""
_GOLDEN = 0x9E3779B97F4A7C15


class EpcMaker:
    """Generator of EPCs by tag class (member, staff, cart, merchandise, unknown) and number, reproducible. ValueError
    for a store with tag classes of unsupported schemes.
    """

    def __init__(self, config: StoreConfig) -> None:
        self._rules = {str(rule.class_): rule for rule in reversed(config.tag_classes)}
        for tag_class in _DEFAULT_SCHEMES:
            self.make(tag_class, 0)

    def make(self, tag_class: str, number: int) -> bytes:
        """Return EPC `number` (below 100,000) of a class; "unknown" has no scheme."""
        if tag_class == "unknown":
            return bytes.fromhex("e28011") + (_GOLDEN * (number + 1) % 2**72).to_bytes(9, "big")
        rule = self._rules.get(tag_class)
        if rule is not None and rule.epc_prefix is not None:
            digits = rule.epc_prefix
            length = max(24, len(digits) + 8 + len(digits) % 2)
            return bytes.fromhex(digits + f"{number:x}".zfill(length - len(digits)))
        scheme = (rule and rule.scheme) or _DEFAULT_SCHEMES[tag_class]
        prefix = (rule and rule.company_prefix) or _DEFAULT_PREFIX
        match scheme:
            case "gsrn-96":
                return gsrn96(prefix, number)
            case "gsrnp-96":
                return gsrnp96(prefix, number)
            case "grai-96":
                return grai96(prefix, 0, number)
            case "sgtin-96":
                return sgtin96(prefix, number % 10, number)
            case _:
                raise ValueError(f"tag class {tag_class}: no simulated tags of scheme {scheme}")
