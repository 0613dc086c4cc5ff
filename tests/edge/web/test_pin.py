"""A page that locks: what it shows then, how a PIN opens it, and what is kept meanwhile."""

from __future__ import annotations

import re

import pytest
from floors import Floor
from pages import Page, cheap_passwords, config, page, service
from visitors import PASSWORD, Visitor, floor, log_in, manager

from edge.access.users import LOCK_S, PIN_TRIES, Role

__all__ = ["cheap_passwords", "config", "floor", "manager", "page", "service"]
PIN = "2580"


def leave(visitor: Visitor) -> None:
    """Leave the page alone for longer than a session stays open."""
    visitor.users._do("UPDATE session SET seen_s = seen_s - ?", (LOCK_S + 1,))


@pytest.fixture
async def at_work(manager: Visitor) -> Visitor:
    """A manager with a PIN."""
    place = await manager.post("/pin", act="set", password=PASSWORD, pin=PIN, again=PIN)
    assert place[:2] == (303, "/pin?said=done")
    assert "You have a PIN." in await manager.get("/pin")
    return manager


async def test_a_locked_page_shows_what_viewers_see(at_work: Visitor, page: Page) -> None:
    text = await at_work.get("/")
    assert ("4567" in text, 'form="act"' in text, 'id="locked" class="banner warn" role="status" hidden' in text) == (
        (True,) * 3
    )
    leave(at_work)
    for path in ("/", "/members", "/service"):
        text = await at_work.get(path)
        assert ("4567" in text, 'form="act"' in text, 'href="/unlock?next=' in text) == (False, False, True), path
    for path in ("/pin", "/audit"):
        status, _, _ = await page.get(path, Cookie=at_work._cookie)
        assert status == 403
    status, _, told = await page.get("/api/now", Cookie=at_work._cookie)
    assert (status, "4567" in told) == (200, False)


async def test_the_stream_of_an_open_page_hides_members_and_says_why(at_work: Visitor, page: Page) -> None:
    leaving = True
    async for _, told in page.events(cookie=at_work._cookie):
        if leaving:
            assert (told["locked"], "4567" in told["regions"]["cues"]) == (False, True)
            leave(at_work)
            leaving = False
        elif told["locked"]:
            assert "4567" not in told["regions"]["cues"]
            assert 'form="act"' not in told["regions"]["cues"]
            assert 'data-cue="' in told["regions"]["cues"]
            break


async def test_the_pin_opens_it_again(at_work: Visitor) -> None:
    leave(at_work)
    assert "Wrong PIN." in (await at_work.post("/unlock", pin="1111", next="/service"))[2]
    assert (await at_work.post("/unlock", csrf="forged", pin=PIN))[0] == 403
    assert 'form="act"' not in await at_work.get("/")
    assert (await at_work.post("/unlock", pin=PIN, next="//elsewhere.example"))[:2] == (303, "/")
    assert 'form="act"' in await at_work.get("/")
    assert [action for action, _ in at_work.audited() if "PIN" in action or "lock" in action] == [
        "unlocked",
        "wrong PIN",
        "PIN set",
    ]


async def test_an_answer_on_a_locked_page_is_kept(at_work: Visitor, floor: Floor) -> None:
    (number,) = floor.rows("SELECT id FROM cue ORDER BY id")[0]
    leave(at_work)
    status, _, asked = await at_work.post("/service/cue", act=f"{number} acknowledge 120", back="/")
    assert (status, "What you entered is kept." in asked) == (403, True)
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', asked.split("<main")[1]))
    csrf = fields.pop("csrf")
    status, _, asked = await at_work.post("/unlock", csrf, **fields, pin=PIN)
    assert (status, "Your response to a cue" in asked) == (200, True)
    assert floor.rows(f"SELECT state FROM cue WHERE id = {number}") == [("open",)], "not before it is sent again"
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', asked.split("<main")[1]))
    assert (await at_work.post("/service/cue", fields.pop("csrf"), **fields))[:2] == (303, "/?said=done")
    assert floor.rows(f"SELECT state, who FROM cue WHERE id = {number}") == [("acknowledged", "li")]


async def test_wrong_pins_lead_to_the_password_and_lose_nothing(at_work: Visitor, page: Page) -> None:
    leave(at_work)
    held = {"held": "/service/case", "held-act": "1 done", "held-note": "came late"}
    for _ in range(PIN_TRIES - 1):
        assert "Wrong PIN." in (await at_work.post("/unlock", pin="1111", **held))[2]
    status, _, asked = await at_work.post("/unlock", pin="1111", **held)
    assert (status, "Log in with your password." in asked, "came late" in asked) == (403, True, True)
    assert (await page.get("/", Cookie=at_work._cookie))[0] == 303
    assert at_work.audited()[0] == ("logged out by wrong PINs", "")
    status, _, asked = await at_work.post("/unlock", pin=PIN, **held)  # sent from a page that was open before
    assert (status, "came late" in asked) == (403, True)


async def test_a_login_lasts_until_the_end_of_the_business_day(at_work: Visitor, page: Page) -> None:
    _, _, cookie = await log_in(page, "li")
    ((left_s,),) = at_work.users._ask("SELECT ends_s - seen_s FROM session JOIN shift USING (token)")
    assert left_s == pytest.approx(16 * 3600, abs=5), "from noon to 04:00"
    at_work.users._do("UPDATE shift SET ends_s = ends_s - ?", (left_s + 5,))
    assert (await page.get("/", Cookie=f"tagtrail={cookie}"))[0] == 303


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"password": "wrong horse battery", "pin": PIN, "again": PIN}, 403, "Incorrect password."),
        ({"password": PASSWORD, "pin": PIN, "again": "2581"}, 422, "The two PINs differ."),
        ({"password": PASSWORD, "pin": "1234", "again": "1234"}, 422, "Choose 4 to 8 digits"),
        ({"password": PASSWORD}, 422, "Choose 4 to 8 digits"),
    ],
)
async def test_a_pin_that_cannot_be_set_is_told(
    manager: Visitor, fields: dict[str, str], status: int, said: str
) -> None:
    answered, _, text = await manager.post("/pin", act="set", **fields)
    assert (answered, said in text) == (status, True)
    assert "You have no PIN." in await manager.get("/pin")


async def test_a_pin_can_be_removed(at_work: Visitor) -> None:
    assert (await at_work.post("/pin", act="remove", password=PASSWORD))[:2] == (303, "/pin?said=done")
    leave(at_work)
    assert 'form="act"' in await at_work.get("/")


async def test_viewers_have_no_pin_to_set(page: Page, manager: Visitor) -> None:
    wall = Visitor(page, "wall", Role.VIEWER)
    assert 'href="/pin' not in await wall.get("/")
    assert (await wall.post("/pin", act="set", password=PASSWORD, pin=PIN, again=PIN))[0] == 403
