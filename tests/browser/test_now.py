"""Now in the hand of a manager: cues in one tap, chime, notifications, lock, and a connection that is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsing import UNLABELLED, log_in, opened, shoot

from edge.access.users import LOCK_S, Users, users_path

PLAYED = """
  window.played = [];
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...at) {
    window.played.push(this.frequency.value);
    start.apply(this, at);
  };
"""
SHOWN = """
  window.shown = [];
  window.permission = "default";  // Chromium without windows says "denied" whatever it was told
  Object.defineProperty(Notification, "permission", { get: () => window.permission });
  Notification.requestPermission = async () => { window.permission = "granted"; return window.permission; };
  window.away = false;
  Object.defineProperty(document, "hidden", { get: () => window.away });
  ServiceWorkerRegistration.prototype.showNotification = async (...told) => { window.shown.push(told); };
"""


@pytest.fixture
def on_now(chromium: Any, guarded: Any) -> Iterator[Any]:
    """A manager's phone with the page Now."""
    with opened(chromium, "en", "phone") as (page, wrong):
        page.add_init_script(PLAYED + SHOWN)
        log_in(page, guarded.url, "li")
        page.goto(guarded.url + "/")
        page.wait_for_selector('[data-state="live"]')
        yield page
        assert wrong == []


def until(page: Any, true: str) -> None:
    """Wait for an expression; the page's policy forbids Playwright to do so in the page."""
    for _ in range(400):
        if page.evaluate(true):
            return
        page.wait_for_timeout(25)
    raise AssertionError(true)


def test_one_tap_answers_a_cue_and_stays_on_now(on_now: Any, guarded: Any) -> None:
    number = guarded.floor.call("c")
    button = on_now.wait_for_selector(f'[data-cue="{number}"] button.primary')
    assert button.inner_text() == "I'm on it"
    box = button.bounding_box()
    assert box["height"] >= 44
    assert box["width"] >= 120
    shoot(on_now, "now-manager-en-phone")
    button.click()
    on_now.wait_for_selector('[data-said="done"]')
    assert on_now.url == f"{guarded.url}/?said=done"
    on_now.wait_for_selector(f'[data-cue="{number}"][data-state="acknowledged"]')
    assert on_now.evaluate(UNLABELLED) == []
    on_now.click(f'[data-cue="{number}"] button[value$=" done"]')
    on_now.wait_for_selector(f'[data-cue="{number}"]', state="detached")


def test_a_chime_tells_of_a_new_cue_and_is_remembered(on_now: Any, guarded: Any) -> None:
    assert not on_now.is_checked("#chime")
    guarded.floor.end_first()
    first = guarded.floor.call("c")
    on_now.wait_for_selector(f'[data-cue="{first}"]')
    assert on_now.evaluate("window.played") == [], "not unless it is wanted"
    on_now.check("#chime")
    until(on_now, "sound?.state === 'running'")
    guarded.floor.end_first()
    second = guarded.floor.call("b")
    on_now.wait_for_selector(f'[data-cue="{second}"]')
    until(on_now, "window.played.length === 2")
    on_now.reload()
    assert on_now.is_checked("#chime")
    on_now.wait_for_selector("#tap:visible")
    on_now.click("h2 >> nth=0")
    on_now.wait_for_selector("#tap", state="hidden")
    assert on_now.evaluate("window.played") == [], "cues that were there before are no news"
    on_now.uncheck("#chime")


def test_a_hidden_page_notifies_without_a_number(on_now: Any, guarded: Any) -> None:
    on_now.check("#notify")
    until(on_now, "Notification.permission === 'granted'")
    on_now.evaluate("window.away = true")
    number = guarded.floor.call("a")
    until(on_now, "window.shown.length === 1")
    ((title, options),) = on_now.evaluate("window.shown")
    assert title.startswith("A · ")
    assert (options["body"], options["tag"], options["data"]) == ("Greet at the door", f"cue-{number}", "/")
    assert "4567" not in f"{title}{options}"
    on_now.evaluate("window.away = false")
    second = guarded.floor.call("b")
    on_now.wait_for_selector(f'[data-cue="{second}"]')
    assert len(on_now.evaluate("window.shown")) == 1, "who looks at the page needs none"
    on_now.uncheck("#notify")


def test_a_page_left_alone_is_locked_and_opens_with_the_pin(on_now: Any, guarded: Any) -> None:
    on_now.goto(guarded.url + "/pin")
    assert on_now.evaluate(UNLABELLED) == []
    for name, value in (("password", "correct horse battery"), ("pin", "2580"), ("again", "2580")):
        on_now.fill(f'input[name="{name}"]', value)
    on_now.click("text=Set PIN")
    on_now.wait_for_selector('[data-said="done"]')
    shoot(on_now, "pin-en-phone")
    guarded.floor.call("c")
    on_now.goto(guarded.url + "/")
    on_now.wait_for_selector("[data-cue] .acts button")
    assert not on_now.is_visible("#locked")
    users = Users(users_path(guarded.config))
    users._do("UPDATE session SET seen_s = seen_s - ? WHERE name = 'li'", (LOCK_S + 1,))
    users.close()
    on_now.wait_for_selector("#locked:visible")
    on_now.wait_for_selector("[data-cue]")
    assert (on_now.query_selector("[data-cue] .acts"), "6666" in on_now.content()) == (None, False)
    shoot(on_now, "now-locked-en-phone")
    on_now.click("text=Enter PIN")
    on_now.fill('input[name="pin"]', "2580")
    shoot(on_now, "unlock-en-phone")
    on_now.keyboard.press("Enter")
    on_now.wait_for_selector("[data-cue] .acts button")
    assert on_now.url == f"{guarded.url}/"


def test_what_a_lost_connection_leaves_looks_like_the_past(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, _):
        page.route("**/events?*", lambda route: route.abort())
        page.goto(site.url + "/")
        as_of = page.inner_text("#as-of")
        page.wait_for_selector("#lost:visible")
        assert f"No connection to the server since {as_of}." in page.inner_text("#lost")
        for region in ("figures", "plan-F1", "members", "readers"):
            assert page.evaluate(f"getComputedStyle(document.querySelector('[data-region={region}]')).opacity") < "0.5"
        shoot(page, "now-lost-en-desk")
