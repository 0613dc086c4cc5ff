"""The plan as lens: its figures, its scales, and colours that everybody can tell apart."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pages
import pytest
from numpy.typing import NDArray
from pages import Page
from pictures_made import SVG, png
from shopdays import DATE, Day, busy

import edge.web
from config import StoreConfig
from config.floor_image import POLICY
from config.model import FloorImage
from edge.days import kept
from edge.days.lens import MEASURES, Lens, Shade
from edge.days.scope import Scope
from edge.web.drawings.lens import SHORT_M, _between, keys, scale
from edge.web.drawings.plan import plans

config, page, cheap_passwords = pages.config, pages.page, pages.cheap_passwords
STYLES = Path(edge.web.__path__[0], "static", "app.css").read_text("utf-8")
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as it is seen: Machado, Oliveira & Fernandes, IEEE TVCG 15 (2009) 1291, severity 1.0."""


def linear(colour: str) -> NDArray[np.float64]:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(colour: str, sight: str) -> NDArray[np.float64]:
    """CIELAB, D65, of a colour as it is seen."""
    rgb = np.clip(np.array(SIGHT[sight]) @ linear(colour), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    f = np.where(f > 6 / 29, f, (xyz / [0.9505, 1.0, 1.089]) / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def variables() -> dict[str, dict[str, str]]:
    """Colours of the light and of the dark page."""
    light, dark = re.findall(r":root \{(.*?)\n *\}", STYLES, re.DOTALL)[:2]
    found = dict(re.findall(r"--(\w+): (#\w{6})", light))
    return {"light": found, "dark": found | dict(re.findall(r"--(\w+): (#\w{6})", dark))}


def contrast(one: str, two: str) -> float:
    bright = sorted((float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) for colour in (one, two)), reverse=True)
    return (bright[0] + 0.05) / (bright[1] + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_shades_can_be_told_apart_by_everybody(theme: str, sight: str) -> None:
    colours = variables()[theme]
    rising = [lab(colours[f"lv{n}"], sight) for n in range(1, 6)]
    steps = [b[0] - a[0] for a, b in pairwise(rising)]
    assert len({step > 0 for step in steps}) == 1, "from dark to bright, or from bright to dark"
    assert min(map(abs, steps)) >= 5
    changes = [lab(colours[f"d{n}"], sight) for n in range(7)]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(changes, 2)) >= 10
    for n in range(3):  # more is never taken for less
        assert np.linalg.norm(changes[n] - changes[6 - n]) >= 20


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_can_be_read_on_every_shade(theme: str) -> None:
    colours = variables()[theme]
    assert min(contrast(colours[f"lv{n}"], colours[f"on{n}"]) for n in range(6)) >= 4.5
    on = {
        int(n): ink
        for names, ink in re.findall(r"(\.label\.d[^{]*)\{ color: (#\w{6})", STYLES)
        for n in names
        if n.isdigit()
    }
    assert sorted(on) == list(range(7))
    assert min(contrast(colours[f"d{n}"], on[n]) for n in on) >= 4.5


def test_figures_of_the_plan_are_those_of_the_other_pages(day: Day) -> None:
    for offset, people in ((0, 40), (-7, 36)):
        busy(day, offset, people=people, engaged=20)
    day.visit("badge", "shoes", "10:00", 3600, cls="staff")
    day.covered("-164:00", "28:00", bags=0.25)
    day.watermark("33:00")
    past = day.past
    told = {
        measure: {shade.zone: shade for shade in past.lens(DATE, 1, measure, other=DATE - 7 * kept.DAY).zones}
        for measure in MEASURES
    }
    scores = {zone.zone: zone for zone in past.counters(DATE).zones}
    service = {zone.zone: zone for zone in past.service(DATE).zones}
    occupancy = {zone.place: zone.mean for zone in past.occupancy(DATE).zones}
    for zone in ("shoes", "books", "door"):
        assert told["visits"][zone].value == scores[zone].n == 40
        assert told["dwell"][zone].value == scores[zone].median_s
        assert told["dwell"][zone].low <= told["dwell"][zone].value <= told["dwell"][zone].high  # type: ignore[operator]
        share = scores[zone].engaged_share
        assert share is not None
        assert (told["engaged"][zone].value, told["engaged"][zone].low) == (share.value, share.low)
        assert told["conversion"][zone].value == scores[zone].conversion
        assert told["staff"][zone].value == service[zone].staffed
        assert told["presence"][zone].value == occupancy[zone]
    assert told["waiting"]["shoes"].value == service["shoes"].wait_median_s == 0.5
    assert told["waiting"]["door"].value is None
    assert told["change"]["shoes"].value == pytest.approx(40 / 36 - 1)
    assert told["change"]["shoes"].low is None, "of one pair of days"
    assert told["coverage"]["bags"].value == 0.25
    assert (told["visits"]["bags"].value, told["visits"]["bags"].known) == (None, False)
    hours = {zone.zone: zone.hours for zone in past.hours(DATE).zones}["shoes"]
    for hour in (6, 7):
        (shoes,) = (one for one in past.lens(DATE, 1, "dwell", hour).zones if one.zone == "shoes")
        assert (shoes.n, shoes.value) == (hours[hour].n, hours[hour].median_s)
    assert sum(one.value or 0 for one in past.lens(DATE, 8, "visits").zones) == 4 * 76
    trend = past.trend(DATE, "shoes")
    assert [one.visits for one in trend if one.visits] == [36, 40]
    assert {one.visits for one in past.trend(DATE, "bags")} == {None}


async def test_the_plan_shows_what_is_known_and_leads_to_a_zone(page: Page) -> None:
    day = Day(page.config)
    for i in range(40):
        day.visit(f"{i}", "shoes", f"10:{i}", 150 if i < 30 else 40, journey=f"10:{i}")
        day.visit(f"{i}", "door", f"10:{i}:170", 20, journey=f"10:{i}")
    day.covered("04:00", "28:00", bags=0)
    day.watermark("33:00")
    day.conn.close()
    html = (await page.get(f"/plan?date={DATE}&measure=engaged&hour=10&zone=shoes&lang=en"))[2]
    zones = dict(re.findall(r'<polygon data-zone="(\w+)" class="([^"]*)"', html))
    assert zones["shoes"] == "zone counter lv4 chosen"
    assert zones["bags"] == "zone counter unknown"
    assert re.search(r'data-zone="bags"[^>]* fill="url\(#hatch-m\)"', html)
    links = re.findall(r'<a href="([^"]*)#zone" aria-label="([^"]*)"', html)
    assert ("?measure=engaged&amp;hour=10&amp;zone=bags", "Bags: unknown") in [
        (link.replace("date=2026-03-14&amp;", ""), name) for link, name in links
    ]
    assert "Shoes: 75 %" in [name for _, name in links]
    assert re.findall(r'<li><i class="swatch lv\d"></i>([^<]*)', html) == [
        *("&lt; 20 %", "20 % … 40 %", "40 % … 60 %", "60 % … 80 %", "≥ 80 %"),
    ]
    assert '<line class="arrow"' in html
    card = html.split('id="zone"')[1]
    assert "→ Door: 40" in html
    assert "n = 40" in card
    empty = (await page.get(f"/plan?date={DATE}&measure=dwell&hour=15&lang=en"))[2]
    assert dict(re.findall(r'<polygon data-zone="(\w+)" class="([^"]*)"', empty))["shoes"] == "zone counter none"
    for bad in ("measure=x", "zone=x", "hour=25"):
        assert (await page.get(f"/plan?date={DATE}&{bad}"))[0] == 400


async def test_counters_are_sorted_by_any_column_with_ties_marked(page: Page) -> None:
    day = Day(page.config)
    for i in range(60):
        day.visit(f"{i}", "shoes", f"10:{i}", 150 if i % 2 else 140, journey=f"10:{i}")
        day.visit(f"b{i}", "books", f"10:{i}", 150 if i % 3 else 130, journey=f"10:{i}")
        day.visit(f"c{i}", "bags", f"10:{i}", 20, journey=f"10:{i}")
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    day.conn.close()
    html = (await page.get(f"/counters?date={DATE}&sort=median_s&lang=en"))[2]
    table = html.split('id="hold"')[1].split("</table>")[0]
    rows = re.findall(r'<tr data-zone="(\w+)">(.*?)</tr>', table, re.DOTALL)
    assert [zone for zone, _ in rows][-1] == "bags"
    assert [zone for zone, row in rows if "≈" in row] == [rows[1][0]], "bags are certainly shorter"
    assert re.search(r'aria-sort="descending"><a href="[^"]*sort=median_s', table)
    assert re.search(r"<small>\d+ s–\d+ s</small>|<small>\d+:\d+–\d+:\d+</small>|<small>\d+ min[^<]*–", rows[0][1])
    assert (await page.get(f"/counters?date={DATE}&sort=zone"))[0] == 400


@pytest.mark.parametrize("content", [png(30, 18), SVG.format('<path d="M0 0h9"/>').encode()])
async def test_a_floors_picture_is_drawn_and_sent_as_a_picture_only(config: StoreConfig, content: bytes) -> None:
    file = config.database.path.with_name("f1.png")
    file.write_bytes(content)
    place = {"file": file, "left": -1, "bottom": -2, "width": 17, "height": 10.2}
    floors = (config.floors[0].model_copy(update={"image": FloorImage.model_validate(place)}), *config.floors[1:])
    pages.fill(config)
    async with pages.serving(config.model_copy(update={"floors": floors})) as page:
        for path in ("/", f"/plan?date={DATE}"):
            _, _, html = await page.get(path)
            (drawn,) = re.findall(r'<image class="picture" href="([^"]+)" ([^>]*)/>', html)
            assert drawn[1] == 'x="-1.0" y="-8.2" width="17.0" height="10.2" preserveAspectRatio="none"'
        status, headers, sent = await page.load(drawn[0])
        assert (status, sent) == (200, content)
        kind = "image/png" if content.startswith(b"\x89") else "image/svg+xml"
        assert headers["Content-Type"].partition(";")[0] == kind
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == POLICY
        assert "immutable" in headers["Cache-Control"]
        assert (await page.load(f"{drawn[0].partition('?')[0]}"))[1]["Cache-Control"] == "no-cache"
        assert (await page.load("/plan/image/F2"))[0] == (await page.load("/plan/image/elsewhere"))[0] == 404
        file.write_bytes(b"<html><script>alert(1)</script></html>")
        assert (await page.load(drawn[0]))[0] == 404


async def test_a_picture_that_cannot_be_shown_is_left_out(
    config: StoreConfig, caplog: pytest.LogCaptureFixture
) -> None:
    image = FloorImage(file=config.database.path.with_name("missing.png"), width=3, height=3)
    floors = (config.floors[0].model_copy(update={"image": image}), *config.floors[1:])
    async with pages.serving(config.model_copy(update={"floors": floors})) as page:
        status, _, html = await page.get("/")
    assert status == 200
    assert "<image" not in html
    assert "missing.png No such file" in caplog.text


def lens_of(config: StoreConfig, values: dict[str, float | None]) -> Lens:
    floors = {zone.id: zone.floor for zone in config.zones}
    shades = tuple(Shade(zone, floors[zone], value, None, None, 9, True) for zone, value in values.items())
    scope = Scope(str(DATE), str(DATE), 1, None, 1, 5, 1.0, 0.05, 0)
    return Lens(scope, "visits", None, shades)


def test_what_everybody_passes_does_not_hide_the_differences_between_counters(config: StoreConfig) -> None:
    values: dict[str, float | None] = {
        "door": 2000.0,
        "hall": 900.0,
        "shoes": 180.0,
        "bags": 40.0,
        "books": None,
        "attic": 0.0,
    }
    found = lens_of(config, values)
    assert scale(config, found) == (40, 80, 120, 160)
    assert keys(config, found, "en")[-1].text == "≥ 160"
    only = replace(found, zones=tuple(one for one in found.zones if one.zone in ("door", "hall")))
    assert scale(config, only)[-1] == 1600, "where nothing else is known, it goes by them"


def test_an_arrow_leaves_the_figures_readable(config: StoreConfig) -> None:
    zones = {zone.id: zone for zone in plans(config)[0].zones}
    x1, y1, x2, y2 = _between(zones["door"], zones["bags"])
    one, other = zones["door"], zones["bags"]
    assert math.dist((x1, y1), (one.x, one.y)) == pytest.approx(SHORT_M, abs=0.02)
    assert math.dist((x2, y2), (other.x, other.y)) == pytest.approx(SHORT_M, abs=0.02)
    near = replace(one, x=one.x + 1)
    assert _between(one, near) == pytest.approx((one.x + 0.3, one.y, one.x + 0.7, one.y), abs=0.01)
