"""Messages of real readers that push JSON and of their vendors' documents, as published: each with its source."""

from __future__ import annotations

from typing import Any

MESSAGES: dict[str, tuple[str, bytes, list[tuple[Any, ...]]]] = {
    # An R700 with hostname impinj-14-2f-f4 at an integrator's gate in China, in the integrator's message description
    # (public repository, "SRE801", 2023; its own envelope fields left in, remarks and the tag's memory left out).
    "impinj, hex and base64": (
        "impinj",
        b'{"deviceType":"SRE401","deviceCode":"SRE801_1_gate1_1","timestamp":"2023-06-28T07:24:00.277766184Z",'
        b'"hostname":"impinj-14-2f-f4","eventType":"tagInventory","tagInventoryEvent":{"epc":"4sRRo6UBH6APNUaT",'
        b'"epcHex":"E2C451A3A5011FA00F354693","tid":"4sRRoyAAJpN5qv0A","tidHex":"E2C451A32000269379AAFD00","pc":"NAA=",'
        b'"antennaPort":2,"antennaName":"MQTT","peakRssiCdbm":-5750,"frequency":921625,"transmitPowerCdbm":1000,'
        b'"lastSeenTime":"2023-06-28T07:24:00.225324Z","phaseAngle":208.82}}',
        [("E2C451A3A5011FA00F354693", 2, -5750, 1687937040225324, 1, 2376)],
    ),
    # MQTT of an R700 that times runners, in the description of that system (public repository, "leszyrun", 2026).
    "impinj over MQTT, base64 only": (
        "impinj",
        b'{"timestamp":"2026-02-26T17:13:37.432087177Z","eventType":"tagInventory","tagInventoryEvent":'
        b'{"epc":"ikUCJA==","antennaPort":3,"peakRssiCdbm":-7400,"frequency":866900,"transmitPowerCdbm":3150}}',
        [("8A450224", 3, -7400, 1772126017432087, 1, -1)],
    ),
    # The same of another R700 (public repository, a web server's stand-in for it, 2025): base64 of the URL alphabet.
    "impinj, the other base64": (
        "impinj",
        b'{"timestamp":"2025-05-17T16:03:13.944189383Z","eventType":"tagInventory","tagInventoryEvent":'
        b'{"epc":"4oARkaUDAGXybMv_","antennaPort":1,"peakRssiCdbm":-7300,"frequency":919750,"transmitPowerCdbm":3000}}',
        [("E2801191A5030065F26CCBFF", 1, -7300, 1747497793944189, 1, -1)],
    ),
    # WebSocket of an FXR90 at a race (public repository, a timing program's note of what it expects, 2024), twice, as
    # several events arrive in one message.
    "zebra, two with nothing between": (
        "zebra",
        b'{"data":{"eventNum":5938,"format":"epc","idHex":"000000000000000000000343"},'
        b'"timestamp":"2024-09-05T01:07:01.785-0600","type":"CUSTOM"}'
        b'{"data":{"eventNum":5939,"format":"epc","idHex":"000000000000000000000344"},'
        b'"timestamp":"2024-09-05T01:07:01.786-0600","type":"CUSTOM"}',
        [
            ("000000000000000000000343", None, None, 1725520021785000, 1, -1),
            ("000000000000000000000344", None, None, 1725520021786000, 1, -1),
        ],
    ),
    # HTTP POST of an FX9600 (public repository, a warehouse's webhook, whose comment quotes the reader's form; the EPC
    # is elided there and one of Zebra's own samples here).
    "zebra, a list": (
        "zebra",
        b'[{"data":{"antenna":1,"format":"epc","idHex":"7EDA9038051002710002C0AE","peakRssi":-72},'
        b'"timestamp":"2022-02-22T22:22:22.222+0000","type":"INVENTORY"}]',
        [("7EDA9038051002710002C0AE", 1, -7200, 1645568542222000, 1, -1)],
    ),
    # Impinj's support article 360000044739 on Speedway Connect: output of an xArray, captured for it.
    "speedway, bare": (
        "speedway",
        b'{"antennaPort":7,"epc":"999908290000000000000004","tid":"E28011002000564500000002","firstSeenTimestamp":'
        b'"2018-06-14T00:15:54.36879Z","peakRssi":-51,"isHeartBeat":false}\n'
        b'{"antennaPort":23,"epc":"999908290000000000000003","tid":"E28011002000564500000001","firstSeenTimestamp":'
        b'"2018-06-14T00:15:54.373293Z","peakRssi":-50,"isHeartBeat":false}',
        [
            ("999908290000000000000004", 7, -5100, 1528935354368790, 1, -1),
            ("999908290000000000000003", 23, -5000, 1528935354373293, 1, -1),
        ],
    ),
    # SmartReader, which speaks Speedway Connect's format on an R700 (its own documentation, event "Tag Event").
    "speedway, SmartReader": (
        "speedway",
        b'{"readerName":"impinj00162513F90B","mac":"00:16:25:13:F9:0B","site":"Main Warehouse","tag_reads":[{"epc":'
        b'"E28011606000020934D6FAF7","firstSeenTimestamp":1706119203123456,"antennaPort":1,"antennaZone":"TOPSHELF",'
        b'"peakRssi":-51.25,"txPower":28.5,"frequency":920625,"rfPhase":37.5}]}',
        [("E28011606000020934D6FAF7", 1, -5125, 1706119203123456, 1, -1)],
    ),
    # AdvanNet's HTTP service with the template of an integration guide (public repository, GS1 Nordic, 2026), which
    # shows what arrives: every value is text.
    "keonn": (
        "keonn",
        b'{"devid":"AdvanReader-01","devip":"192.168.1.15","devmac":"b0:d5:cc:9f:fd:f8","reads":[{"epc":'
        b'"3034257BF400B800000000C8","sku":"","serial":"","rssi":"-62","ts":"1716900123456"}]}',
        [("3034257BF400B800000000C8", None, -6200, 1716900123456000, 1, -1)],
    ),
}
