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
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sllurp.llrp import LLRPMessage
from sllurp.llrp_proto import Message_struct, Message_Type2Name, Param_struct, Param_Type2Name, decode_param

MESSAGE_BYTES_MAX = 4 << 20
"""Longest message believed; readers send a few hundred reports, some tens of KiB, at once."""
HEADER_BYTES = 10
RO_ACCESS_REPORT = 61

_HEADER = struct.Struct("!HII")


# What sllurp logs it also raises, or it is of no interest to store IT.
logging.getLogger("sllurp").setLevel(logging.CRITICAL)

_CONFIG_REQUEST = struct.Struct("!HBHH")
_TLV = struct.Struct("!HH")
_MASK = struct.Struct("!BHH")
_OUTPUT = struct.Struct("!HB")
_ROSPEC, _ROSPEC_HEAD = 177, struct.Struct("!IBB")


def _encode_get_reader_config(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return _CONFIG_REQUEST.pack(0, fields["RequestedData"], 0, 0)


# sllurp 3.0.5 puts RequestedData before AntennaID; 17.1.17 has it behind.
Message_struct["GET_READER_CONFIG"]["encode"] = _encode_get_reader_config


def _encode_nothing(_fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return b""


def _encode_hold(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return bytes([fields["HoldEventsAndReportsUponReconnect"] << 7])


def _decode_rospecs(body: bytes, _name: str) -> dict[str, Any]:
    """ROSpecs by their first three fields (17.2.4.1): what else is in them a reader may have put in other words."""
    fields: dict[str, Any] = {"ROSpec": []}
    while body:
        kind, length = _TLV.unpack_from(body)
        if length < 4 or length > len(body):
            raise ValueError(f"a parameter of {length} bytes where {len(body)} are left")
        if kind & 0x3FF == _ROSPEC:
            rospec_id, _priority, state = _ROSPEC_HEAD.unpack_from(body, 4)
            fields["ROSpec"].append({"ROSpecID": rospec_id, "CurrentState": state})
        else:
            name, value, _ = decode_param(body[:length])
            fields.setdefault(name, value)
        body = body[length:]
    return fields


# What sllurp lacks: GET_ROSPECS (17.1.13), GET_REPORT (17.1.27), an encoder of EventsAndReports (17.2.6.10).
for _name, _type, _way in (
    ("GET_ROSPECS", 26, {"encode": _encode_nothing}),
    ("GET_ROSPECS_RESPONSE", 36, {"decode": _decode_rospecs}),
    ("GET_REPORT", 60, {"encode": _encode_nothing}),
):
    Message_struct[_name] = {"type": _type, "fields": [], "o_fields": [], "n_fields": [], "auto_fields": [], **_way}
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
    """The bytes can't be the start of an LLRP message: the stream is lost. The text says why."""


class Malformed(Exception):
    """A message whose header is sound and whose inside is not: only this message is lost."""


@dataclass(frozen=True)
class Header:
    """First ten bytes of a message; `length` counts them too."""

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
    """The header at `start`, None while fewer than ten bytes stand there; NotLlrp if it can't be one."""
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
    """A version 1 message, which every reader understands; fields are named as in sllurp's tables."""
    message: bytes = LLRPMessage(msgdict={name: {"Ver": 1, "ID": message_id, **fields}}).msgbytes
    return message


def decode(message: bytes) -> Message:
    """Decode one whole control message; Malformed if sllurp can't."""
    try:
        decoded = LLRPMessage(msgbytes=message)
    except Exception as error:  # sllurp lets out whatever its parts raise: struct.error, RecursionError …
        raise Malformed(f"type {_HEADER.unpack_from(message)[0] & 0x3FF}: {error}") from error
    fields = decoded.msgdict[decoded.msgname]
    return Message(decoded.msgname, fields["ID"], fields)


def refusal(message: Message) -> str | None:
    """None if the answer's LLRPStatus is success, else what the reader says (17.2.8.1), for a person to read."""
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
    """The Identification in a GET_READER_CONFIG_RESPONSE (17.2.6.2): MAC as EUI-64, or EPC, in capital hex digits."""
    identity = _table(config.fields.get("Identification")).get("ReaderID", b"")
    return eui64(bytes(identity).decode("ascii").upper()) or None


@dataclass(frozen=True)
class Capabilities:
    """What a reader can do, and who made it (17.2.3); what it does not tell counts as not there."""

    maker: int = 0
    """Private Enterprise Number."""
    model: int = 0
    firmware: str = ""
    antennas: int = 0
    can_hold: bool = False
    can_warn: bool = False
    select_filters: int = 0


def capabilities_of(answer: Message) -> Capabilities:
    """Of a GET_READER_CAPABILITIES_RESPONSE."""
    general = _table(answer.fields.get("GeneralDeviceCapabilities"))
    llrp = _table(answer.fields.get("LLRPCapabilities"))
    gen2 = _table(answer.fields.get("C1G2LLRPCapabilities"))
    return Capabilities(
        maker=general.get("DeviceManufacturerName", 0),
        model=general.get("ModelName", 0),
        firmware=bytes(general.get("ReaderFirmwareVersion", b"")).decode("utf-8", "replace"),
        antennas=general.get("MaxNumberOfAntennaSupported", 0),
        can_hold=llrp.get("SupportsEventAndReportHolding", False),
        can_warn=llrp.get("CanReportBufferFillWarning", False),
        select_filters=gen2.get("MaxNumSelectFiltersPerQuery", 0),
    )


def event_of(notification: Message) -> Mapping[str, Any]:
    """The ReaderEventNotificationData of a READER_EVENT_NOTIFICATION: parts that could be decoded, each a table."""
    event = _table(notification.fields.get("ReaderEventNotificationData"))
    return {name: part for name, part in event.items() if isinstance(part, Mapping) and "DecodeError" not in part}


def _table(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}


def eui64(digits: str) -> str:
    """A MAC of 48 bits as readers tell it: FFFE between the maker's half and the device's; others as they are."""
    return f"{digits[:6]}FFFE{digits[6:]}" if len(digits) == 12 else digits
