"""Translations of the page: gettext catalogues (.po), read directly so that no compiled file can become outdated.

Message ids in templates and code are the English texts; `locale/{lang}.po` has the translations.
"""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from config.model import Name

LANGUAGES = ("zh", "en")
"""Chinese for clients that name no language, English for those that name only others."""
HTML_LANG = {"zh": "zh-CN", "en": "en"}


class Catalogue(gettext.NullTranslations):
    """Messages of one language: English, or a language with one plural form such as Chinese."""

    def __init__(self, messages: dict[str, str]) -> None:
        super().__init__()
        self.messages = messages

    def gettext(self, message: str) -> str:
        return self.messages.get(message, message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.messages.get(msgid1) or (msgid1 if n == 1 else msgid2)


@cache
def catalogue(lang: str) -> Catalogue:
    """Load the catalogue of `zh` or `en`."""
    if lang == "en":
        return Catalogue({})
    return Catalogue(parse_po(files(__package__).joinpath("locale", f"{lang}.po").read_text("utf-8")))


def message(text: str) -> str:
    """Mark a text for translation where it is shown; import this as `_`."""
    return text


def reason(said: str, lang: str) -> str:
    """Translate an English sentence of a reader, the broker or an examination, and sentences within it; returned
    unchanged without a translation."""
    for pattern, translated in _reasons(lang):
        if found := pattern.fullmatch(said):
            return translated.format_map({name: reason(value, lang) for name, value in found.groupdict().items()})
    return said


@cache
def _reasons(lang: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return sentence patterns with a group per value, and translations with the values' names in braces."""
    if lang == "en":
        return ()
    messages = parse_po(files(__package__).joinpath("locale", f"reasons.{lang}.po").read_text("utf-8"))

    def pattern(text: str) -> re.Pattern[str]:
        beside = re.sub(r"\\{(\w+)\\}(?=\\{)", r"(?P<\1>\\S*)", re.escape(text))  # ends where the next value begins
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*?)", beside), re.DOTALL)

    return tuple((pattern(text), translated) for text, translated in messages.items())


def parse_po(text: str) -> dict[str, str]:
    """Parse the translated messages of a .po file (`msgstr[0]` for plurals); ValueError with the line if invalid."""
    messages: dict[str, str] = {}
    fields: dict[str, str] = {}
    current = ""
    for number, raw in enumerate([*text.splitlines(), 'msgid ""'], 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        keyword, _, quoted = line.partition(" ")
        if line.startswith('"'):
            keyword, quoted = current, line
        elif keyword == "msgid" and "msgid" in fields:
            if fields["msgid"]:
                messages[fields["msgid"]] = fields.get("msgstr") or fields.get("msgstr[0]", "")
            fields = {}
        if keyword not in ("msgid", "msgid_plural", "msgstr", "msgstr[0]") or not quoted.endswith('"'):
            raise ValueError(f"line {number}: {line!r} does not belong in a catalogue of this kind")
        current = keyword
        fields[keyword] = fields.get(keyword, "") + ast.literal_eval(quoted)
    return {msgid: msgstr for msgid, msgstr in messages.items() if msgstr}


def negotiate(accept_language: str, wanted: Iterable[str | None] = ()) -> str:
    """Choose the language of a request: the first of `wanted` that exists, or else by the Accept-Language header.

    Browsers in languages other than these two get English, which their users are more likely to read.
    """
    for lang in wanted:
        if lang in LANGUAGES:
            return lang
    ranked = []
    for position, item in enumerate(accept_language.split(",")):
        tag, _, parameter = item.strip().partition(";")
        try:
            quality = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
        except ValueError:
            quality = 0.0
        ranked.append((-quality, position, tag.lower().split("-")[0]))
    for quality, _, lang in sorted(ranked):
        if quality < 0 and lang in LANGUAGES:
            return lang
    others = any(quality < 0 and lang not in ("", "*") for quality, _, lang in ranked)
    return "en" if others else LANGUAGES[0]


def named(name: Name, lang: str) -> str:
    """Return a name from the store file in a language."""
    return name if isinstance(name, str) else str(getattr(name, lang))
