"""Select filters made of tag classes: no tag of a wanted class is ever kept from us."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from config.model import TagClass
from config.tags import gsrn96, matches, sgtin96
from config.tags import masks as masks_of
from drivers.session import Select
from edge.store.filters import selects

MEMBER = TagClass.model_validate({"class": "member", "scheme": "gsrn-96", "company_prefix": "0614141"})
STAFF = TagClass.model_validate({"class": "staff", "epc_prefix": "2E5"})
GOODS = TagClass.model_validate({"class": "merchandise", "scheme": "sgtin-96"})


def passes(select: Select, epc: bytes) -> bool:
    bits = "".join(f"{byte:08b}" for byte in epc)
    value = "".join(f"{byte:08b}" for byte in select.value)[: select.bits]
    return bits[select.offset : select.offset + select.bits] == value


def test_merchandise_is_left_out_members_and_staff_pass() -> None:
    member, staff = selects([GOODS, MEMBER, STAFF, STAFF])
    assert staff == Select(0, 12, b"\x2e\x50")
    assert (member.offset, member.bits) == (11, 3 + 24)
    assert passes(member, gsrn96("0614141", 1234567890))
    assert not passes(member, gsrn96("9521141", 1234567890))
    assert not passes(member, sgtin96("9521141", 1, 1))


def test_without_wanted_classes_nothing_is_filtered() -> None:
    assert selects([GOODS]) == ()


@given(st.from_regex(r"[0-9A-F]{1,24}", fullmatch=True), st.binary(min_size=12, max_size=12))
def test_what_a_rule_matches_passes_its_filter(prefix: str, epc: bytes) -> None:
    rule = TagClass.model_validate({"class": "cart", "epc_prefix": prefix})
    (select,) = selects([rule])
    epc = bytes.fromhex(prefix + epc.hex()[len(prefix) :])
    assert matches(epc, *masks_of(rule))
    assert passes(select, epc)
