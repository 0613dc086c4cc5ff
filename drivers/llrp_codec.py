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
never comes here: see llrp_decoder.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sllurp.llrp import LLRPMessage
from sllurp.llrp_proto import Message_struct

MESSAGE_BYTES_MAX = 4 << 20
"""Longest message believed; readers send a few hundred reports, some tens of KiB, at once."""
HEADER_BYTES = 10
RO_ACCESS_REPORT = 61

_HEADER = struct.Struct("!HII")


# What sllurp logs it also raises, or it is of no interest to store IT.
logging.getLogger("sllurp").setLevel(logging.CRITICAL)

_CONFIG_REQUEST = struct.Struct("!HBHH")


def _encode_get_reader_config(fields: Mapping[str, Any], _info: Mapping[str, Any]) -> bytes:
    return _CONFIG_REQUEST.pack(0, fields["RequestedData"], 0, 0)


# sllurp 3.0.5 puts RequestedData before AntennaID; 17.1.17 has it behind.
Message_struct["GET_READER_CONFIG"]["encode"] = _encode_get_reader_config


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


def rospec(rospec_id: int, ports: Sequence[int], tags_a_report: int) -> dict[str, Any]:
    """The inventory: these antenna ports without end, the reader's own power and mode, a report every few tags.

    The AISpec has no stop trigger: a reader stops and restarts its radio at each. It is started by START_ROSPEC.
    """
    return {
        "ROSpecID": rospec_id,
        "Priority": 0,
        "CurrentState": "Disabled",
        "ROBoundarySpec": {
            "ROSpecStartTrigger": {"ROSpecStartTriggerType": "Null"},
            "ROSpecStopTrigger": {"ROSpecStopTriggerType": "Null", "DurationTriggerValue": 0},
        },
        "AISpec": [
            {
                "AntennaID": list(ports),
                "AISpecStopTrigger": {"AISpecStopTriggerType": "Null", "DurationTriggerValue": 0},
                "InventoryParameterSpec": [{"InventoryParameterSpecID": 1, "ProtocolID": 1}],
            }
        ],
        "ROReportSpec": {
            "ROReportTrigger": "Upon_N_Tags_Or_End_Of_AISpec",
            "N": tags_a_report,
            "TagReportContentSelector": {
                "EnableAntennaID": True,
                "EnablePeakRSSI": True,
                "EnableFirstSeenTimestamp": True,
                "EnableLastSeenTimestamp": True,
                "EnableTagSeenCount": True,
            },
        },
    }
