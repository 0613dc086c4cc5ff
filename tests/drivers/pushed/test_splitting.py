"""Streams of JSON values, cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.pushed import splitting
from drivers.pushed.splitting import DEPTH_MAX, VALUE_BYTES_MAX, Splitter, split, split_whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3) | st.lists(JSON, max_size=3), max_size=5)
BETWEEN = st.sampled_from(["", "\n", "\r\n", " ", ",\n"])


@given(MESSAGES, BETWEEN, st.booleans(), st.lists(st.integers(0, 400), max_size=6))
def test_values_come_out_whole_wherever_the_stream_is_cut(
    messages: list[Any], between: str, ascii_only: bool, cuts: list[int]
) -> None:
    texts = [json.dumps(message, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for message in messages]
    stream = between.encode().join(texts) + between.encode()
    splitter = Splitter()
    values: list[bytes] = []
    at = 0
    for cut in [*sorted(cuts), len(stream)]:
        part = splitter.feed(stream[at:cut])
        at = max(at, cut)
        values += part.values
        assert part.skipped == part.broken == 0
    assert values == texts
    assert not splitter.pending


@given(st.binary(max_size=300) | st.text(alphabet='{}[]"\\\n,a', max_size=300).map(str.encode), st.booleans())
def test_the_kernel_does_what_its_python_does(stream: bytes, lines: bool) -> None:
    results = []
    for scan in (split, split.py_func):
        spans = np.zeros((len(stream) // 2 + 1, 2), np.int64)
        state, tally = np.zeros(3, np.int64), np.zeros(3, np.int64)
        buffer = np.frombuffer(bytearray(stream), np.uint8)
        start = scan(buffer, 0, state, lines, spans, tally)
        results.append((int(start), state.tolist(), tally.tolist(), spans[: tally[0]].tolist()))
    assert results[0] == results[1]
    _, _, (count, skipped, _), spans_found = results[0]
    assert count <= len(stream) // 2
    assert 0 <= skipped <= len(stream)
    assert all(0 <= begin < end <= len(stream) for begin, end in spans_found)


def test_brackets_in_texts_are_no_brackets() -> None:
    text = rb'{"a":"}{][\"}{","b":"\\"}'
    assert split_whole(text + text).values == [text, text]


def test_a_line_ends_a_broken_message_if_messages_are_lines() -> None:
    splitter = Splitter(lines=True)
    assert splitter.feed(b'{"a":1}\r\n{"a":\r\n{"b":"x\r\n{"c":3}\r\n') == ([b'{"a":1}', b'{"c":3}'], 15, 2)


def test_depth_and_size_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_whole(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX).broken == 0
    deep = split_whole(b"[" * 1_000_000)
    assert not deep.values
    assert deep.broken > 1000
    monkeypatch.setattr(splitting, "VALUE_BYTES_MAX", 1000)
    splitter = Splitter()
    for _ in range(3):
        splitter.feed(b'{"a":"' + b"x" * 400)
    assert splitter.pending < 1000
    assert splitter.feed(b'"}{"b":2}').values[-1] == b'{"b":2}'
    assert VALUE_BYTES_MAX >= 1 << 16


def test_rubbish_between_values_is_counted() -> None:
    assert split_whole(b'HTTP {"a":1} x {"b":2}') == ([b'{"a":1}', b'{"b":2}'], 5, 0)
    assert split_whole(b'{"a":1}{"b":') == ([b'{"a":1}'], 0, 1)
