"""Framing, what sllurp's tables make of messages, and what importing them must not do."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llrpkit.protocol import decode_message, enums, messages, params
from thorough import examples

from drivers.llrp import codec
from drivers.llrp.rospec import rospec


def header(first: int, length: int) -> bytes:
    return struct.pack("!HII", first, length, 77)


def test_a_header_is_read_where_it_stands() -> None:
    assert codec.header_at(b"xx" + header(1 << 10 | 62, 10), 2, 12) == codec.Header(62, 1, 10, 77)
    assert codec.header_at(header(1 << 10 | 62, 10), 0, 9) is None


@pytest.mark.parametrize("length", [0, 9, codec.MESSAGE_BYTES_MAX + 1, 0xFFFFFFFF])
def test_a_length_that_no_message_has_ends_the_stream(length: Any) -> None:
    with pytest.raises(codec.NotLlrp, match=str(length)):
        codec.header_at(header(1 << 10 | 61, length), 0, 10)


@pytest.mark.parametrize("version", [0, 4, 7])
def test_a_version_that_llrp_never_had_ends_the_stream(version: int) -> None:
    with pytest.raises(codec.NotLlrp, match=f"version {version}"):
        codec.header_at(header(version << 10 | 61, 10), 0, 10)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("GET_READER_CAPABILITIES", {"RequestedData": 0}),
        ("GET_READER_CONFIG", {"RequestedData": 1}),
        ("SET_READER_CONFIG", {"KeepaliveSpec": {"KeepaliveTriggerType": 1, "TimeInterval": 10000}}),
        ("ADD_ROSPEC", {"ROSpec": rospec([1, 4], 1)}),
        ("DELETE_ROSPEC", {"ROSpecID": 5}),
        ("KEEPALIVE_ACK", {}),
        ("CLOSE_CONNECTION", {}),
    ],
)
def test_an_independent_codec_reads_our_requests(name: str, fields: dict[str, Any]) -> None:
    theirs = decode_message(codec.encode(name, 0xFFFFFFFF, **fields))
    assert type(theirs).__name__ == name
    assert theirs.message_id == 0xFFFFFFFF
    assert theirs.to_bytes(message_id=0xFFFFFFFF) == codec.encode(name, 0xFFFFFFFF, **fields)


def test_the_configuration_request_has_its_fields_in_the_standards_order() -> None:
    request = decode_message(codec.encode("GET_READER_CONFIG", 1, RequestedData=1))
    assert int(request.requested_data) == enums.GetReaderConfigRequestedData.Identification
    assert request.antenna_id == 0


def test_refusals_are_told_with_what_the_reader_says() -> None:
    status = params.LLRPStatus(
        status_code=enums.StatusCode.M_ParameterError,
        error_description="no such hop table",
        parameter_error=params.ParameterError(
            parameter_type=177,
            error_code=enums.StatusCode.P_FieldError,
            field_error=params.FieldError(field_num=3, error_code=enums.StatusCode.A_OutOfRange),
        ),
    )
    answer = codec.decode(messages.ADD_ROSPEC_RESPONSE(llrp_status=status).to_bytes(message_id=1))
    told = codec.refusal(answer)
    for words in ("no such hop table", "ROSpec", "field 3"):
        assert words in (told or "")
    ok = params.LLRPStatus(status_code=enums.StatusCode.M_Success)
    assert codec.refusal(codec.decode(messages.ADD_ROSPEC_RESPONSE(llrp_status=ok).to_bytes(message_id=1))) is None


answers = st.sampled_from([11, 12, 13, 30, 31, 34, 32, 63, 100, 62, 4, 1023, 999])


@settings(max_examples=examples(500), deadline=None)
@given(
    answers, st.lists(st.binary(max_size=12) | st.integers(0, 400).map(lambda k: struct.pack("!HH", k, 8)), max_size=8)
)
def test_any_body_is_decoded_or_malformed(kind: int, parts: Any) -> None:
    body = b"".join(parts)
    try:
        message = codec.decode(header(1 << 10 | kind, 10 + len(body)) + body)
    except codec.Malformed:
        return
    assert message.id == 77
    codec.refusal(message)


def test_importing_the_codec_starts_no_thread_and_leaves_logging_alone() -> None:
    code = (
        "import logging, threading, drivers.llrp.codec\n"
        "assert threading.active_count() == 1\n"
        "assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_one_family_does_not_import_the_other() -> None:
    code = (
        "import sys, drivers, drivers.session\n"
        "assert not {'drivers.llrp', 'drivers.serial.thingmagic', 'numba', 'sllurp', 'serial'} & set(sys.modules)\n"
        "import drivers.llrp.session\n"
        "assert not {'drivers.serial.thingmagic', 'serial', 'sllurp.cli'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
