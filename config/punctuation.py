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
    "「」『』": ('"', "quotation mark"),
    "【［〔": ("[", "bracket"),
    "】］〕": ("]", "bracket"),
    "｛": ("{", "bracket"),
    "｝": ("}", "bracket"),
    "＃": ("#", "number sign"),
    "－—–−": ("-", "dash"),
    "＿": ("_", "underscore"),
    "／": ("/", "slash"),
    "\u3000": (" ", "space"),
}
_SPACES = "\u00a0\u2002\u2003\u2009\u202f"
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Characters of no width that come along from web pages and chats."""
_MEANT = {char: (ascii_, name) for chars, (ascii_, name) in _NAMES.items() for char in chars}
_CLOSED = re.compile(r'"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'" r"|#.*")
"""Single-line strings and comments, which may contain any characters."""


def culprit(line: str) -> tuple[int, str] | None:
    """Return column (from 1) and message for the first such character outside strings and comments."""
    bare = _CLOSED.sub(lambda found: " " * len(found[0]), line)
    for at, char in enumerate(bare):
        if char in _SPACES:
            return at + 1, f"U+{ord(char):04X} is a space that TOML does not know; expected: a plain space"
        if char in _UNSEEN:
            return at + 1, f"U+{ord(char):04X} is an invisible character; delete it"
        if char == "`":
            return at + 1, "` is no quotation mark; expected: '\"'"
        if char.isalnum() and char != plain(char) and plain(char).isascii():
            return at + 1, f'{char} is a full-width character; expected: "{plain(char)}"'
        if char in _MEANT:
            ascii_, name = _MEANT[char]
            shown = char if char.isprintable() and not char.isspace() else f"U+{ord(char):04X}"
            needed = {'"': "'\"'", " ": "a plain space"}.get(ascii_, f'"{ascii_}"')
            return at + 1, f"{shown} is a Chinese {name}; expected: {needed}"
    return None


def plain(text: str) -> str:
    """Replace full-width characters and Chinese punctuation by their ASCII equivalents."""
    seen = "".join(" " if char in _SPACES else _MEANT.get(char, (char,))[0] for char in text if char not in _UNSEEN)
    return unicodedata.normalize("NFKC", seen)


def is_wide(text: str) -> bool:
    """True if a text that should be ASCII contains such characters."""
    return not text.isascii() and plain(text).isascii()
