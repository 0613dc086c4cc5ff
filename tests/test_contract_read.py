"""Drivers and the engine don't know one another; this holds both to one READ."""

from __future__ import annotations

import pytest

import drivers.read
import dwell.read


def test_both_sides_mean_the_same_read() -> None:
    assert drivers.read.READ == dwell.read.READ
    assert drivers.read.READ.itemsize == 80
    assert drivers.read.ANTENNA_UNKNOWN == dwell.read.ANTENNA_UNKNOWN
    assert drivers.read.RSSI_UNKNOWN == dwell.read.RSSI_UNKNOWN


def test_unknowns_fit_their_fields_and_the_longest_epc_its_words() -> None:
    import numpy as np

    read = np.zeros(1, drivers.read.READ)
    read["antenna"] = drivers.read.ANTENNA_UNKNOWN
    read["rssi_cdbm"] = drivers.read.RSSI_UNKNOWN
    assert read["antenna"][0] == drivers.read.ANTENNA_UNKNOWN
    assert read["rssi_cdbm"][0] == drivers.read.RSSI_UNKNOWN
    assert drivers.read.READ["epc"].shape[0] * 64 >= drivers.read.EPC_BITS_MAX


def test_epc_words_and_bytes_are_inverse() -> None:
    epc = bytes(range(62))
    assert drivers.read.epc_bytes(drivers.read.epc_words(epc), 496) == epc
    assert drivers.read.epc_bytes(drivers.read.epc_words(epc[:12]), 96) == epc[:12]


def test_reads_made_one_by_one_are_rows() -> None:
    epcs = [bytes(range(1, 1 + size)) for size in (2, 12, 62)]
    reads = drivers.read.of_rows([drivers.read.row(10**15 + n, epc, 7, -5500, 3) for n, epc in enumerate(epcs)])
    assert reads.dtype == drivers.read.READ
    for n, (read, epc) in enumerate(zip(reads, epcs, strict=True)):
        assert read["epc"].tolist() == drivers.read.epc_words(epc).tolist()
        assert (read["time_us"], read["antenna"], read["rssi_cdbm"], read["count"]) == (10**15 + n, 7, -5500, 3)
        assert read["epc_bits"] == 8 * len(epc)
    reads["count"] = 1  # whoever takes them owns them
    with pytest.raises(ValueError, match="504 bits"):
        drivers.read.row(0, bytes(63), 7, -5500, 1)
