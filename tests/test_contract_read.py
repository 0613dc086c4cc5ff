"""Drivers and the engine don't know one another; this holds both to one READ."""

from __future__ import annotations

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
    for size in (2, 12, 62):
        assert drivers.read.epc_row(epc[:size]) == tuple(drivers.read.epc_words(epc[:size]).tolist())
