"""Pages of days that were chosen: their numbers, how sure they are, and what they are compared with."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pages
from pages import Page, fill, text_of
from shopdays import DATE, Day, store_values

from config import StoreConfig
from edge.words.numbers import duration

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords


async def test_the_weeks_after_a_holiday_say_how_few_days_compare(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["store"]["holidays"] = "CN"
    config = StoreConfig.model_validate(values)
    date = dt.date(2026, 3, 3)  # two weeks after the third of nine days off
    for weeks in (2, 1, 0):
        day = Day(config, date - dt.timedelta(days=7 * weeks))
        day.visit(f"{weeks}", "shoes", "08:00", 150, journey="08:00")
        day.covered("04:00", "28:00")
        day.watermark("33:00")
        day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get(f"/today?date={date}&lang=en"))[2]
        rows = json.loads((await page.get(f"/api/tables/comparison?date={date}"))[2])["rows"]
    against = html[html.index('id="against"') :].split("</table>")[0]
    assert "– <small>2 comparable days</small>" not in against
    told = next(row for row in rows if row["measure"] == "journeys")
    assert (told["median_4w"], told["median_days"]) == (None, 1)
    assert "– <small>1 comparable day</small>" in against


async def test_today_before_anything_was_recorded(page: Page) -> None:
    status, _, html = await page.get("/today?lang=en")
    assert status == 200
    assert "No data has been recorded yet." in html
    assert not page.config.database.path.exists()
    assert (await page.get("/api/today"))[0] == 503
    Day(page.config).conn.close()
    assert "No data has been recorded yet." in (await page.get("/today?lang=en"))[2]


async def test_today_gives_numbers_with_n_coverage_and_as_of(page: Page) -> None:
    fill(page.config)
    html = (await page.get("/today?lang=en"))[2]
    assert re.search(r"<h1>Today <small>2026-03-14 · Saturday", html)
    shoes = html[html.index('data-zone="shoes"') :].split("</tr>")[0]
    assert 'data-label="n">6<' in shoes.replace(" <", "<")
    assert 'data-label="Median">3:00<' in shoes
    assert 'data-label="p75">4:50<' in shoes
    assert "<small>0 · 0 · 1 · 5</small>" in shoes
    bags = html[html.index('data-zone="bags"') :].split("</tr>")[0]
    assert "unknown: no reader up" in bags
    assert 'data-label="n"' not in bags
    assert html.count('data-hour="09" data-state="unknown"') == 4
    assert html.count('data-hour="13" data-state="future"') == 4
    flows = json.loads(re.search(r'data-flows="([^"]*)"', html)[1].replace("&#34;", '"'))  # type: ignore[index]
    assert flows == {"labels": ["Door", "Shoes"], "floors": [0, 0], "from": [0], "to": [1], "n": [6]}
    assert html.count("as of</span>") + html.count("as of 12:00") >= 5
    assert "footfall" not in html.lower()


async def test_last_week_stands_beside_the_days_figure(page: Page) -> None:
    for back, people in ((0, 30), (7, 20)):
        day = Day(page.config, DATE - dt.timedelta(days=back))
        for i in range(people):
            day.visit(f"{back} {i}", "shoes", f"10:{i:02}", 60)
        day.covered("04:00", "28:00")
        day.conn.close()
    day = Day(page.config)
    day.watermark("33:00")
    day.conn.close()
    html = (await page.get(f"/today?date={DATE}&lang=en"))[2]
    figures = text_of(html.split('class="figures"')[1].split("</section>")[0])
    assert "Journeys 30 Same weekday last week 20 → +50 %" in figures
    assert 'id="against"' in html
    assert "Too few days are known to say how much days usually differ" in html
    assert "differs by +50 % from the same weekday last week; too few days are known" in html
    figures = text_of((await page.get(f"/today?date={DATE}&against=before&lang=en"))[2].split('class="figures"')[1])
    assert "Same weekday last week" not in figures.split("Cart journeys")[0], "the days compared are there instead"


async def test_today_tells_what_doors_counted_and_how_much_was_watched(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["readers"][0]["inputs"] = [{"port": 1, "zone": "door"}, {"port": 2, "zone": "shoes"}]
    config = StoreConfig.model_validate(values)
    fill(config)
    day = Day(config)
    for window in ("10:00", "10:15"):
        day.door("door", window, 700)
    day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get("/today?lang=en"))[2]
    (doors,) = re.findall(r'<p class="basis doors">(.*?)</p>', html)
    # Of the windows since 04:00 two were watched; what nobody watched is no zero.
    assert doors == "<b>Door counters</b><span>Door: 1,400 · coverage 6 %</span><span>Shoes: – · coverage 0 %</span>"


async def test_what_was_tried_is_told_even_if_it_proves_nothing(tmp_path: Path) -> None:
    tried = {"id": "spring", "name": "Spring", "zones": ["shoes"], "first_day": DATE, "last_day": DATE}
    moved = {"id": "move", "name": {"zh": "搬迁", "en": "The move"}, "zones": ["books"], "date": DATE}
    values = store_values(tmp_path, promotions=[tried], layout_changes=[moved])
    config = StoreConfig.model_validate(values)
    fill(config)
    async with pages.serving(config) as page:
        for path, name in (("/promotions", "Spring"), ("/layout", "The move")):
            status, _, html = await page.get(f"{path}?lang=en")
            assert status == 200
            assert f">{name} <small>" in html
            assert "not enough data" in html
            assert ">not yet<" in html, "no day of it is over"


def trading(config: StoreConfig) -> None:
    """Two weeks of visits and sales; in the second one half as many of shoes."""
    for back in range(14):
        day = Day(config, DATE - dt.timedelta(days=back))
        for hour in range(10, 20):
            for name, n in (("shoes", 4 if back < 7 else 8), ("bags", 6), ("books", 5)):
                for i in range(n):
                    day.visit(f"{back}{hour}{name}{i}", name, f"{hour}:{5 * i}", 30 + 20 * i)
                if name != "books":
                    day.sold(name, f"{hour}:00", n // 2, units=n)
        day.covered("04:00", "28:00")
        day.conn.close()
    day = Day(config)
    day.watermark("33:00")
    day.conn.close()


async def test_how_counters_fare_is_one_click_from_counters(tmp_path: Path) -> None:
    hours = [{"open": "10:00", "close": "20:00"}]
    config = StoreConfig.model_validate(store_values(tmp_path, opening_hours=hours))
    trading(config)
    async with pages.serving(config) as page:
        html = (await page.get(f"/counters?date={DATE}&lang=en"))[2]
        href = re.search(r'href="([^"]*view=trend[^"]*)"', html)
        assert href is not None
        assert "days=7" in href[1], "a day proves nothing, and there are no 28 days yet"
        query = f"/counters?date={DATE}&days=7&view=trend&lang="
        english, chinese = (await page.get(query + "en"))[2], (await page.get(query + "zh"))[2]
        assert "Certainly fewer visits and fewer tickets: Shoes." in text_of(english)
        assert "到访和成交单数都显著减少：鞋。" in text_of(chinese)
        rows = re.findall(r'<tr data-zone="(\w+)">(.*?)</tr>', english, re.DOTALL)
        assert [zone for zone, _ in rows] == ["shoes", "books", "bags"]
        shoes, books = text_of(rows[0][1]), text_of(rows[1][1])
        assert "280 -50 %" in shoes
        assert "140 -50 %" in shoes
        assert "50 % 42–" in shoes
        assert books.count("–") >= 3, "no sales are known there"
        told = json.loads((await page.get(f"/api/tables/performance?date={DATE}&days=7"))[2])["rows"]
        assert [row["zone"] for row in told] == ["shoes", "books", "bags"]
        assert (told[0]["tickets"], told[0]["tickets_before"], told[0]["tickets_change"]) == (140, 280, -0.5)
        assert (told[1]["tickets"], told[1]["tickets_change"], told[1]["tickets_per_visit"]) == (None, None, None)
        by_visits = (await page.get(query + "en&sort=visits"))[2]
        assert re.findall(r'<tr data-zone="(\w+)">', by_visits) == ["shoes", "books", "bags"]
        assert (await page.get(query + "en&sort=colour"))[0] == 400


async def test_tickets_stand_beside_visits_wherever_a_counter_is_told_of(tmp_path: Path) -> None:
    hours = [{"open": "10:00", "close": "20:00"}]
    config = StoreConfig.model_validate(store_values(tmp_path, opening_hours=hours))
    trading(config)
    async with pages.serving(config) as page:
        html = (await page.get(f"/counters?date={DATE}&days=7&lang=en"))[2]
        row = text_of(html[html.index('data-zone="bags"') :].split("</tr>")[0])
        assert "at most 60 50 % 43–57 % 100 %" in row
        card = text_of(html[html.index('<section class="card" id="bags"') :].split("</section>")[0])
        assert "Tickets 210 Tickets per visit 50 % 43–57 %" in card
        assert "Tickets" not in text_of(html[html.index('<section class="card" id="books"') :].split("</section>")[0])
        plan = (await page.get(f"/plan?date={DATE}&days=7&measure=per_visit&zone=bags&lang=en"))[2]
        assert 'aria-label="Bags: 50 %"' in plan
        assert 'aria-label="Books: unknown"' in plan or 'aria-label="=Books(): unknown"' in plan
        assert "Tickets 210" in text_of(plan[plan.index('id="zone"') :])
        scores = {
            row["zone"]: row
            for row in json.loads((await page.get(f"/api/tables/counters?date={DATE}&days=7"))[2])["rows"]
        }
        assert (scores["bags"]["tickets"], scores["bags"]["units"], scores["bags"]["tickets_per_visit"]) == (
            210,
            420,
            0.5,
        )
        assert scores["books"]["tickets"] is None
        sold = json.loads((await page.get(f"/api/tables/sales?date={DATE}"))[2])["rows"]
        noon = next(row for row in sold if row["zone"] == "bags" and row["hour"] == f"{DATE}T12:00:00+08:00")
        assert (noon["state"], noon["tickets"], noon["units"], noon["visits"]) == ("measured", 3, 6, 6)
        none = (await page.get("/counters?date=2026-02-01&lang=en"))[2]
        assert "Tickets" not in none


async def test_trends_are_of_28_days_once_there_are_so_many(page: Page) -> None:
    for back in (0, 27):
        day = Day(page.config, DATE - dt.timedelta(days=back))
        day.visit("one", "shoes", "10:00", 60)
        day.covered("04:00", "28:00")
        day.conn.close()
    day = Day(page.config)
    day.watermark("33:00")
    day.conn.close()
    assert re.search(r'href="[^"]*days=28[^"]*view=trend', (await page.get(f"/counters?date={DATE}&lang=en"))[2])


async def test_the_picture_of_the_longest_medians_is_as_sure_as_the_sentence(page: Page) -> None:
    day = Day(page.config)
    dice = random.Random(2)
    for zone, seconds in (("shoes", 300), ("bags", 60), ("books", 57)):
        for i in range(80):
            at = f"{8 + i // 60}:{i % 60:02}"
            day.visit(f"{zone}{i}", zone, at, seconds * dice.uniform(0.6, 1.4), journey=at)
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    html = (await page.get(f"/counters?date={DATE}&lang=en"))[2]
    assert "Shoes holds people longest" in html
    card = html.split('class="holds"')[1].split("</ol>")[0]
    rows = card.split("<li>")[1:]
    assert 'href="#shoes"' in rows[0]

    def line(row: str, kind: str) -> tuple[float, float]:
        found = re.search(rf'class="{kind}" x1="([\d.]+)%" x2="([\d.]+)%"', row)
        assert found is not None
        return float(found[1]), float(found[2])

    first, second, third = (line(row, "joint") for row in rows)
    assert first[0] > second[1], "certain, as the sentence says"
    assert max(second[0], third[0]) < min(second[1], third[1]), "these may be the other way round"
    for row in rows:
        (low, high), (own_low, own_high) = line(row, "joint"), line(row, "own")
        dot = re.search(r'cx="([\d.]+)%"', row)
        assert dot is not None
        assert 0 <= low <= own_low <= float(dot[1]) <= own_high <= high <= 100
    first_row = day_counters(page.config)[0]
    assert text_of(rows[0]).startswith(f"Shoes {first_row}")


def day_counters(config: StoreConfig) -> list[str]:
    """Medians as text, of the counters in the order of the longest."""
    day = Day(config)
    scores = [row for row in day.past.counters(DATE).zones if row.kind == "counter" and row.median_s is not None]
    day.conn.close()
    return [duration(row.median_s, "en") for row in sorted(scores, key=lambda row: -(row.median_s or 0))]


async def test_how_few_days_can_be_compared_is_said_with_the_figures(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path, opening_hours=[{"open": "10:00", "close": "20:00"}]))
    trading(config)
    async with pages.serving(config) as page:
        whole, few = [
            text_of((await page.get(f"/counters?date={date}&days=7&view=trend&lang=en"))[2])
            for date in (DATE, DATE - dt.timedelta(days=5))
        ]
    assert "of these days ha" not in whole
    assert "compared with 2026-02-24 – 2026-03-02 2 of these days have data" in few
    assert "Days with data on both sides: 2 of 7" in few


async def test_a_young_store_compares_the_halves_of_its_days(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path, opening_hours=[{"open": "10:00", "close": "20:00"}]))
    trading(config)
    async with pages.serving(config) as page:
        text = text_of((await page.get(f"/counters?date={DATE}&days=14&view=trend&lang=en"))[2])
        file = (await page.get(f"/export/performance.csv?date={DATE}&days=14&lang=en"))[2]
        chosen = text_of((await page.get(f"/counters?date={DATE}&days=14&view=trend&against=before&lang=en"))[2])
    assert "2026-03-08 – 2026-03-14 compared with 2026-03-01 – 2026-03-07" in text
    assert "the second half stands beside the first" in text
    assert "second half" not in chosen, "other days were asked for"
    assert "2026-03-08,2026-03-01,2026-03-07" in file


async def test_every_share_of_where_people_went_has_its_interval(page: Page) -> None:
    day = Day(page.config)
    for i in range(120):
        at = f"{8 + i // 60}:{i % 60:02}"
        day.visit(f"c{i}", "shoes", at, 40, journey=at)
        day.visit(f"c{i}", "books" if i < 90 else "bags", f"{at}:45", 40, journey=at)
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    tree = text_of((await page.get(f"/flows?date={DATE}&zone=shoes&lang=en"))[2].split('id="tree"')[1])
    plan = text_of((await page.get(f"/plan?date={DATE}&zone=shoes&lang=en"))[2].split('id="zone"')[1])
    for text in (tree, plan):
        assert "=Books() 90 75 % 67–82 %" in text
    assert re.search(r"Median \d+ s \d+ s–\d+ s", plan)


async def test_a_promotion_is_drawn_day_by_day_beside_its_control_zones(tmp_path: Path) -> None:
    tried: dict[str, Any] = {"id": "spring", "name": "Spring", "zones": ["shoes"], "controls": ["bags"]}
    tried |= {"first_day": DATE - dt.timedelta(days=6), "last_day": DATE - dt.timedelta(days=3)}
    closed = [{"date": DATE - dt.timedelta(days=4)}]
    hours = [{"open": "10:00", "close": "20:00"}]
    values = store_values(tmp_path, promotions=[tried], opening_hours=hours, special_days=closed)
    config = StoreConfig.model_validate(values)
    trading(config)
    day = Day(config, DATE - dt.timedelta(days=9))
    day.covered("04:00", "28:00", bags=0.1)
    day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get("/promotions?lang=en"))[2]
        rows = json.loads((await page.get(f"/api/tables/lines?date={DATE}"))[2])["rows"]
        chinese = (await page.get("/promotions?lang=zh"))[2]
    drawn = re.findall(r'<svg class="bars course".*?</svg>', html, re.DOTALL)
    assert len(drawn) == 3, "visitors, engaged visitors and tickets"
    tickets = drawn[2]
    assert tickets.count('fill="url(#hatch)"') == 22, "21 days without data, and one that was dark"
    assert tickets.count('class="shut"') == 1
    assert (
        len(re.findall(r'<circle class="own"', tickets)) == len(re.findall(r'<circle class="control"', tickets)) == 12
    )
    assert "2026-03-05: 40 · control zones 30" not in tickets
    assert "2026-03-06: 40 · control zones 30" in tickets
    assert "during 3 20.0 50 % 30.0 100 %" in text_of(html)
    assert "期间 3 20.0 50 % 30.0 100 %" in text_of(chinese)
    line = {(row["measure"], row["day"]): row for row in rows}
    assert (line["tickets", "2026-03-06"]["in_zones"], line["tickets", "2026-03-06"]["phase"]) == (40, "before")
    assert line["tickets", "2026-03-05"]["state"] == "unknown"
    assert line["tickets", "2026-03-05"]["in_zones"] is None
    assert line["tickets", "2026-03-10"]["state"] == "closed"


async def test_all_numbers_of_a_page_are_of_the_days_that_were_chosen(page: Page) -> None:
    for date, people in ((DATE - dt.timedelta(days=1), 50), (DATE, 40)):
        day = Day(page.config, date)
        for i in range(people):
            day.visit(f"{date}{i}", "door", f"08:{i}", 10, journey=f"08:{i}")
            day.visit(f"{date}{i}", "shoes", f"08:{i}:20", 150, journey=f"08:{i}")
        day.covered("04:00", "28:00")
        day.watermark("33:00")
        day.conn.close()
    for days, n in ((1, 40), (7, 90)):
        query = f"date={DATE}&days={days}&lang=en"
        html = (await page.get(f"/counters?{query}"))[2]
        card = text_of(html[html.index('<section class="card" id="shoes"') :].split("</section>")[0])
        assert f"n = {n} " in card
        assert f"Engaged {n} " in card
        assert f"Came from Door {n}" in card
        assert set(re.findall(r"n = (\d+)", card)) - {"0"} == {str(n)}
        html = (await page.get(f"/flows?{query}"))[2]
        assert set(re.findall(r"n = (\d+)", text_of(html))) == {str(n)}
        assert f'<td class="lv4">{n}</td>' in html
        drawn = re.search(r'data-flows="([^"]*)"', html)
        assert drawn is not None
        assert json.loads(unescape(drawn[1]))["n"] == [n]
        rows = json.loads((await page.get(f"/api/tables/flows?{query}"))[2])["rows"]
        assert [row["n"] for row in rows] == [n]
        for href in re.findall(r'href="(/export/[^"]*)"', html):
            assert ("days=7" in href) == (days == 7)
        assert re.search(rf'<b>{n}</b> <small>100 %</small></span><span class="route"><i>Door</i><i>Shoes</i>', html)
        html = (await page.get(f"/today?{query}"))[2]
        assert f"Journeys {n} " in text_of(html)
        assert f"Ground n = {n} " in text_of(html[html.index('id="traffic"') :])
        assert 'data-hour="08" data-state="measured"' in html
        assert re.search(rf'data-zone="shoes">.*?data-label="n">{n}</td>', html, re.DOTALL)
        drawn = re.search(r'data-flows="([^"]*)"', html)
        assert drawn is not None
        assert json.loads(unescape(drawn[1]))["n"] == [n]
        staffing = (await page.get(f"/service?{query}"))[2].split('data-staffed="shoes">')[1].split("</tr>")[0]
        assert f'<td class="sum">{n}</td>' in staffing


async def test_days_are_kept_from_page_to_page(page: Page) -> None:
    fill(page.config)
    for query, kept in (
        ("", ""),
        ("days=7", "?days=7"),
        ("days=28&date=2026-03-10&against=year", "?date=2026-03-10&amp;days=28&amp;against=year"),
        ("from=2026-03-01&date=2026-03-14", "?from=2026-03-01&amp;date=2026-03-14"),
        ("from=2026-03-08&date=2026-03-14", "?days=7"),
        ("days=month&date=2026-02-10", "?date=2026-02-28&amp;days=month"),
    ):
        for path in ("/", "/today", "/counters", "/flows", "/promotions", "/members", "/service", "/quality"):
            html = (await page.get(f"{path}?{query}&lang=en"))[2]
            nav = html.split('aria-label="Pages"')[1].split("</nav>")[0]
            assert set(re.findall(r'href="/\w*(\??[^"]*)"', nav)) == {kept}, (path, query)
            for href in re.findall(r'href="/export/[^?"]*\?([^"]*)"', html.split("<main")[1]):
                told = dict(parse_qsl(unescape(kept[1:])))
                assert dict(parse_qsl(unescape(href))) == {"date": str(DATE), "lang": "en", **told}, (path, query)
    for bad in ("days=0", "days=365", "days=week", "from=2024-01-01", "from=soon", "against=mine"):
        for path in ("/counters", "/export/counters.csv", "/api/tables/counters"):
            assert (await page.get(f"{path}?{bad}"))[0] == 400, (path, bad)


async def test_days_are_shown_beside_those_they_are_compared_with(page: Page) -> None:
    for back in range(14):
        day = Day(page.config, DATE - dt.timedelta(days=back))
        for i in range(50 if back < 7 else 40):
            day.visit(f"{back}-{i}", "shoes", f"08:{i}", 150 if i % 2 else 40, journey=f"08:{i}")
        day.covered("04:00", "28:00", bags=0.2)
        if not back:
            day.watermark("33:00")
        day.conn.close()
    html = (await page.get(f"/today?date={DATE}&days=7&against=before&lang=en"))[2]
    assert "compared with 2026-03-01 – 2026-03-07" in text_of(html)
    assert "Journeys 350 +25 % +7 % … +46 %" in text_of(html)
    assert "of these days ha" not in html
    long_ago = Day(page.config, DATE - dt.timedelta(days=40))
    long_ago.visit("first", "shoes", "08:00", 40)
    long_ago.covered("04:00", "28:00")
    long_ago.conn.close()
    fewer = text_of((await page.get(f"/today?date={DATE - 2 * dt.timedelta(days=1)}&days=7&against=before&lang=en"))[2])
    assert "compared with 2026-02-27 – 2026-03-05 5 of these days have data" in fewer
    counters = (await page.get(f"/counters?date={DATE}&days=7&against=before&lang=en"))[2]
    shoes = text_of(counters.split('<tr data-zone="shoes">')[1].split("</tr>")[0])
    assert "+25 %" in shoes
    assert "+0.0 pp" in shoes
    rows = json.loads((await page.get(f"/api/tables/against?date={DATE}&days=7&against=before"))[2])["rows"]
    visits = {row["id"]: row for row in rows if row["measure"] == "visits"}
    assert (visits["shoes"]["value"], visits["shoes"]["value_before"], visits["shoes"]["pairs"]) == (350, 280, 7)
    assert "bags" not in visits
    assert "no public holiday in these days" in (await page.get(f"/today?date={DATE}&against=holiday&lang=en"))[2]
    assert "nothing to compare with" in (await page.get(f"/today?date={DATE}&against=year&lang=en"))[2]


async def test_waiting_is_told_only_of_zones_where_people_are_served(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["zones"][2]["kind"] = "checkout"  # bags
    config = StoreConfig.model_validate(values)
    day = Day(config)
    for zone, badge in (("shoes", "a"), ("bags", "b"), ("hall", "c")):
        for i in range(40):
            day.visit(f"{zone}{i}", zone, f"08:{i}", 150)
        day.visit(badge, zone, "08:00", 7200, cls="staff")
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get(f"/service?date={DATE}&lang=en"))[2]
        told = json.loads((await page.get(f"/api/tables/service?date={DATE}"))[2])["rows"]
    assert re.findall(r'<tr data-zone="(\w+)"', html) == ["shoes", "books"]
    staffing = html.split('id="staffing"')[1].split("</table>")[0]
    rows = [text_of(name) for name in re.findall(r'<th scope="row">(.*?)</th>', staffing)]
    assert rows == ["Ground", "Shoes", "2", "=Books()"]
    assert {row["zone"]: (row["wanted"], row["visits_per_staffed_hour"]) for row in told if row["staffed"]} == {
        "shoes": (40, 20.0),
        "bags": (None, 20.0),
        "hall": (None, 20.0),
    }


async def test_service_begins_with_what_was_missing(page: Page) -> None:
    day = Day(page.config)
    for i in range(40):
        day.visit(f"{i}", "shoes", f"8:{i:02}", 150)
    day.visit("badge", "shoes", "08:10", 1800, cls="staff")
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    html = (await page.get(f"/service?date={DATE}&lang=en"))[2]
    places = [html.index(part) for part in ('class="says"', 'id="cases"', 'id="need"', 'id="wait"', 'id="staffing"')]
    assert places == sorted(places)
    said = text_of(html.split('class="says"')[1].split("</p>")[0])
    assert "met nobody" in said
    assert "There was staff" not in said, "that sounds as if they had been served"


async def test_need_that_nobody_served_is_the_loudest_cell(page: Page) -> None:
    day = Day(page.config)
    for zone, hour, people in (("shoes", 8, 40), ("shoes", 9, 30), ("bags", 9, 7), ("books", 9, 5)):
        for i in range(people):
            day.visit(f"{zone}{hour}{i}", zone, f"{hour}:{i:02}", 150)
    day.visit("badge", "shoes", "08:00", 3600, cls="staff")
    day.visit("badge", "books", "09:00", 600, cls="staff")  # too short to have served an hour's visits
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    html = (await page.get(f"/service?date={DATE}&lang=en"))[2]
    table = html.split('class="grid staffing"')[1].split("</table>")[0]
    rows = dict(re.findall(r'data-staffed="(\w+)">(.*?)</tr>', table, re.DOTALL))
    red = {
        name: [text_of(cell) for cell in re.findall(r'<td class="unserved">(.*?)</td>', row)]
        for name, row in rows.items()
    }
    sums = {
        name: [text_of(cell) for cell in re.findall(r'<td class="sum[^"]*">(.*?)</td>', row)]
        for name, row in rows.items()
    }
    assert list(rows) == ["F1", "shoes", "bags", "F2", "books"]
    assert red == {
        "F1": [],
        "shoes": ["30! without staff"],
        "bags": ["7! without staff"],
        "F2": [],
        "books": ["5! without staff"],
    }
    assert sums == {
        "F1": ["77", "37"],
        "shoes": ["70", "30"],
        "bags": ["7", "7"],
        "F2": ["5", "5"],
        "books": ["5", "5"],
    }
    assert re.search(r'class="lv4">40<', rows["shoes"])


async def test_a_day_on_which_the_store_is_closed_is_not_one_without_antennas(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path, special_days=[{"date": DATE}]))
    fill(config)
    async with pages.serving(config) as page:
        html = (await page.get("/quality?lang=en"))[2]
    assert html.count("not covered by any antenna") == 1
    shoes = html[html.index('<tr data-zone="shoes"') :].split("</tr>")[0]
    assert [cell.strip() for cell in re.findall(r"<td[^>]*>([^<]*)</td>", shoes)] == ["–", "6", "0"]


async def test_other_days(page: Page) -> None:
    fill(page.config)
    assert "No reader was up on this day." in (await page.get("/today?lang=en&date=2026-03-13"))[2]
    assert "This day is in the future." in (await page.get("/today?lang=en&date=2026-03-15"))[2]
    for bad in ("yesterday", "2026-02-30", "0001-01-01", "9999-12-31"):
        status, _, html = await page.get(f"/today?lang=en&date={bad}")
        assert status == 400
        assert "Invalid request." in html
        status, _, text = await page.get(f"/api/today?date={bad}")
        assert status == 400
        assert bad in json.loads(text)["error"]
