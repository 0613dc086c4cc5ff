"""A page in Chromium, all that went wrong on it, and pictures of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sites import PASSWORD

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
SHOTS = bool(os.environ.get("TAGTRAIL_SHOTS"))
SIZES = {"desk": (1240, 860), "phone": (360, 740), "wall": (2560, 1440), "hd": (1920, 1080)}
LANGUAGES = {"zh": "zh-CN", "en": "en-GB"}
UNLABELLED = """() => [...document.querySelectorAll(
    'a, button, input:not([type=hidden]), select, [role=img], [role=region], [role=group]')]
  .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()
    || e.closest('label')?.textContent.trim() || e.getAttribute('alt')))
  .map(e => e.outerHTML.slice(0, 120))"""


@contextmanager
def opened(
    chromium: Any, lang: str = "en", size: str = "desk", color_scheme: str = "light", own: dict[str, Any] | None = None
) -> Iterator[tuple[Any, list[str]]]:
    """A page of an empty browser profile, and all that went wrong on it: console errors, requests elsewhere.

    It's the profile of earlier pages, emptied, because a new one would compile all scripts again; with options, `own`,
    a new one.
    """
    context = chromium.new_context(**(own or {})) if own is not None or not chromium.contexts else chromium.contexts[0]
    page, wrong = context.new_page(), []
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.set_extra_http_headers({"Accept-Language": LANGUAGES[lang]})
    page.emulate_media(color_scheme=color_scheme)
    page.set_default_timeout(30_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if re.match(r"(http://127\.0\.0\.1:|data:|blob:)", request.url) else wrong.append(request.url)
        ),
    )
    try:
        yield page, wrong
    finally:
        if own is None:
            _leave(context, page)
        else:
            context.close()


def _leave(context: Any, page: Any) -> None:
    """Close a page, and leave nothing that the next one could know of it but what it was served."""
    origin = "/".join(page.url.split("/")[:3])
    stored = {"origin": origin, "storageTypes": "local_storage,service_workers"}
    context.new_cdp_session(page).send("Storage.clearDataForOrigin", stored)
    page.close()
    context.clear_cookies()


def log_in(page: Any, url: str, name: str, password: str = PASSWORD) -> None:
    page.goto(url + "/members")
    page.fill('input[name="name"]', name)
    page.fill('input[name="password"]', password)
    page.click("button.primary")


def shoot(page: Any, name: str) -> None:
    """A picture for people to look at; only if TAGTRAIL_SHOTS is set, since it takes long."""
    if SHOTS:
        keep(f"{name}.png", page.screenshot(full_page=True))


def keep(name: str, made: bytes) -> None:
    """Keep a file in `artefacts` if TAGTRAIL_SHOTS is set."""
    if SHOTS:
        ARTEFACTS.mkdir(exist_ok=True)
        (ARTEFACTS / name).write_bytes(made)
