"""EPCs that the store file's own rules know."""

from __future__ import annotations

from typing import Any

import pytest

from config import StoreConfig, TagClass
from config.tags import masks, matches
from simulators.shop.epcs import EpcMaker

CLASSES = ("member", "staff", "cart", "merchandise")


def with_rules(store: Any, *rules: Any) -> Any:
    return store.model_copy(update={"tag_classes": tuple(TagClass.model_validate(rule) for rule in rules)})


def first_class(store: Any, epc: Any) -> Any:
    return next((rule.class_ for rule in store.tag_classes if matches(epc, *masks(rule))), None)


def test_each_class_is_known_and_numbers_differ(demo_store: StoreConfig) -> None:
    maker = EpcMaker(demo_store)
    made = {(name, n): maker.make(name, n) for name in (*CLASSES, "unknown") for n in (0, 7, 1000, 99_999)}
    assert len(set(made.values())) == len(made)
    assert all(len(epc) == 12 for epc in made.values())
    for (name, _), epc in made.items():
        assert first_class(demo_store, epc) == (None if name == "unknown" else name)


@pytest.mark.parametrize("prefix", ["E2", "ABC", "300833B2DDD9014000000000", "F" * 25])
def test_a_class_by_prefix(demo_store: StoreConfig, prefix: Any) -> None:
    store = with_rules(demo_store, {"class": "member", "epc_prefix": prefix})
    made = [EpcMaker(store).make("member", n) for n in (0, 1, 99_999)]
    assert len(set(made)) == 3
    assert all(epc.hex().upper().startswith(prefix.upper()) and len(epc) >= 12 for epc in made)


def test_a_class_without_a_rule_gets_a_usual_scheme(demo_store: StoreConfig) -> None:
    maker = EpcMaker(with_rules(demo_store))
    assert [maker.make(name, 1)[0] for name in CLASSES] == [0x2D, 0x2E, 0x33, 0x30]


def test_a_scheme_that_no_card_has_is_refused(demo_store: StoreConfig) -> None:
    store = with_rules(demo_store, {"class": "cart", "scheme": "sscc-96", "company_prefix": "9521141"})
    with pytest.raises(ValueError, match="sscc-96"):
        EpcMaker(store)
