"""Tag reports decoded a second: ours, sllurp's and llrpkit's codec on the same bytes, and pushed JSON beside the
standard library's parser. Run by `make bench`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llrpkit.protocol import decode_message, messages, params
from sllurp.llrp import LLRPMessage

from drivers.llrp.decoder import ReportDecoder
from drivers.llrp.wire import Wire
from drivers.pushed.decoder import Decoder
from drivers.pushed.formats import FORMATS, generic
from drivers.pushed.splitting import Splitter
from simulators.readers.observation import Observation
from simulators.readers.pushed import GENERIC
from simulators.readers.pushed import messages as pushed_messages

BUDGET_RATIO = 300
"""Times sllurp, at 32 reports a message (docs/architecture.md)."""
PUSHED_RATIO = 0.2
"""Times the standard library's parser, which makes no READ of what it parses."""


def report_message(reports: int, serial: int) -> bytes:
    """What a reader sends when asked for what our ROSpec asks for."""
    return messages.RO_ACCESS_REPORT(
        tag_report_datas=[
            params.TagReportData(
                epc_parameter=params.EPC_96(epc=bytes.fromhex("3034257BF4499602D2") + (serial + i).to_bytes(3, "big")),
                antenna_id=params.AntennaID(antenna_id=1 + i % 4),
                peak_rssi=params.PeakRSSI(peak_rssi=-40 - i % 30),
                first_seen_timestamp_utc=params.FirstSeenTimestampUTC(microseconds=1_700_000_000_000_000 + i),
                last_seen_timestamp_utc=params.LastSeenTimestampUTC(microseconds=1_700_000_000_000_000 + 2 * i),
                tag_seen_count=params.TagSeenCount(tag_count=1 + i % 3),
            )
            for i in range(reports)
        ]
    ).to_bytes(message_id=serial)


def stream(reports: int) -> list[bytes]:
    """As many messages as a full receive buffer holds."""
    one = len(report_message(reports, 1))
    return [report_message(reports, i * reports + 1) for i in range(Wire.CAPACITY // one)]


def ours(sent: list[bytes]) -> Callable[[], int]:
    buffer = np.frombuffer(bytearray(b"".join(sent)), np.uint8)
    decoder = ReportDecoder({1: 0, 2: 1, 3: 2, 4: 3})
    return lambda: len(decoder.decode(buffer, 0, len(buffer)).reads)


def sllurp(sent: list[bytes]) -> Callable[[], int]:
    return lambda: sum(len(LLRPMessage(msgbytes=m).msgdict["RO_ACCESS_REPORT"]["TagReportData"]) for m in sent)


def llrpkit(sent: list[bytes]) -> Callable[[], int]:
    return lambda: sum(len(decode_message(m).tag_report_datas) for m in sent)


def per_second(*decoders: Callable[[], int], turns: int = 40, turn_s: float = 0.05) -> list[float]:
    """Best rate of each, taking turns, so that what else the machine does befalls all of them alike."""
    best = [0.0] * len(decoders)
    for _ in range(turns):
        for i, decode in enumerate(decoders):
            end = time.perf_counter() + turn_s
            while (began := time.perf_counter()) < end:
                best[i] = max(best[i], decode() / (time.perf_counter() - began))
    return best


@pytest.mark.parametrize("reports", [1, 32])
@pytest.mark.parametrize("codec", [ours, sllurp, llrpkit])
def test_decode(benchmark: Any, codec: Any, reports: Any) -> None:
    benchmark.group = f"LLRP decode, {reports} reports a message"
    sent = stream(reports)
    decode = codec(sent)
    count = benchmark(decode)
    assert count == reports * len(sent)
    benchmark.extra_info["reports_per_s"] = round(count / benchmark.stats.stats.min)


@pytest.mark.parametrize("reports", [1, 32])
def test_ratio_to_sllurp(benchmark: Any, reports: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The budget: both in one run, so that the machine's speed cancels out."""
    sent = stream(reports)
    fast, slow, other = per_second(ours(sent), sllurp(sent), llrpkit(sent))
    benchmark.group = f"LLRP decode, {reports} reports a message"
    benchmark.extra_info.update(ratio_to_sllurp=round(fast / slow), ratio_to_llrpkit=round(fast / other))
    benchmark.pedantic(ours(sent), rounds=5)
    with capsys.disabled():
        print(
            f"\nLLRP decode, {reports} reports a message: {fast / 1e6:.1f} M/s, "
            f"{fast / slow:.0f} × sllurp, {fast / other:.0f} × llrpkit"
        )
    if reports == 32:
        assert fast / slow >= BUDGET_RATIO


BODY_BYTES = 65_536


def body_of(profile: str) -> tuple[bytes, int]:
    """About 64 KB of JSON as such a reader sends it, and the number of reads in it."""
    seen = [
        Observation(
            1_700_000_000_000_000 + 1000 * i,
            1 + i % 4,
            bytes.fromhex("3034257BF4499602D2") + i.to_bytes(3),
            -4000 - i % 3000,
        )
        for i in range(1000)
    ]
    between = b"\r\n" if profile == "impinj" else b""
    made: list[bytes] = []
    for first in range(0, len(seen), 10):  # ten reads a message, where messages have several
        made += [
            json.dumps(message, separators=(",", ":")).encode() + between
            for message in pushed_messages(profile, seen[first : first + 10], first)
        ]
        if sum(map(len, made)) >= BODY_BYTES:
            return b"".join(made), first + 10
    raise AssertionError("too few reads")


def pushed(profile: str, body: bytes) -> Callable[[], int]:
    form = generic(GENERIC) if profile == "generic" else FORMATS[profile]
    splitter, decoder = Splitter(form.lines), Decoder(form, {1: 0, 2: 1, 3: 2, 4: 3})
    return lambda: len(decoder.decode(splitter.feed(body).values).reads)


def parsed(values: list[bytes], reads: int) -> Callable[[], int]:
    """The standard library's parser alone."""

    def parse() -> int:
        for value in values:
            json.loads(value)
        return reads

    return parse


@pytest.mark.parametrize("profile", [*FORMATS, "generic"])
def test_pushed_json(benchmark: Any, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From bytes of a stream to READ; the rate is told, the ratio to the standard library's parser alone is kept."""
    body, count = body_of(profile)
    ours_ = pushed(profile, body)
    assert ours_() == count
    fast, slow = per_second(ours_, parsed(Splitter().feed(body).values, count), turns=20)
    benchmark.group = "Pushed JSON, 64 KB"
    benchmark.extra_info.update(reads_per_s=round(fast), ratio_to_json=round(fast / slow, 2))
    benchmark.pedantic(ours_, rounds=5)
    with capsys.disabled():
        print(f"\npushed JSON, {profile}: {fast / 1e3:.0f} k reads/s, {fast / slow:.2f} × json.loads alone")
    assert fast / slow >= PUSHED_RATIO
