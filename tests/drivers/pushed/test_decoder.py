"""Formats, absent and odd values, and hostile messages."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.pushed.decoder import Decoded, Decoder
from drivers.pushed.formats import FORMATS, IMPINJ, SPEEDWAY, ZEBRA, Sign, generic
from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, epc_bytes
from drivers.session import PHASE_UNKNOWN

EPC = "E2C451A3A5011FA00F354693"
PORTS = {1: 10, 2: 20}


def zebra(**data: Any) -> bytes:
    top = {name: data.pop(name) for name in ("timestamp", "type") if name in data}
    return json.dumps({"data": {"idHex": EPC, "antenna": 1} | data} | top).encode()


def one(body: bytes, decoder: Decoder | None = None) -> Any:
    (read,) = (decoder or Decoder(ZEBRA, PORTS)).decode([body]).reads
    return read


def test_any_field_may_be_absent() -> None:
    decoded = Decoder(ZEBRA, PORTS).decode([json.dumps({"data": {"idHex": EPC}}).encode()])
    (read,) = decoded.reads
    assert (read["antenna"], read["rssi_cdbm"], read["count"], read["epc_bits"]) == (
        ANTENNA_UNKNOWN,
        RSSI_UNKNOWN,
        1,
        96,
    )
    assert not decoded.timed.any()
    assert decoded.phase.tolist() == [PHASE_UNKNOWN]
    assert np.isnan(decoded.sequence).all()
    assert decoded.newest_us == -1


def test_without_an_antenna_it_is_the_only_one() -> None:
    body = json.dumps({"data": {"idHex": EPC}}).encode()
    alone = Decoder(ZEBRA, {3: 7})
    assert one(body, alone)["antenna"] == 7
    assert alone.counters["no_antenna"] == 0
    several = Decoder(ZEBRA, PORTS)
    several.decode([body, zebra(antenna=9), zebra(antenna="2")])
    assert (several.counters["no_antenna"], several.counters["unknown_antenna"]) == (1, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (-62, -6200), ("-62", -6200), (-62.25, -6225), ("-62.5", -6250), (-400, RSSI_UNKNOWN), (1e300, RSSI_UNKNOWN),
        (10**30, RSSI_UNKNOWN), (None, RSSI_UNKNOWN), ("loud", RSSI_UNKNOWN), ([], RSSI_UNKNOWN), (True, RSSI_UNKNOWN),
        (-327.68, RSSI_UNKNOWN), (327.67, 32767), (327.68, RSSI_UNKNOWN),
    ],
)  # fmt: skip
def test_rssi_beyond_the_range_is_unknown(given: Any, expected: int) -> None:
    assert one(zebra(peakRssi=given))["rssi_cdbm"] == expected
    # in a column with others
    decoded = Decoder(ZEBRA, PORTS).decode([zebra(peakRssi=-50), zebra(peakRssi=given), zebra()])
    assert decoded.reads["rssi_cdbm"].tolist() == [-5000, expected, RSSI_UNKNOWN]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2024-09-05T01:07:01.785-0600", 1725520021785000),
        ("2024-09-05T01:07:01.785-06:00", 1725520021785000),
        ("2024-09-05T07:07:01.785Z", 1725520021785000),
        ("2024-09-05T07:07:01.785123987Z", 1725520021785123),
        ("2024-09-05T07:07:01.785", 1725520021785000),
        ("2024-09-05 07:07:01.785+00:00", 1725520021785000),
        (1725520021, 1725520021000000),
        (1725520021.5, 1725520021500000),
        (1725520021785, 1725520021785000),
        ("1725520021785", 1725520021785000),
        (1725520021785123, 1725520021785123),
        (1725520021785123987, 1725520021785123),
        ("2000-01-01T00:00:07Z", 946684807000000),
    ],
)
def test_times_of_all_forms(given: Any, expected: int) -> None:
    decoder = Decoder(ZEBRA, PORTS)
    decoded = decoder.decode([zebra(timestamp=given)])
    assert decoded.reads["time_us"].tolist() == [expected]
    mixed = decoder.decode([zebra(timestamp=given), zebra(timestamp=1725520021), zebra(timestamp=given)])
    assert mixed.reads["time_us"].tolist() == [expected, 1725520021000000, expected]
    assert decoded.timed.all()
    assert decoder.counters["bad_time"] == 0


@pytest.mark.parametrize(
    "given",
    [
        "",
        "soon",
        "nowZ",
        "-2360",
        "2024-01-01T00:00:00+24:00",
        "2024-13-01T00:00:00Z",
        12,
        -5,
        1e40,
        10**40,
        [],
        {},
        False,
        "9" * 30,
        "NaNZ",
    ],
)
def test_what_is_no_time_is_none(given: Any) -> None:
    decoder = Decoder(ZEBRA, PORTS)
    decoded = decoder.decode([zebra(timestamp=given), zebra(timestamp="2024-09-05T07:07:01Z")])
    assert decoded.timed.tolist() == [False, True]
    assert decoder.counters["bad_time"] == 1


@pytest.mark.parametrize("epc", ["", "E2C", "E2C4 ", "E 2C4", "XYZ1", "00" * 64, "E2", 5, [], "ＡＢＣＤ", "E2C45"])
def test_impossible_epcs_are_left_out(epc: Any) -> None:
    decoder = Decoder(ZEBRA, PORTS)
    decoded = decoder.decode([zebra(idHex=epc), zebra(antenna=2), zebra(idHex=epc)])
    assert [epc_bytes(read["epc"], 96).hex().upper() for read in decoded.reads] == [EPC]
    assert decoded.reads["antenna"].tolist() == [20]
    assert decoder.counters["bad_epc"] == 2
    assert decoder.counters["reads"] == 1


def test_epcs_of_different_lengths_keep_their_order() -> None:
    epcs = ["AABB", EPC, "CCDD", EPC[:8] * 4, "11" * 62, EPC]
    decoded = Decoder(ZEBRA, PORTS).decode([zebra(idHex=epc, eventNum=i) for i, epc in enumerate(epcs)])
    found = [epc_bytes(read["epc"], int(read["epc_bits"])).hex().upper() for read in decoded.reads]
    assert found == epcs
    assert decoded.sequence.tolist() == list(range(len(epcs)))


def test_impinjs_events_are_signs() -> None:
    decoder = Decoder(IMPINJ, PORTS)
    decoded = decoder.decode(
        [
            b'{"timestamp":"2024-01-01T00:00:00Z","inventoryStatusEvent":{"inventoryStatus":"idle"}}',
            b'{"timestamp":"2024-01-01T00:00:00Z","eventType":"overflow","overflowEvent":{}}',
            b'{"antennaDisconnectedEvent":{"antennaPort":2}}',
            b'{"diagnosticEvent":{}}',
        ]
    )
    assert not len(decoded.reads)
    assert sorted(decoded.signs, key=lambda sign: sign[0].value) == [
        (Sign.STATE, "idle"), (Sign.OVERFLOW, {}), (Sign.DISCONNECTED, 2),
    ]  # fmt: skip
    assert decoder.counters["others"] == 4


def test_a_list_may_be_empty_and_a_heartbeat_has_no_epc() -> None:
    decoder = Decoder(SPEEDWAY, PORTS)
    decoded = decoder.decode(
        [
            b'{"reader_name":"x","mac_address":"00:16:25:10:EF:18","tag_reads":[]}',
            b'{"tag_reads":[{"isHeartBeat":true}]}',
        ]
    )
    assert not len(decoded.reads)
    assert decoder.counters["others"] == 2
    assert decoder.counters["bad_epc"] == 0


def test_a_mapping_of_ones_own() -> None:
    form = generic(
        {
            "reads": "/payload/tags", "epc": "/id", "epc_as": "base64", "antenna": "/ant", "rssi": "/sig",
            "rssi_unit": "cdbm", "time": "/at", "count": "/n", "sequence": "/seq",
        }
    )  # fmt: skip
    decoder = Decoder(form, PORTS)
    body = {
        "at": 1725520021,
        "seq": 7,
        "payload": {"tags": [{"id": "4sRRo6UBH6APNUaT", "ant": 2, "sig": -5750, "n": 3}, {"id": "AAE"}]},
        "ant": 1,
    }
    decoded = decoder.decode([json.dumps(body).encode()])
    assert decoded.reads["antenna"].tolist() == [20, 10], "what a read lacks is looked up around it"
    assert decoded.reads["rssi_cdbm"].tolist() == [-5750, RSSI_UNKNOWN]
    assert decoded.reads["count"].tolist() == [3, 1]
    assert decoded.reads["time_us"].tolist() == [1725520021000000] * 2
    assert decoded.reads["epc_bits"].tolist() == [96, 16]
    assert decoded.sequence.tolist() == [7, 7]


def test_keys_of_pointers_may_have_slashes() -> None:
    decoder = Decoder(generic({"epc": "/a~1b/c~0d", "antenna": "/a~1b/ "}), PORTS)
    assert one(b'{"a/b":{"c~d":"AABB"," ":2}}', decoder)["antenna"] == 20


@pytest.mark.parametrize("mapping", [{}, {"epc": "epc"}, {"epc": "/a", "rssi": "/a/b"}, {"epc": "/a/b", "rssi": "/a"}])
def test_impossible_mappings_are_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Decoder(generic(mapping), PORTS)


HOSTILE = [
    b"NaN", b"[NaN]", b'{"data":{"idHex":"AABB","antenna":NaN}}', b'{"data":{"idHex":"AABB","antenna":1e400}}',
    b'{"data":{"idHex":"AABB"}', b'{"data":{"idHex":"\xff\xfe"}}', b'{"data":{"idHex":"\\ud800"}}', b"{}{}",
    b'{"data":"text"}', b'{"data":[]}', b'{"data":null}', b"[1,2,[3]]", b"[null]", b"{'a':1}", b"\x00" * 50,
    b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_messages_cost_nothing_but_themselves(body: bytes) -> None:
    decoder = Decoder(ZEBRA, PORTS)
    decoded = decoder.decode([zebra(), body, zebra(antenna=2)])
    assert decoded.reads["antenna"].tolist() == [10, 20]


def test_huge_numbers_and_duplicate_keys_are_harmless() -> None:
    big = b"9" * 4000
    read = one(b'{"data":{"idHex":"AABB","antenna":' + big + b',"peakRssi":-' + big + b',"reads":' + big + b"}}")
    assert (read["antenna"], read["rssi_cdbm"]) == (ANTENNA_UNKNOWN, RSSI_UNKNOWN)
    read = one(b'{"data":{"idHex":"AABB","antenna":1,"idHex":"CCDD","antenna":2},"data":{"idHex":"EEFF","antenna":2}}')
    assert (epc_bytes(read["epc"], 16), read["antenna"]) == (b"\xee\xff", 20), "the last one counts"
    assert one(zebra(reads=70_000))["count"] == 65_535
    assert one(zebra(reads=-3))["count"] == 1


KEYS = (
    "data", "idHex", "antenna", "peakRssi", "timestamp", "eventNum", "reads", "epc", "tag_reads", "mac_address",
    "tagInventoryEvent", "epcHex", "devmac",
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.sampled_from([EPC, "-60"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)


@given(st.sampled_from(sorted(FORMATS)), st.lists(VALUES.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_whatever_comes_becomes_reads_or_nothing(profile: str, values: list[bytes]) -> None:
    decoder = Decoder(FORMATS[profile], PORTS)
    decoded: Decoded = decoder.decode(values)
    reads = decoded.reads
    assert len(reads) == len(decoded.timed) == len(decoded.phase) == len(decoded.sequence) == decoder.counters["reads"]
    assert ((reads["epc_bits"] > 0) & (reads["epc_bits"] <= 496) & (reads["epc_bits"] % 16 == 0)).all()
    assert np.isin(reads["antenna"], [10, 20, ANTENNA_UNKNOWN]).all()
    assert (reads["count"] >= 1).all()
    assert (reads["time_us"][decoded.timed] >= 0).all()
    again = Decoder(FORMATS[profile], PORTS)
    apart = [again.decode([value]).reads for value in values]
    assert np.concatenate([reads[:0], *apart]).tobytes() == reads.tobytes()


WRITTEN = st.one_of(
    st.integers(-(10**20), 10**20),
    st.integers(1_000_000_000, 2 * 10**18),
    st.floats(-1e19, 1e19),
    st.sampled_from(
        ["1", "02", "-61", "+3", " 7", "1;2", ";", "", "٣", "1.5", "1e3", "nan", "-", "2024-09-05T07:07:01Z"]
    ),
)
CODED = st.sampled_from(["4sRRo6UBH6APNUaT", "4sRRo6UBH6APNUaU", "AAE=", "AAE", "4sRR-_UBH6APNUaT", "====", "é234"])


@given(st.lists(WRITTEN, min_size=1, max_size=4), st.booleans(), st.lists(CODED, min_size=4, max_size=4))
def test_a_value_means_the_same_whatever_others_come_with_it(values: list[Any], text: bool, epcs: list[str]) -> None:
    written = [str(value) if text else value for value in values]
    form = generic(
        {"epc": "/e", "epc_as": "base64", "antenna": "/a", "rssi": "/r", "time": "/t", "count": "/n", "sequence": "/s"}
    )
    bodies = [
        json.dumps({"e": epc, "a": value, "r": value, "t": value, "n": value, "s": value}).encode()
        for epc, value in zip(epcs, written, strict=False)
    ]
    together = Decoder(form, PORTS).decode(bodies)
    apart = [Decoder(form, PORTS).decode([body]) for body in bodies]
    assert together.reads.tobytes() == b"".join(one.reads.tobytes() for one in apart)
    assert together.timed.tolist() == [given for one in apart for given in one.timed]
    np.testing.assert_array_equal(together.sequence, np.concatenate([one.sequence for one in apart]))
