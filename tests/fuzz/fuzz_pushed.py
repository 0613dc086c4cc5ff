"""Coverage-guided fuzzing of all that takes a reader's JSON; run by `make fuzz`, findings become tests.

The kernel runs as plain Python here: the fuzzer sees its branches, and an index out of bounds is an error.
"""

from __future__ import annotations

import os
import sys
import warnings

os.environ["NUMBA_DISABLE_JIT"] = "1"

import atheris
import numpy as np

with atheris.instrument_imports(include=["drivers"]):
    from drivers.pushed.decoder import Decoder
    from drivers.pushed.formats import FORMATS
    from drivers.pushed.splitting import Splitter, split_whole
    from drivers.pushed.watches import Numbering, Spacing

warnings.filterwarnings("ignore", category=RuntimeWarning)
PORTS = {1: 10, 2: 11}
FRAMES = (
    b"%s",
    b'{"data":{"idHex":"E2C4","antenna":1,%s}}',
    b'{"timestamp":%s,"data":{"idHex":"E2C4","antenna":1,"eventNum":1}}',
    b'{"tagInventoryEvent":{"epc":"%s","antennaPort":1}}',
    b'{"tag_reads":[{"epc":"AABB","peakRssi":%s}]}',
    b'{"reads":[%s],"devmac":"00:16:25:14:2F:F4"}',
)


def one_input(data: bytes) -> None:
    """The fuzzer's entry: the first byte chooses frame and format."""
    if not data:
        return
    body = FRAMES[data[0] % len(FRAMES)].replace(b"%s", data[1:])
    form = list(FORMATS.values())[data[0] // 16 % len(FORMATS)]
    for lines in (False, True):
        whole, parts = Splitter(lines), Splitter(lines)
        first = whole.feed(body)
        cut = len(body) // 2
        halves = [parts.feed(body[:cut]), parts.feed(body[cut:])]
        assert [value for half in halves for value in half.values] == first.values
        assert sum(half.skipped for half in halves) == first.skipped
        assert whole.pending == parts.pending
    decoder = Decoder(form, PORTS)
    decoded = decoder.decode(split_whole(body).values)
    reads = decoded.reads
    assert len(reads) == decoder.counters["reads"] == len(decoded.timed)
    assert ((reads["epc_bits"] > 0) & (reads["epc_bits"] <= 496)).all()
    assert np.isin(reads["antenna"], [10, 11, 0xFFFF]).all()
    assert (reads["count"] > 0).all()
    Numbering().take(decoded.sequence, reads["time_us"])
    Spacing().take(reads)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
