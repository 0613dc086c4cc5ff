"""Record reads for `tagtrail replay`, limited in time and size, with pseudonyms instead of EPCs."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import secrets
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, Reads, epc_bytes, epc_words
from drivers.session import PHASE_UNKNOWN
from edge.readers.decode import PHASE, degrees
from edge.store.compose import Shop
from edge.store.errors import Trouble

HEADER = ("time_us", "reader", "antenna", "epc", "rssi_dbm")


TRIES = 1000
"""For a pseudonym of the same class: enough even if rules match all but a hundredth of all EPCs."""


class EpcPseudonyms:
    """Replaces EPCs by others of the same length and tag class, consistently; the key is never written. The bits that
    the store file's tag class rules compare are kept, since all tags of the class share them.
    """

    def __init__(self, shop: Shop) -> None:
        self._key = secrets.token_bytes(32)
        self._masks = shop.layout.rule_mask
        self._values = shop.layout.rule_value

    def of(self, words: NDArray[np.uint64], bits: int) -> bytes:
        """Return the pseudonym of an EPC in READ's words."""
        epc, rule = epc_bytes(words, bits), self._rule(words)
        keep = b"" if rule is None else self._masks[rule].astype(">u8").tobytes()
        keep = keep[: len(epc)].ljust(len(epc), b"\0")
        made = epc
        for number in range(TRIES):
            salt = number.to_bytes(2, "big")
            other = hashlib.blake2b(epc, key=self._key, salt=salt, digest_size=len(epc)).digest()
            made = bytes(e & k | o & ~k & 0xFF for e, o, k in zip(epc, other, keep, strict=True))
            if self._rule(epc_words(made)) == rule:
                break  # by chance it may look like a tag of another class
        return made

    def _rule(self, words: NDArray[np.uint64]) -> int | None:
        """Number of the first rule that an EPC matches."""
        matching = ((words & self._masks) == self._values).all(axis=1)
        return int(matching.argmax()) if matching.any() else None


class CaptureFile:
    """CSV file with columns HEADER, and PHASE on demand; gzipped if named .gz, readable by its owner only; `full` once
    `max_bytes` were written."""

    def __init__(self, path: Path, shop: Shop, *, clear: bool, max_bytes: int, phase: bool = False) -> None:
        """Raises Trouble if the file exists or can't be written."""
        self.rows = 0
        self.full = False
        self._port_of = {antenna: port for reader in shop.readers for port, antenna in reader.ports.items()}
        self._pseudonyms = None if clear else EpcPseudonyms(shop)
        self._known: dict[bytes, str] = {}
        self._max_bytes = max_bytes
        self._bytes = 0
        try:
            raw: IO[bytes] = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except FileExistsError as error:
            raise Trouble(f"{path} exists; name a new file") from error
        except OSError as error:
            raise Trouble(f"cannot write {path}: {error.strerror}") from error
        packed = gzip.GzipFile(fileobj=raw, mode="wb") if path.suffix == ".gz" else raw
        self._files = [packed, raw]
        self._phase = phase
        self._write(",".join((*HEADER, PHASE) if phase else HEADER) + "\n")

    def add(self, reader: str, batch: Reads, phases: NDArray[np.int16] | None = None) -> None:
        """Write a batch of a reader, without ports that the store file lacks; nothing once full. `phases`: one per
        read, as in PhaseSink.
        """
        turns = phases if phases is not None else np.full(len(batch), PHASE_UNKNOWN)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for read, turn in zip(batch, turns.tolist(), strict=True):
            antenna = int(read["antenna"])
            if self.full or antenna == ANTENNA_UNKNOWN:
                continue
            rssi = int(read["rssi_cdbm"])
            level = "" if rssi == RSSI_UNKNOWN else f"{rssi / 100:g}"
            row = (int(read["time_us"]), reader, self._port_of[antenna], self._epc(read), level)
            angle = "" if turn == PHASE_UNKNOWN else degrees(turn)
            rows.writerow((*row, angle) if self._phase else row)
            self.rows += 1
            if self._bytes + text.tell() >= self._max_bytes:
                self.full = True
        self._write(text.getvalue())

    def close(self) -> None:
        """Finish the file."""
        for file in self._files:
            file.close()

    def _epc(self, read: Reads) -> str:
        bits = int(read["epc_bits"])
        words = read["epc"]
        key = words.tobytes() + bits.to_bytes(2)
        known = self._known.get(key)
        if known is None:
            if len(self._known) > 100_000:
                self._known.clear()
            epc = self._pseudonyms.of(words, bits) if self._pseudonyms else epc_bytes(words, bits)
            known = self._known[key] = epc.hex().upper()
        return known

    def _write(self, text: str) -> None:
        try:
            self._files[0].write(text.encode())
        except OSError as error:
            raise Trouble(f"the capture can't be written on: {error.strerror}") from error
        self._bytes += len(text)
