"""Messages of real readers and of their vendors' documents (tests/support/captured_json.py) are read."""

from __future__ import annotations

import pytest
from captured_json import MESSAGES

from drivers.pushed.decoder import Decoder
from drivers.pushed.formats import FORMATS
from drivers.pushed.splitting import split_whole
from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, epc_bytes


@pytest.mark.parametrize("name", MESSAGES)
def test_published_messages_are_read(name: str) -> None:
    profile, body, expected = MESSAGES[name]
    decoder = Decoder(FORMATS[profile], {port: port for port in range(1, 65)})
    decoded = decoder.decode(split_whole(body).values)
    assert decoded.timed.all()
    found = [
        (
            epc_bytes(read["epc"], int(read["epc_bits"])).hex().upper(),
            None if read["antenna"] == ANTENNA_UNKNOWN else int(read["antenna"]),
            None if read["rssi_cdbm"] == RSSI_UNKNOWN else int(read["rssi_cdbm"]),
            int(read["time_us"]),
            int(read["count"]),
            turn,
        )
        for read, turn in zip(decoded.reads, decoded.phase.tolist(), strict=True)
    ]
    assert found == expected
    assert decoder.counters["malformed"] == decoder.counters["bad_epc"] == decoder.counters["bad_time"] == 0


def test_the_readers_name_themselves() -> None:
    decoder = Decoder(FORMATS["keonn"], {1: 1})
    assert decoder.decode([MESSAGES["keonn"][1]]).identity == "B0D5CC9FFDF8"


def test_numbers_of_events_are_kept() -> None:
    decoder = Decoder(FORMATS["zebra"], {1: 1})
    decoded = decoder.decode(split_whole(MESSAGES["zebra, two with nothing between"][1]).values)
    assert decoded.sequence.tolist() == [5938, 5939]
