"""Tag reports decoded a second: ours, sllurp's and llrpkit's codec on the same bytes. Run by `make bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llrpkit.protocol import decode_message, messages, params
from sllurp.llrp import LLRPMessage

from drivers.llrp.decoder import ReportDecoder
from drivers.llrp.wire import Wire

BUDGET_RATIO = 300
"""Times sllurp, at 32 reports a message (docs/architecture.md)."""


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
