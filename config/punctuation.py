"""Detect characters from Chinese input methods where TOML, addresses and ids require ASCII."""

from __future__ import annotations

import re
import unicodedata

_NAMES = {
    "“”„‟＂": ('"', "quotation mark"),
    "‘’‚‛＇": ("'", "quotation mark"),
    "，、": (",", "comma"),
    "：": (":", "colon"),
    "；": (";", "semicolon"),
    "＝": ("=", "equals sign"),
    "。．": (".", "full stop"),
    "（": ("(", "bracket"),
    "）": (")", "bracket"),
    "【［〔「『": ("[", "bracket"),
    "】］〕」』": ("]", "bracket"),
    "｛": ("{", "bracket"),
    "｝": ("}", "bracket"),
    "＃": ("#", "number sign"),
    "－—–−": ("-", "dash"),
    "＿": ("_", "underscore"),
    "／": ("/", "slash"),
    "\u3000\u00a0\u2002\u2003\u2009\u200b\ufeff": (" ", "space"),
}
_MEANT = {char: (ascii_, name) for chars, (ascii_, name) in _NAMES.items() for char in chars}
_CLOSED = re.compile(r'"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'" r"|#.*")
"""Single-line strings and comments, which may contain any characters."""


def culprit(line: str) -> tuple[int, str] | None:
    """Return column (from 1) and message for the first such character outside strings and comments."""
    bare = _CLOSED.sub(lambda found: " " * len(found[0]), line)
    for at, char in enumerate(bare):
        if char in _MEANT:
            ascii_, name = _MEANT[char]
            shown = char if char.isprintable() and not char.isspace() else f"U+{ord(char):04X}"
            needed = {'"': "'\"'", " ": "a plain space"}.get(ascii_, f'"{ascii_}"')
            return at + 1, f"{shown} is a Chinese {name}; expected: {needed}"
    return None


def plain(text: str) -> str:
    """Replace full-width characters and Chinese punctuation by their ASCII equivalents."""
    return unicodedata.normalize("NFKC", "".join(_MEANT.get(char, (char,))[0] for char in text))


def is_wide(text: str) -> bool:
    """True if a text that should be ASCII contains such characters."""
    return not text.isascii() and plain(text).isascii()
