"""Coverage-guided fuzzing of all that takes a reader's LLRP bytes; run by `make fuzz`, findings become tests.

The kernels run as plain Python here: the fuzzer sees their branches, and an index out of bounds is an error.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import warnings

os.environ["NUMBA_DISABLE_JIT"] = "1"

import atheris
import numpy as np

with atheris.instrument_imports(include=["drivers", "sllurp"]):
    from drivers.llrp import codec
    from drivers.llrp.decoder import ReportDecoder
    from drivers.llrp.events import notices
    from drivers.read import EPC_BITS_MAX

# Wrap-around and casts that the compiled kernels do without a word.
warnings.filterwarnings("ignore", category=RuntimeWarning)
PORTS = {1: 10, 2: 11, 4: 12}
CONTROL = (4, 11, 12, 13, 30, 31, 32, 33, 34, 36, 63, 100, 1023)
REPORT = 61


def reports(data: bytes) -> None:
    """Any bytes, and any bytes within a sound message; whole and cut in two."""
    framed = struct.pack("!HII", 1 << 10 | REPORT, 10 + len(data), 1) + data
    for stream in (data, framed, framed + data):
        buffer = np.frombuffer(bytearray(stream), np.uint8)
        decoder = ReportDecoder(PORTS)
        whole = decoder.decode(buffer, 0, len(buffer))
        assert 0 <= whole.used <= len(buffer)
        assert (whole.reads["epc_bits"] <= EPC_BITS_MAX).all()
        assert (whole.reads["epc_bits"] > 0).all()
        assert (whole.reads["count"] > 0).all()
        assert (whole.reads["time_us"] >= 0).all()
        counters = decoder.counters
        assert counters["reads"] == len(whole.reads)
        again = ReportDecoder(PORTS)
        cut = len(stream) // 2
        first = again.decode(buffer, 0, cut)
        second = again.decode(buffer, first.used, len(buffer))
        assert second.used == whole.used
        assert np.concatenate([first.reads, second.reads]).tobytes() == whole.reads.tobytes()
        assert again.counters == counters


def controls(data: bytes) -> None:
    """A control message: decoded or Malformed, and then everything that a session asks of it works."""
    for kind in CONTROL:
        message = struct.pack("!HII", 1 << 10 | kind, 10 + len(data), 7) + data
        try:
            decoded = codec.decode(message)
        except codec.Malformed:
            continue
        codec.refusal(decoded)
        codec.identity_of(decoded)
        codec.capabilities_of(decoded)
        event = codec.event_of(decoded)
        notices(event)


def one_input(data: bytes) -> None:
    """The fuzzer's entry: the first byte chooses the part."""
    if not data:
        return
    body = data[1:]
    if data[0] & 1:
        reports(body)
    else:
        with contextlib.suppress(codec.NotLlrp):
            codec.header_at(body, 0, len(body))
        controls(body)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
