"""Colours of membership tiers, from the store file, as a style sheet."""

from __future__ import annotations

from config import StoreConfig

BUILT_IN = ("A", "B", "C")
"""Tiers with colours in app.css, unless the store file has others."""


def tier_class(config: StoreConfig, tier: str) -> str:
    """Return the CSS class of a tier."""
    for number, one in enumerate(config.web.tiers):
        if one.tier == tier:
            return f"tier-{number}"
    return f"tier-{tier.lower()}" if tier in BUILT_IN else "tier-other"


def tier_styles(config: StoreConfig) -> str:
    """Return the style sheet of the store file's tiers; empty without any."""
    return "".join(
        f".tier-{number} {{ background: {one.colour}; color: {_readable_on(one.colour)}; }}\n"
        for number, one in enumerate(config.web.tiers)
    )


def _readable_on(colour: str) -> str:
    """Return black or white, whichever has more contrast (WCAG 2: relative luminance); it is always above 4.5."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"
