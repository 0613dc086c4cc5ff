"""Encode thousands of TagReportData a second: llrpkit's codec encodes a tag's first report, later ones are patched."""

from __future__ import annotations

import struct

from llrpkit.protocol import BitStr, enums, params

from simulators.readers.observation import RSSI_UNKNOWN, Observation

BODY_MAX = 32 << 10
"""Maximum bytes of tag reports in one message."""
_RSSI_NONE_DBM = -128
# Values that stand in the model report where an observation's own go; no other byte of its tail is one of these.
_PORT, _COUNT, _FIRST, _LAST, _RSSI = 0xB1B2, 0xB3B4, 0xB5 << 48 | 0xB6, 0xB7 << 48 | 0xB8, 0x3B


class ReportEncoder:
    """Encoder of reports for one ROReportSpec; `ro_spec_id` is included on request, `uptime`: times of a reader without
    UTC."""

    def __init__(self, spec: params.ROReportSpec, ro_spec_id: int = 0, *, uptime: bool = False) -> None:
        self.spec = spec
        on = spec.tag_report_content_selector
        self._model = params.TagReportData(
            epc_parameter=params.EPC_96(epc=bytes(12)),
            ro_spec_id=params.ROSpecID(ro_spec_id=ro_spec_id) if on.enable_ro_spec_id else None,
            spec_index=params.SpecIndex(spec_index=1) if on.enable_spec_index else None,
            inventory_parameter_spec_id=params.InventoryParameterSpecID(inventory_parameter_spec_id=1)
            if on.enable_inventory_parameter_spec_id
            else None,
            antenna_id=params.AntennaID(antenna_id=_PORT) if on.enable_antenna_id else None,
            peak_rssi=params.PeakRSSI(peak_rssi=_RSSI) if on.enable_peak_rssi else None,
            channel_index=params.ChannelIndex(channel_index=1) if on.enable_channel_index else None,
            tag_seen_count=params.TagSeenCount(tag_count=_COUNT) if on.enable_tag_seen_count else None,
            access_spec_id=params.AccessSpecID(access_spec_id=0) if on.enable_access_spec_id else None,
        )
        if on.enable_first_seen_timestamp and uptime:
            self._model.first_seen_timestamp_uptime = params.FirstSeenTimestampUptime(microseconds=_FIRST)
        elif on.enable_first_seen_timestamp:
            self._model.first_seen_timestamp_utc = params.FirstSeenTimestampUTC(microseconds=_FIRST)
        if on.enable_last_seen_timestamp and uptime:
            self._model.last_seen_timestamp_uptime = params.LastSeenTimestampUptime(microseconds=_LAST)
        elif on.enable_last_seen_timestamp:
            self._model.last_seen_timestamp_utc = params.LastSeenTimestampUTC(microseconds=_LAST)
        tail = self._tail(self._model)
        self._port = _place(tail, _PORT.to_bytes(2, "big"))
        self._rssi = _place(tail, bytes([_RSSI]))
        self._first = _place(tail, _FIRST.to_bytes(8, "big"))
        self._last = _place(tail, _LAST.to_bytes(8, "big"))
        self._count = _place(tail, _COUNT.to_bytes(2, "big"))
        self._cache: dict[bytes, bytes] = {}
        self._tail_bytes = len(tail)
        self.per_message = max(1, min(self.every or 0xFFFF, BODY_MAX // (20 + len(tail))))

    @property
    def every(self) -> int:
        """N of the report trigger: a report goes out when so many tags have been heard; 0: only at an end."""
        return self.spec.n if self.spec.ro_report_trigger else 0

    @property
    def at_end_of_ai_spec(self) -> bool:
        """True if the end of an AISpec sends pending reports."""
        return bool(self.spec.ro_report_trigger == enums.ROReportTriggerType.Upon_N_Tags_Or_End_Of_AISpec)

    def encode(self, observation: Observation) -> bytes:
        """Encode one TagReportData parameter."""
        report = bytearray(self._cache.get(observation.epc) or self._template(observation.epc))
        start = len(report) - self._tail_bytes
        if self._port is not None:
            struct.pack_into(">H", report, start + self._port, observation.port)
        if self._rssi is not None:
            known = observation.rssi_cdbm != RSSI_UNKNOWN
            dbm = max(-127, min(127, round(observation.rssi_cdbm / 100))) if known else _RSSI_NONE_DBM
            struct.pack_into(">b", report, start + self._rssi, dbm)
        if self._first is not None:
            struct.pack_into(">Q", report, start + self._first, observation.time_us)
        if self._last is not None:
            struct.pack_into(">Q", report, start + self._last, observation.time_us)
        if self._count is not None:
            struct.pack_into(">H", report, start + self._count, min(observation.count, 0xFFFF))
        return bytes(report)

    def _template(self, epc: bytes) -> bytes:
        self._model.epc_parameter = (
            params.EPC_96(epc=epc) if len(epc) == 12 else params.EPCData(epc=BitStr.from_bytes(epc))
        )
        if len(self._cache) >= 100_000:
            self._cache.clear()
        encoded = bytes(self._model.encode())
        self._cache[epc] = encoded
        return encoded

    @staticmethod
    def _tail(report: params.TagReportData) -> bytes:
        return bytes(report.encode())[4 + len(report.epc_parameter.encode()) :]


def _place(tail: bytes, value: bytes) -> int | None:
    at = tail.find(value)
    return at if at >= 0 else None
