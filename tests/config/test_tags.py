from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import TagClass
from config.tags import check_digit, grai96, gsrn96, gsrnp96, masks, matches, read_gsrn96, sgtin96

_DIGITS = "0123456789"
_PREFIXES = st.integers(6, 12).flatmap(lambda n: st.text(_DIGITS, min_size=n, max_size=n))


def test_published_gsrn() -> None:
    epc = bytes.fromhex("2D14257BF4499602D2000000")
    assert gsrn96("0614141", 1234567890) == epc
    number = read_gsrn96(epc)
    assert (number.company_prefix, number.reference, number.filter) == ("0614141", "1234567890", 0)
    assert number.key == "061414112345678902"


def test_published_sgtin_and_grai() -> None:
    assert sgtin96("0614141", 812345, 6789, filter=3).hex().upper() == "3074257BF7194E4000001A85"
    assert grai96("0614141", 12345, 400, filter=3).hex().upper() == "3374257BF40C0E4000000190"


def test_check_digit_of_a_published_gtin() -> None:
    assert check_digit("629104150021") == "3"


@given(_PREFIXES, st.data(), st.integers(0, 7), st.sampled_from([gsrn96, gsrnp96]))
def test_gsrn_round_trip(prefix: str, data: st.DataObject, filter: int, encode: Callable[..., bytes]) -> None:
    reference = data.draw(st.integers(0, 10 ** (17 - len(prefix)) - 1))
    number = read_gsrn96(encode(prefix, reference, filter))
    assert (number.company_prefix, int(number.reference), number.filter) == (prefix, reference, filter)
    assert len(number.key) == 18


@given(st.binary(min_size=12, max_size=12).map(lambda b: b"\x2d" + b[1:9] + b"\0\0\0"))
def test_what_reads_as_a_gsrn_is_what_would_be_written(epc: bytes) -> None:
    try:
        number = read_gsrn96(epc)
    except ValueError:
        return
    assert gsrn96(number.company_prefix, int(number.reference), number.filter) == epc


@pytest.mark.parametrize(
    "epc",
    [
        "2D14257BF4499602D2000001",  # padding not zero
        "3014257BF4499602D2000000",  # another scheme
        "2D1C257BF4499602D2000000",  # partition 7
        "2D14257BF4499602D20000",  # 88 bits
        "2D03FFFFFFFFFC0000000000",  # prefix beyond 12 digits
        "2D17FFFFFFFFFFFFFF000000",  # prefix and reference beyond their digits
    ],
)
def test_what_is_no_gsrn(epc: str) -> None:
    with pytest.raises(ValueError):
        read_gsrn96(bytes.fromhex(epc))


@pytest.mark.parametrize("prefix", ["12345", "1234567890123", "12345a", "", "１２３４５６"])
def test_what_is_no_company_prefix(prefix: str) -> None:
    with pytest.raises(ValueError, match="6 to 12 digits"):
        gsrn96(prefix, 1)


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="reference"):
        gsrn96("9521141", 10**10)
    with pytest.raises(ValueError, match="serial"):
        grai96("9521141", 1, 1 << 38)
    with pytest.raises(ValueError, match="filter"):
        sgtin96("9521141", 1, 1, filter=8)


ENCODERS = {
    "gsrn-96": lambda prefix, filter: gsrn96(prefix, 7, filter),
    "gsrnp-96": lambda prefix, filter: gsrnp96(prefix, 7, filter),
    "grai-96": lambda prefix, filter: grai96(prefix, 0, 7, filter),
    "sgtin-96": lambda prefix, filter: sgtin96(prefix, 1, 7, filter),
}


@given(st.sampled_from(sorted(ENCODERS)), _PREFIXES, st.sampled_from(sorted(ENCODERS)), _PREFIXES, st.integers(0, 7))
def test_a_rule_takes_its_scheme_and_prefix_whatever_the_filter(
    scheme: str, prefix: str, other_scheme: str, other_prefix: str, filter: int
) -> None:
    mask, value = masks(rule(scheme=scheme, company_prefix=prefix))
    assert len(mask) == len(value) <= 12
    assert matches(ENCODERS[scheme](prefix, filter), mask, value)
    other = ENCODERS[other_scheme](other_prefix, filter)
    assert matches(other, mask, value) == ((scheme, prefix) == (other_scheme, other_prefix))


def test_a_rule_without_prefix_takes_the_whole_scheme() -> None:
    mask, value = masks(rule(scheme="sgtin-96"))
    assert matches(sgtin96("000000", 1, 1), mask, value)
    assert not matches(gsrn96("000000", 1), mask, value)


@pytest.mark.parametrize("scheme", ["sscc-96", "sgln-96", "giai-96"])
def test_all_schemes_with_a_company_prefix_begin_alike(scheme: str) -> None:
    headers = {"sscc-96": 0x31, "sgln-96": 0x32, "giai-96": 0x34}
    like = bytes([headers[scheme]]) + sgtin96("952114199", 1, 1)[1:]
    assert matches(like, *masks(rule(scheme=scheme, company_prefix="952114199")))
    assert not matches(like, *masks(rule(scheme=scheme, company_prefix="952114198")))


def test_hex_prefixes_count_nibbles() -> None:
    mask, value = masks(rule(epc_prefix="e28"))
    assert (mask, value) == (b"\xff\xf0", b"\xe2\x80")
    assert matches(bytes.fromhex("E28F"), mask, value)
    assert not matches(bytes.fromhex("E29F"), mask, value)
    assert not matches(b"\xe2", mask, value)
    longest = masks(rule(epc_prefix="A" * 124))
    assert [len(part) for part in longest] == [62, 62]


def rule(**how: str) -> TagClass:
    return TagClass.model_validate({"class": "member", **how})
