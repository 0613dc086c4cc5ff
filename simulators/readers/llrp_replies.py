"""Answers of the simulated LLRP reader about itself: capabilities, configuration, statuses."""

from __future__ import annotations

from hashlib import blake2b

from llrpkit.protocol import enums, messages, params

MANUFACTURER_PEN = 32473
"""Enterprise number reserved for examples (RFC 5612): no client may take this reader for a known make."""
CAPTURED_IDENTITIES = (bytes.fromhex("001625FFFF1125D6"), bytes.fromhex("84248DFFFFFCC3E9"))
"""Identities of real readers: an Impinj Speedway (EdgeX device-rfid-llrp-go, GetReaderConfigResponse-000) and a Zebra
FX7500 (its host name fx7500fcc3e9). A MAC becomes an EUI-64 with FFFF in its middle, not with the FFFE of IEEE."""
ROSPECS_MAX = 1
GPIO_PORTS = 4
"""Number of inputs, and of outputs."""
_POWERS_CDBM = range(1000, 3001, 25)
_MODES = ((0, 0, 2, 640_000), (1, 1, 2, 640_000), (2, 2, 3, 274_000), (3, 3, 3, 170_600), (4, 2, 2, 640_000))
"""Number, M, spectral mask and backscatter rate. Powers and modes are those of a captured Impinj Speedway R420 (EdgeX
device-rfid-llrp-go, GetReaderCapabilitiesResponse-000)."""
_WANTED = enums.GetReaderConfigRequestedData


def status(code: int = 0, description: str = "") -> params.LLRPStatus:
    """Return an LLRPStatus, success unless `code` says otherwise."""
    return params.LLRPStatus(status_code=code, error_description=description)


def default_report_spec() -> params.ROReportSpec:
    """Return the factory setting: a report for every tag, with all optional content."""
    return params.ROReportSpec(
        ro_report_trigger=enums.ROReportTriggerType.Upon_N_Tags_Or_End_Of_ROSpec,
        n=1,
        tag_report_content_selector=params.TagReportContentSelector(
            enable_antenna_id=True,
            enable_peak_rssi=True,
            enable_first_seen_timestamp=True,
            enable_last_seen_timestamp=True,
            enable_tag_seen_count=True,
        ),
    )


def identity(name: str) -> bytes:
    """Return an identity for a name: maker and form of a captured one, with its own device part."""
    device = blake2b(name.encode(), digest_size=4).digest()
    return CAPTURED_IDENTITIES[device[0] % len(CAPTURED_IDENTITIES)][:5] + device[1:]


def capabilities(
    wanted: int, ports: int, holds: bool, uptime: bool = False, maker: int = MANUFACTURER_PEN
) -> messages.GET_READER_CAPABILITIES_RESPONSE:
    """Return the requested part of the capabilities (0: all)."""
    reply = messages.GET_READER_CAPABILITIES_RESPONSE(llrp_status=status())
    if wanted in (0, 1):
        reply.general_device_capabilities = _general(ports, uptime, maker)
    if wanted in (0, 2):
        reply.llrp_capabilities = params.LLRPCapabilities(
            can_report_buffer_fill_warning=True,
            supports_event_and_report_holding=holds,
            max_num_priority_levels_supported=1,
            max_num_ro_specs=ROSPECS_MAX,
            max_num_specs_per_ro_spec=4,
            max_num_inventory_parameter_specs_per_ai_spec=1,
        )
    if wanted in (0, 3):
        reply.regulatory_capabilities = _regulatory()
    if wanted in (0, 4):
        reply.air_protocol_llrp_capabilities = params.C1G2LLRPCapabilities(max_num_select_filters_per_query=2)
    return reply


def configuration(
    wanted: int, identity: bytes, ports: int, reports: params.ROReportSpec, hold: bool, state_value: int
) -> messages.GET_READER_CONFIG_RESPONSE:
    """Return the requested part of the configuration (0: all)."""
    reply = messages.GET_READER_CONFIG_RESPONSE(llrp_status=status())
    if wanted in (_WANTED.All, _WANTED.Identification):
        reply.identification = params.Identification(id_type=0, reader_id=identity)
    if wanted in (_WANTED.All, _WANTED.AntennaProperties):
        reply.antenna_properties = [
            params.AntennaProperties(antenna_connected=True, antenna_id=port, antenna_gain=600)
            for port in range(1, ports + 1)
        ]
    if wanted in (_WANTED.All, _WANTED.ROReportSpec):
        reply.ro_report_spec = reports
    if wanted in (_WANTED.All, _WANTED.LLRPConfigurationStateValue):
        reply.llrp_configuration_state_value = params.LLRPConfigurationStateValue(
            llrp_configuration_state_value=state_value
        )
    if wanted in (_WANTED.All, _WANTED.EventsAndReports):
        reply.events_and_reports = params.EventsAndReports(hold_events_and_reports_upon_reconnect=hold)
    return reply


def _general(ports: int, uptime: bool, maker: int) -> params.GeneralDeviceCapabilities:
    return params.GeneralDeviceCapabilities(
        max_number_of_antenna_supported=ports,
        has_utc_clock_capability=not uptime,
        device_manufacturer_name=maker,
        model_name=4,
        reader_firmware_version="simulated 1.0",
        receive_sensitivity_table_entrys=[params.ReceiveSensitivityTableEntry(index=1, receive_sensitivity_value=0)],
        gpio_capabilities=params.GPIOCapabilities(num_gp_is=GPIO_PORTS, num_gp_os=GPIO_PORTS),
        per_antenna_air_protocols=[
            params.PerAntennaAirProtocol(antenna_id=port, protocol_id=bytes([enums.AirProtocols.EPCGlobalClass1Gen2]))
            for port in range(1, ports + 1)
        ],
    )


def _regulatory() -> params.RegulatoryCapabilities:
    """A Chinese reader: 920.625 to 924.375 MHz in 16 channels."""
    modes = [
        params.C1G2UHFRFModeTableEntry(
            mode_identifier=number,
            dr_value=True,
            m_value=miller,
            spectral_mask_indicator=mask,
            bdr_value=rate,
            pie_value=1500 if rate == 640_000 else 2000,
            min_tari_value=6250 if rate == 640_000 else 20_000,
            max_tari_value=6250 if rate == 640_000 else 20_000,
        )
        for number, miller, mask, rate in _MODES
    ]
    hops = params.FrequencyHopTable(hop_table_id=1, frequency=[920_625 + 250 * i for i in range(16)])
    return params.RegulatoryCapabilities(
        country_code=156,
        communications_standard=0,
        uhf_band_capabilities=params.UHFBandCapabilities(
            transmit_power_level_table_entrys=[
                params.TransmitPowerLevelTableEntry(index=i, transmit_power_value=power)
                for i, power in enumerate(_POWERS_CDBM, 1)
            ],
            frequency_information=params.FrequencyInformation(hopping=True, frequency_hop_tables=[hops]),
            air_protocol_uhfrf_mode_tables=[params.C1G2UHFRFModeTable(c1_g2_uhfrf_mode_table_entrys=modes)],
        ),
    )
