"""Serial readers that answer with what real ones have sent: tag frames, and where public logs have them also the rest.

Where a frame comes from is said in drivers/serial/test_captured.py. Answers that nobody has published are made by the
documents, and are marked so. Of Nordic ID no answer of a real reader is public.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from drivers.serial import chafon_cf_codec as cf
from drivers.serial import hopeland_codec as hopeland
from drivers.serial import r2000_codec as r2000
from drivers.serial import thingmagic_codec as tm
from simulators.readers.observation import Observation
from simulators.readers.streaming_families import hopeland_tag
from simulators.readers.thingmagic import reply

Answer = Callable[[bytes], bytes]
"""What is answered to bytes of the host."""


class Captured(NamedTuple):
    """Reader with captured bytes: its family, ports that the store file may list, and a tag with its port."""

    driver: str
    ports: tuple[int, ...]
    epc: str
    port: int
    answer: Answer


def by_beginning(answers: dict[str, str]) -> Answer:
    """Answer each command that contains one of the keys; both in hex."""

    def answer(command: bytes) -> bytes:
        asked = command.hex().upper()
        return b"".join(bytes.fromhex(told) for begins, told in answers.items() if begins in asked)

    return answer


def by_line(answers: dict[str, str]) -> Answer:
    """Answer the first key that a line begins with."""

    def answer(command: bytes) -> bytes:
        said = command.decode("latin-1").splitlines()
        told = (next((text for begins, text in answers.items() if line.startswith(begins)), "") for line in said)
        return "".join(told).encode("latin-1")

    return answer


THINGMAGIC_VERSION = "FF1403000015010400A1000201202007032007030000000010DEE7"
THINGMAGIC_TAG = "FF2822000010001B01FF0101C4110E16400000012700000500000F00803000000000000000000000001545E94A561D"


def _thingmagic(command: bytes) -> bytes:
    if len(command) < 5:
        return b""
    op, starts = command[2], len(command) > 12
    if op == tm.OP_VERSION:
        return bytes.fromhex(THINGMAGIC_VERSION)
    told = {tm.OP_GET_REGION: b"\x06", tm.OP_CONTINUOUS: b"\x01" if starts else b"\x02"}  # by the document
    streamed = bytes.fromhex(THINGMAGIC_TAG) if op == tm.OP_CONTINUOUS and starts else b""
    return reply(op, data=told.get(op, b"")) + streamed


def _chafon(command: bytes) -> bytes:
    number = int.from_bytes(command[2:4])
    if number == cf.INVENTORY:
        return bytes.fromhex("CF0000011200FD8A01000CE280691500004020ED9648B35057" + "CF0000010112421D")
    return cf.encode(0, number, b"\0CP-202910\0" if number == cf.DEVICE else b"\0")  # by the document


def _banks(command: bytes) -> bytes:
    """A maker's program selects banks so; that the board accepts it is by the document only."""
    number = command[3] if len(command) > 3 else 0
    if number == r2000.GET_VERSION:
        return bytes.fromhex("A00501720109DE")
    if number == r2000.INVENTORY:
        return bytes.fromhex("A0130189743000E2004074850A0103163070E13629") + r2000.encode(1, number, bytes(7))
    return r2000.encode(1, number, b"\x10")


def _hopeland(command: bytes) -> bytes:
    told = {
        "AA0100": "AA0100001B000101100011434C3732303642325F3230313730363036000160424A14",
        "AA0200": "AA0200000E0024040005000102030400020001527C",
    }
    asked = command.hex().upper()
    if captured := next((frame for begins, frame in told.items() if begins in asked), ""):
        return bytes.fromhex(captured)
    number = command[2] if len(command) > 2 else 0  # by the document, as three independent programs read it
    accepted = hopeland.encode(hopeland.Frame(hopeland.RADIO, number, b"\0"))
    tag = hopeland_tag(Observation(0, 1, bytes.fromhex("300ED89F3350005FE270E5B7"), -5000))
    return accepted + (tag if number == hopeland.INVENTORY else b"")


CAPTURED: dict[str, Captured] = {
    "thingmagic": Captured("thingmagic", (1,), "000000000000000000001545", 1, _thingmagic),
    "r2000": Captured(
        "r2000",
        (1,),
        "E2004074850A0103163070E1",
        1,
        by_beginning(
            {
                "A003FF72": "A00501720109DE",
                "A0040174": "A004017410D7",
                "A0040189": "A0130189743000E2004074850A0103163070E13629",
            }
        ),
    ),
    "r2000, 16 ports": Captured("r2000", (9,), "E2004074850A0103163070E1", 9, _banks),
    "uhfreader18": Captured(
        "uhfreader18",
        (1, 2),
        "E20000194604005221003DFF",
        1,
        by_beginning(
            {
                "04FF21": "11002100030D260331801E0001000001719A",
                "090001": 2 * "1500010301010CE20000194604005221003DFF4C95DD" + "0700010101001E4B",
            }
        ),
    ),
    "chafon-cf": Captured("chafon-cf", (1,), "E280691500004020ED9648B3", 1, _chafon),
    "m100": Captured(
        "m100",
        (1, 2),
        "E200471551A064265CB7010B",
        1,
        by_beginning(
            {
                "BB0003": "BB0103000B004D3130302056312E3030227E",
                "BB0028": "BB01280001002A7E",
                "BB0027": "BB02220012CD3400E200471551A064265CB7010BB37D01407E",
            }
        ),
    ),
    "chainway": Captured(
        "chainway",
        (1,),
        "E200001B66040082172034D5",
        1,
        by_beginning(
            {
                "A55A000802": "A55A000B03072801260D0A",
                "A55A00088C": "A55A00098D01850D0A",
                "A55A000B28": "A55A00092901210D0A",
                "A55A000C70": "A55A00097101790D0A",
                "A55A000A82": "A55A0019833000E200001B66040082172034D500D401B00D0A"
                "A55A0019833000EFAC800000048400145A0100FD5901030D0A",
            }
        ),
    ),
    "hopeland": Captured("hopeland", (1,), "300ED89F3350005FE270E5B7", 1, _hopeland),
    "gx": Captured(
        "gx",
        (1, 2),
        "300833B2DDD9014000000000",
        2,
        by_beginning(
            {
                "5A000102FF": "5A000102FF00010079B1",
                "5A00010100": "5A00010100000100DCC0",
                "5A00010200": "5A000102000001003212",
                "5A00010210": "5A0001021000010029B5"
                "5A000112000029000C300833B2DDD90140000000003400020104020003000CE280110C2000774978240A8B08000DD9E634C1",
            }
        ),
    ),
    "tsl": Captured(
        "tsl",
        (1,),
        "000000000000000000001242",
        1,
        by_line(
            {
                ".ab": "CS: .ab\r\nOK:\r\n\r\n",  # by the document, as the next two
                ".vr": "CS: .vr\r\nMF: TSL\r\nPV: 2.4\r\nOK:\r\n\r\n",
                ".iv -n": "CS: .iv -n\r\nOK:\r\n\r\n",
                ".iv": "CS: .iv\r\nEP: 000000000000000000001242\r\nRI: -61\r\nOK:\r\n\r\n",
            }
        ),
    ),
    "metratec": Captured(
        "metratec",
        (13,),
        "E0040150954F02B1",
        13,
        by_line(
            {
                "BRK": "NCM\r",
                "REV": "PULSAR_MX      01000315\r",
                "CNR": "E0040150954F02B1\rE200600311753E33\rARP 12\rIVF 02\r",  # the maker's library; the rest by it
                "": "OK!\r",
            }
        ),
    ),
}
"""By name; all behind a serial server."""


@asynccontextmanager
async def captured_reader(name: str) -> AsyncIterator[str]:
    """A serial server that answers with captured frames; yields its address for the store file."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # asyncio of Python 3.11 prints it
            while command := await reader.read(512):
                writer.write(CAPTURED[name].answer(command))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
