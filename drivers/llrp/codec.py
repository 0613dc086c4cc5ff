"""LLRP framing and control messages, without I/O: bytes in, messages and their lengths out.

    0               1               2               3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-----+-----+-------------------+-------------------------------+
   | Rsv | Ver |   message type    |  message length, these ten …  |
   +-----+-----+-------------------+-------------------------------+
   | … bytes included              |          message id …         |
   +-------------------------------+-------------------------------+
   |                               |   parameters …                |
   +-------------------------------+-------------------------------+          LLRP 1.1, section 17.1; big-endian

Requests are encoded and answers decoded by the message tables of sllurp, whose client is not used. RO_ACCESS_REPORT
never comes here: see decoder.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sllurp.llrp import LLRPMessage
from sllurp.llrp_proto import (
    Error_Type2Name,
    Message_struct,
    Message_Type2Name,
    Param_struct,
    Param_Type2Name,
    decode_param,
)

MESSAGE_BYTES_MAX = 4 << 20
"""Longest message accepted; readers send a few hundred reports, some tens of KiB, at once."""
HEADER_BYTES = 10
RO_ACCESS_REPORT = 61

_HEADER = struct.Struct("!HII")
_SHOWN_BYTES = 16

log = logging.getLogger("tagtrail.drivers")

# What sllurp logs it also raises, or it is of no interest to store IT.
logging.getLogger("sllurp").setLevel(logging.CRITICAL)

_CONFIG_REQUEST = struct.Struct("!HBHH")
_TLV = struct.Struct("!HH")
_MASK = struct.Struct("!BHH")
_OUTPUT = struct.Struct("!HB")
_ROSPEC_HEAD = struct.Struct("!IBB")
_GENERAL_HEAD = struct.Struct("!HHIIH")
_LLRP_HEAD = struct.Struct("!B3xII")
_POWER = struct.Struct("!Hh")
_MODE = struct.Struct("!IxB2xI")
_REGULATORY_HEAD_BYTES = 4
_BAND, _POWER_ENTRY, _FREQUENCIES, _HOP_TABLE, _MODES, _MODE_ENTRY = 144, 145, 146, 147, 328, 329
_C1G2_HEAD = struct.Struct("!xH")
_VENDOR = struct.Struct("!IB")
_CUSTOM_MESSAGE = 1023
_EVENTS = 246
_TV = 1 << 15
"""Flag in the first two bytes of a parameter without length (17.2)."""


def _encode_get_reader_config(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return _CONFIG_REQUEST.pack(0, fields["RequestedData"], 0, 0)


# sllurp 3.0.5 puts RequestedData before AntennaID; 17.1.17 has it behind.
Message_struct["GET_READER_CONFIG"]["encode"] = _encode_get_reader_config


def _encode_nothing(_fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return b""


def _encode_hold(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return bytes([fields["HoldEventsAndReportsUponReconnect"] << 7])


def _decode_rospec(body: bytes, _name: str) -> tuple[dict[str, Any], str]:
    rospec_id, _priority, state = _ROSPEC_HEAD.unpack_from(body)
    return {"ROSpecID": rospec_id, "CurrentState": state}, ""


def _decode_general(body: bytes, _name: str) -> tuple[dict[str, Any], str]:
    antennas, _flags, maker, model, size = _GENERAL_HEAD.unpack_from(body)
    firmware = body[_GENERAL_HEAD.size : _GENERAL_HEAD.size + size]
    return {"Antennas": antennas, "Maker": maker, "Model": model, "Firmware": firmware}, ""


def _decode_llrp_capabilities(body: bytes, _name: str) -> tuple[dict[str, Any], str]:
    flags, rospecs, specs = _LLRP_HEAD.unpack_from(body)
    return {"CanWarn": bool(flags & 0x40), "CanHold": bool(flags & 0x08), "ROSpecs": rospecs, "Specs": specs}, ""


def _decode_c1g2_capabilities(body: bytes, _name: str) -> tuple[dict[str, Any], str]:
    (filters,) = _C1G2_HEAD.unpack_from(body)
    return {"SelectFilters": filters}, ""


def _decode_regulatory(body: bytes, _name: str) -> tuple[dict[str, Any], str]:
    """Read the tables of powers and modes, and the first hop table (17.2.3.4)."""
    powers: dict[int, int] = {}
    modes: dict[int, int] = {}
    hopping, table = False, 0
    for band in _inside(body[_REGULATORY_HEAD_BYTES:], _BAND):
        for kind, entry in _parts(band):
            if kind == _POWER_ENTRY and len(entry) >= _POWER.size:
                index, power = _POWER.unpack_from(entry)
                powers.setdefault(index, power)
            elif kind == _FREQUENCIES and entry:
                hopping = bool(entry[0] & 0x80)
                table = next((each[0] for each in _inside(entry[1:], _HOP_TABLE) if each), 0)
            elif kind == _MODES:
                for each in _inside(entry, _MODE_ENTRY):
                    if len(each) >= _MODE.size:
                        number, miller, rate = _MODE.unpack_from(each)
                        modes.setdefault(number, rate >> (miller & 3))
    return {"Powers": powers, "Modes": modes, "Hopping": hopping, "HopTable": table}, ""


def _parts(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over type and content of the parameters of a body."""
    for parameter in parameters(body):
        yield _TLV.unpack_from(parameter)[0] & 0x3FF, parameter[_TLV.size :]


def _inside(body: bytes, wanted: int) -> Iterator[bytes]:
    return (content for kind, content in _parts(body) if kind == wanted)


def _decode_status(body: bytes, _name: str) -> tuple[dict[str, Any], str]:
    code, size = _TLV.unpack_from(body)
    text, more = body[_TLV.size : _TLV.size + size], _fields(body[_TLV.size + size :], ())
    return {"StatusCode": Error_Type2Name.get(code, f"status {code}"), "ErrorDescription": text, **more}, ""


# Of these only the first fields (17.2.8.1, 17.2.4.1, 17.2.3.1, 17.2.3.2, 17.3.1.1.2) or some tables are needed, and
# readers differ in what follows: an odd byte there must keep no reader out.
for _name, _decoder in (
    ("LLRPStatus", _decode_status),
    ("ROSpec", _decode_rospec),
    ("GeneralDeviceCapabilities", _decode_general),
    ("LLRPCapabilities", _decode_llrp_capabilities),
    ("RegulatoryCapabilities", _decode_regulatory),
    ("C1G2LLRPCapabilities", _decode_c1g2_capabilities),
):
    Param_struct[_name]["decode"] = _decoder


# What sllurp lacks: GET_ROSPECS (17.1.13), GET_REPORT (17.1.27), an encoder of EventsAndReports (17.2.6.10).
for _name, _type, _many in (("GET_ROSPECS", 26, []), ("GET_ROSPECS_RESPONSE", 36, ["ROSpec"]), ("GET_REPORT", 60, [])):
    Message_struct[_name] = {"type": _type, "fields": [], "o_fields": [], "n_fields": _many, "auto_fields": []}
    Message_struct[_name]["encode"] = _encode_nothing
    Message_Type2Name[_type, 0, 0] = _name
Param_struct["EventsAndReports"]["encode"] = _encode_hold


def _encode_output(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return _OUTPUT.pack(fields["GPOPortNumber"], fields["GPOData"] << 7)


# It reads GPOWriteData (17.2.6.3) and can't write it, and takes GPITriggerValue (181) for PeriodicTriggerValue (180).
Param_struct["GPOWriteData"]["encode"] = _encode_output
Param_struct["GPITriggerValue"]["type"] = 181
for _name, _type in (("PeriodicTriggerValue", 180), ("GPITriggerValue", 181)):
    Param_Type2Name[_type, 0, 0] = _name


def _encode_mask(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    mask: bytes = fields["TagMask"]
    return _MASK.pack(fields["MB"] << 6, fields["Pointer"], fields["MaskBitCount"]) + mask


def _encode_action(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return bytes([fields["Action"]])


# sllurp's masks are whole hex digits; a company prefix (17.3.1.2.1.1.1) rarely ends with one. It lacks the action.
Param_struct["C1G2TagInventoryMask"]["encode"] = _encode_mask
Param_struct["C1G2TagInventoryStateUnawareFilterAction"] = {"type": 334, "encode": _encode_action}


ROSPEC_DISABLED, ROSPEC_INACTIVE, ROSPEC_ACTIVE = 0, 1, 2
"""CurrentState of a ROSpec (17.2.4.1) in a GET_ROSPECS_RESPONSE."""


class NotLlrp(Exception):
    """Bytes that can't be the start of an LLRP message: the stream is lost. The text says why."""


class Malformed(Exception):
    """Message of an unknown type: only this message is lost."""


@dataclass(frozen=True)
class Header:
    """First ten bytes of a message; `length` includes them."""

    type: int
    version: int
    length: int
    id: int


@dataclass(frozen=True)
class Message:
    """A control message: sllurp's name of its type, and its fields as sllurp nests them."""

    name: str
    id: int
    fields: Mapping[str, Any]


def header_at(stream: bytes | memoryview, start: int, end: int) -> Header | None:
    """Read the header at `start`; None with fewer than ten bytes, NotLlrp if it can't be one."""
    if end - start < HEADER_BYTES:
        return None
    first, length, message_id = _HEADER.unpack_from(stream, start)
    version = first >> 10 & 7
    if first >> 13:
        raise NotLlrp("bits are set that LLRP leaves free")  # as in the first byte of Chainway's own protocol
    if not 1 <= version <= 3:
        raise NotLlrp(f"LLRP has no version {version}")
    if not HEADER_BYTES <= length <= MESSAGE_BYTES_MAX:
        raise NotLlrp(f"a message can't be {length} bytes long")
    return Header(first & 0x3FF, version, length, message_id)


def encode(name: str, message_id: int, **fields: Any) -> bytes:
    """Encode a version 1 message, which every reader understands; fields have the names of sllurp's tables."""
    message: bytes = LLRPMessage(msgdict={name: {"Ver": 1, "ID": message_id, **fields}}).msgbytes
    return message


def decode(message: bytes) -> Message:
    """Decode one whole control message; Malformed if its type is unknown. Parameters that can't be decoded are skipped
    by their lengths: most of them are of no interest here.
    """
    first, _, message_id = _HEADER.unpack_from(message)
    kind, at, maker = first & 0x3FF, HEADER_BYTES, (0, 0)
    if kind == _CUSTOM_MESSAGE and len(message) >= at + _VENDOR.size:
        maker, at = _VENDOR.unpack_from(message, at), at + _VENDOR.size
    name = Message_Type2Name.get((kind, *maker))
    if name is None:
        raise Malformed(f"nothing is known of messages of type {kind}")
    return Message(name, message_id, _fields(message[at:], Message_struct[name].get("n_fields", ())))


def parameters(body: bytes) -> Iterator[bytes]:
    """Iterate over the parameters of a body; ends where none can begin. Padding is skipped."""
    at = 0
    while len(body) - at >= _TLV.size:
        kind, length = _TLV.unpack_from(body, at)
        if kind == 0:
            at += 1
        elif kind & _TV or not _TLV.size <= length <= len(body) - at:
            return
        else:
            yield body[at : at + length]
            at += length


def _fields(body: bytes, many: Collection[str]) -> dict[str, Any]:
    """Decode what can be read of a body, by sllurp's names; `many`: parameters that may occur several times."""
    fields: dict[str, Any] = {}
    for parameter in parameters(body):
        if _TLV.unpack_from(parameter)[0] & 0x3FF == _EVENTS:
            name, value = "ReaderEventNotificationData", _fields(parameter[_TLV.size :], ())
        else:
            try:
                name, value, _ = decode_param(parameter)
            except Exception as error:  # sllurp lets out whatever its parts raise: struct.error, RecursionError …
                log.debug("parameter skipped: %s: %s", parameter[:_SHOWN_BYTES].hex(), error)
                continue
        if name in many:
            fields.setdefault(name, []).append(value)
        elif name:
            fields.setdefault(name, value)
    return fields


def refusal(message: Message) -> str | None:
    """Return None if the response's LLRPStatus is success, else the reader's error (17.2.8.1) as readable text."""
    status = message.fields.get("LLRPStatus")
    if not isinstance(status, Mapping):
        return "an answer without LLRPStatus"
    if status.get("StatusCode") == "Success":
        return None
    parts = [str(status.get("StatusCode", "unknown status"))]
    text = bytes(status.get("ErrorDescription", b"")).decode("utf-8", "replace").strip("\0 ")
    if text:
        parts.append(text)
    parts.extend(_where(status))
    return ": ".join(parts)


def _where(status: Mapping[str, Any]) -> list[str]:
    parts = []
    if isinstance(error := status.get("ParameterError"), Mapping):
        parts.append(f"parameter {error.get('ParameterType')} {error.get('ErrorCode')}")
        parts.extend(_where(error))
    if isinstance(error := status.get("FieldError"), Mapping):
        parts.append(f"field {error.get('FieldNum')} {error.get('ErrorCode')}")
    return parts


def identity_of(config: Message) -> str | None:
    """Return MAC or EPC from a GET_READER_CONFIG_RESPONSE (Identification, 17.2.6.2), in capital hex digits."""
    identity = _table(config.fields.get("Identification")).get("ReaderID", b"")
    return bytes(identity).decode("ascii").upper() or None


def plain(identity: str) -> str:
    """Normalise an identity for comparison: a MAC becomes its 12 digits, in whatever form it is given. Readers report
    the MAC itself or eight bytes: Impinj and Zebra with FFFF in the middle, others with IEEE's FFFE or zeros in front.
    """
    digits = re.sub("[^0-9A-F]", "", identity.upper())
    if len(digits) == 16 and digits[6:10] in ("FFFF", "FFFE"):
        return digits[:6] + digits[10:]
    return digits[4:] if len(digits) == 16 and digits.startswith("0000") else digits


def shown(identity: str | None) -> str:
    """Format an identity for people: as reported, and as the MAC that is printed on the label."""
    if identity is None:
        return "one that does not tell its identity"
    digits, mac = re.sub("[:-]", "", identity), plain(identity)
    label = ":".join(re.findall("..", mac))
    return identity if len(mac) != 12 else label if len(digits) == 12 else f"{identity.upper()} (MAC {label})"


@dataclass(frozen=True)
class Capabilities:
    """Capabilities and maker of a reader (17.2.3); what it doesn't report counts as absent."""

    maker: int = 0
    """Private Enterprise Number."""
    model: int = 0
    firmware: str = ""
    antennas: int = 0
    can_hold: bool = False
    can_warn: bool = False
    rospecs: int = 0
    """Maximum number of ROSpecs; 0: no limit."""
    specs_a_rospec: int = 0
    """Maximum number of AISpecs in a ROSpec; 0: no limit."""
    select_filters: int = 0
    powers: Mapping[int, int] = field(default_factory=dict)
    """Powers in 0.01 dBm by their index; empty if the reader has no table."""
    modes: Mapping[int, int] = field(default_factory=dict)
    """Bits a second from the tag, by the numbers of its modes."""
    hop_table: int = 0
    """First hop table; 0 for a reader that doesn't hop."""


def capabilities_of(answer: Message) -> Capabilities:
    """Extract the capabilities from a GET_READER_CAPABILITIES_RESPONSE."""
    general = _table(answer.fields.get("GeneralDeviceCapabilities"))
    llrp = _table(answer.fields.get("LLRPCapabilities"))
    gen2 = _table(answer.fields.get("C1G2LLRPCapabilities"))
    radio = _table(answer.fields.get("RegulatoryCapabilities"))
    return Capabilities(
        maker=general.get("Maker", 0),
        model=general.get("Model", 0),
        firmware=bytes(general.get("Firmware", b"")).decode("utf-8", "replace"),
        antennas=general.get("Antennas", 0),
        can_hold=llrp.get("CanHold", False),
        can_warn=llrp.get("CanWarn", False),
        rospecs=llrp.get("ROSpecs", 0),
        specs_a_rospec=llrp.get("Specs", 0),
        select_filters=gen2.get("SelectFilters", 0),
        powers=radio.get("Powers", {}),
        modes=radio.get("Modes", {}),
        hop_table=radio.get("HopTable", 0) if radio.get("Hopping") else 0,
    )


def event_of(notification: Message) -> Mapping[str, Any]:
    """Return the ReaderEventNotificationData of a READER_EVENT_NOTIFICATION: the parameters that could be decoded, each
    a dict."""
    event = _table(notification.fields.get("ReaderEventNotificationData"))
    return {name: part for name, part in event.items() if isinstance(part, Mapping) and "DecodeError" not in part}


def _table(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}
