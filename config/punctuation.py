"""Characters of a Chinese keyboard where TOML, addresses and ids want those of ASCII."""

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
"""Strings of one line and comments, in which anything may stand."""


def culprit(line: str) -> tuple[int, str] | None:
    """Column (from 1) of the first such character outside strings and comments, and what to tell of it."""
    bare = _CLOSED.sub(lambda found: " " * len(found[0]), line)
    for at, char in enumerate(bare):
        if char in _MEANT:
            ascii_, name = _MEANT[char]
            shown = char if char.isprintable() and not char.isspace() else f"U+{ord(char):04X}"
            needed = {'"': "'\"'", " ": "a plain space"}.get(ascii_, f'"{ascii_}"')
            return at + 1, f"{shown} is a Chinese {name}; needed: {needed}"
    return None


def plain(text: str) -> str:
    """The text with full-width characters and Chinese punctuation replaced by what they stand for."""
    return unicodedata.normalize("NFKC", "".join(_MEANT.get(char, (char,))[0] for char in text))


def is_wide(text: str) -> bool:
    """Is a text that should be of ASCII written with such characters."""
    return not text.isascii() and plain(text).isascii()
