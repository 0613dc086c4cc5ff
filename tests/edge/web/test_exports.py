"""Tables as files and for programs."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pages
import pytest
from pages import NOON_US, Page, Service, fill
from shopdays import DATE, Day, store_values

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.days import kept
from edge.days.period import parse
from edge.reports.columns import COLUMNS
from edge.store.live_state import State
from edge.web.answers import Answers
from edge.web.exports import files
from edge.web.exports.openapi import openapi
from edge.web.exports.tables import TABLES, Source
from edge.words.tables import formula_safe

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
OPEN = [name for name, table in TABLES.items() if Role.VIEWER in table.roles]


def row_properties(described: dict[str, Any], name: str) -> dict[str, Any]:
    """Columns of a table as OpenAPI describes them."""
    answer = described["paths"][f"/api/tables/{name}"]["get"]["responses"]["200"]
    properties = answer["content"]["application/json"]["schema"]["properties"]
    return dict(properties["rows"]["items"]["properties"])


def sheets(content: bytes) -> dict[str, list[list[str]]]:
    """Rows of texts of every sheet of a workbook."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        texts = [
            "".join(part.text or "" for part in item.iter(f"{MAIN}t"))
            for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        ]
        names = [
            sheet.attrib["name"] for sheet in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{MAIN}sheet")
        ]
        found = {}
        for number, name in enumerate(names, 1):
            rows = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml")).iter(f"{MAIN}row")
            assert b"<f>" not in book.read(f"xl/worksheets/sheet{number}.xml"), "no formulas"
            found[name] = [
                [texts[int(c[0].text or "")] if c.get("t") == "s" else c[0].text or "" for c in row if len(c)]
                for row in rows
            ]
        return found


@pytest.mark.parametrize("name", OPEN)
async def test_the_same_table_in_every_form(service: Service, page: Page, name: str) -> None:
    fill(page.config)
    await page.until(State.LIVE)
    query = f"?date={DATE}&lang=en"
    status, headers, text = await page.get(f"/export/{name}.csv?date={DATE}")
    assert status == 200
    assert headers["Content-Disposition"] == f'attachment; filename="tagtrail-s1-{name}-{DATE}.csv"'
    assert text.startswith("\ufeff")
    lines = list(csv.reader(io.StringIO(text[1:])))
    last = ["as_of", "days"] if TABLES[name].of_day else ["as_of"]
    assert lines[0] == ["date", *TABLES[name].ids, *last]
    told = json.loads((await page.get(f"/api/tables/{name}{query}"))[2])
    assert (told["store"], told["table"]) == ("s1", name)
    assert told["as_of"] == "2026-03-14T12:00:00+08:00"
    assert [list(row) for row in told["rows"]] == [list(TABLES[name].ids)] * (len(lines) - 1)
    few = "paths", "tiers", "promotions", "layout", "lines", "cases", "against", "proposals", "sales", "weekdays"
    assert len(lines) > (name not in few)  # of which too few were seen to be shown, or none was
    status, headers, content = await page.load(f"/export/{name}.xlsx{query}")
    assert status == 200
    book = sheets(content)
    title = TABLES[name].title
    assert list(book) == ["tagtrail", title]
    dated = ["Days from", "Days to"] if TABLES[name].of_day else []
    assert book[title][0][len(TABLES[name].ids) :] == dated
    assert len(set(book[title][0])) == len(book[title][0]), "no heading twice"
    assert len(book[title]) == len(lines)


async def test_tables_are_of_the_days_that_they_say(page: Page) -> None:
    """Over several days where that makes sense, else of the last one; and the same number is the same everywhere."""
    for date, people in ((DATE - dt.timedelta(days=1), 50), (DATE, 40)):
        day = Day(page.config, date)
        for i in range(people):
            day.member(f"{date}{i}", "A")
            day.visit(f"{date}{i}", "shoes", f"08:{i}", 150, cls="member", member=f"M{i}")
        day.covered("04:00", "28:00", shoes=0.625)
        day.watermark("33:00")
        day.conn.close()
    described = json.loads((await page.get("/api/openapi.json"))[2])["paths"]
    for days, n in ((1, 40), (7, 90)):
        told = {
            name: json.loads((await page.get(f"/api/tables/{name}?date={DATE}&days={days}"))[2])
            for name in OPEN
            if TABLES[name].of_day
        }
        for name, table in told.items():
            asked = [parameter["name"] for parameter in described[f"/api/tables/{name}"]["get"]["parameters"]]
            assert ("days" in asked) == TABLES[name].spans
            assert table["days"] == (days if TABLES[name].spans else 1), name
            assert table["coverage"] == pytest.approx(4.625 / 5)
        shoes = {
            name: next(row for row in told[name]["rows"] if row["zone"] == "shoes")
            for name in ("dwell", "counters", "quality", "service")
        }
        assert {shoes[name]["n"] for name in ("dwell", "counters", "quality")} == {n}
        assert {row["coverage"] for row in shoes.values()} == {0.625}
        (tier,), (members,) = told["tiers"]["rows"], told["members"]["rows"]
        assert tier["members"] == members["members"] == n
        hours = [row["n"] for row in told["hours"]["rows"] if row["zone"] == "shoes" and row["n"]]
        assert hours == [n]
        traffic = [row for row in told["traffic"]["rows"] if row["floor"] == "F1" and row["members"]]
        assert [(row["hour"], row["members"]) for row in traffic] == [(f"{DATE}T08:00:00+08:00", n)]
        assert len(told["occupancy"]["rows"]) == (96 if days == 1 else 24) * 8
    _, headers, text = await page.get(f"/export/dwell.csv?from=2026-03-13&date={DATE}")
    assert headers["Content-Disposition"] == f'attachment; filename="tagtrail-s1-dwell-2026-03-13_{DATE}.csv"'
    assert {(row["date"], row["days"]) for row in csv.DictReader(io.StringIO(text[1:]))} == {(str(DATE), "2")}
    book = sheets((await page.load(f"/export/dwell.xlsx?date={DATE}&days=7&lang=en"))[2])["Dwell"]
    ends = [float((DATE - dt.timedelta(days=n) - dt.date(1899, 12, 30)).days) for n in (6, 0)]
    assert [[float(cell) for cell in row[-2:]] for row in book[1:]] == [ends] * len(page.config.zones)


async def test_need_and_trends_are_the_numbers_of_the_page(page: Page) -> None:
    day = Day(page.config)
    for hour in (10, 15):
        for i in range(40):
            day.visit(f"{hour}{i}", "shoes", f"{hour}:{i}", 100, journey=f"{hour}:{i}")
    day.visit("badge", "shoes", "10:00", 3600, cls="staff")
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    made = day.past.make(DATE)
    for back in range(15):
        kept.save(day.conn, day.config, replace(made, date=DATE - back * dt.timedelta(days=1)))
    need, trend, week = day.past.need(DATE), day.past.trend(DATE, "shoes"), day.past.week(DATE)
    day.conn.close()
    told = {
        name: json.loads((await page.get(f"/api/tables/{name}?date={DATE}"))[2])["rows"]
        for name in ("need", "proposals", "trends", "weekdays")
    }
    upstairs = [row for row in told["need"] if row["floor"] == "F1"]
    of_page = next(floor for floor in need.floors if floor.floor == "F1")
    assert [(row["wanted"], row["unserved"]) for row in upstairs] == [(h.wanted, h.unserved) for h in of_page.hours]
    assert sum(row["unserved"] for row in upstairs) == 40
    (one,) = told["proposals"]
    assert (one["zone"], one["more"], one["unserved"], one["per_staff_hour"]) == ("shoes", 1, 40, need.per_hour)
    assert (one["start"], one["end"]) == (f"{DATE}T15:00:00+08:00", f"{DATE}T16:00:00+08:00")
    shoes = [row for row in told["trends"] if row["zone"] == "shoes"]
    assert [row["visits"] for row in shoes] == [of.visits for of in trend]
    assert [row["day"] for row in shoes] == [of.date.isoformat() for of in trend]
    assert shoes[-1]["median_s"] == pytest.approx(trend[-1].median_s, abs=0.1)
    ten = [row for row in told["weekdays"] if (row["zone"], row["clock"]) == ("shoes", "10:00")]
    assert [row["mean_visits"] for row in ten] == [hours[6] for hours in week.zones["shoes"]] == [40] * 7
    assert [(row["weekday"], row["weekday_name"]) for row in ten][-1] == (7, "星期日")


async def test_headings_are_those_of_the_page_in_its_language(page: Page) -> None:
    fill(page.config)
    described = json.loads((await page.get("/api/openapi.json"))[2])
    draw = row_properties(described, "counters")["draw"]
    assert (draw["title"], draw["description"]) == ("Draw", "visitors ÷ journeys. Null: too little data.")
    for lang, heading in (("en", "Draw"), ("zh", "吸引率")):
        html = (await page.get(f"/counters?date={DATE}&lang={lang}"))[2]
        assert re.search(rf'<th scope="col" class="n"><a [^>]*>{heading}</a></th>', html)
        content = (await page.load(f"/export/counters.xlsx?date={DATE}&lang={lang}"))[2]
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            assert "draw\nvisitors ÷ journeys." in book.read("xl/comments1.xml").decode()
        first = list(sheets(content).values())[1][0]
        assert heading in first


async def test_a_workbook_speaks_the_language_asked_for(page: Page) -> None:
    fill(page.config)
    for lang, names, kind, interval in (
        ("en", ["Counters", "Zones by hour"], "counter", "Draw, lower limit"),
        ("zh", ["专柜", "区域分时"], "专柜", "吸引率, 下限"),
    ):
        book = sheets((await page.load(f"/export/all.xlsx?date={DATE}&lang={lang}"))[2])
        assert set(names) <= set(book)
        assert all(len(name) <= 31 for name in book)
        assert interval in book[names[0]][0]
        assert any(kind in row for row in book[names[0]][1:])
        if lang == "zh":
            assert [text for text in book["tagtrail"][1] if re.search("[a-z]", text)] == []
            headings = [text for rows in book.values() for text in rows[0]]
            assert [text for text in headings if re.fullmatch("[a-z_]{3,}", text)] == ["s1"] * headings.count("s1")
    bare, said = [
        list(csv.DictReader(io.StringIO((await page.get(f"/export/counters.csv?date={DATE}{more}"))[2][1:])))
        for more in ("", "&lang=zh")
    ]
    assert "counter" in {row["kind"] for row in bare}, "programs read codes"
    assert [heading for heading in said[0] if re.fullmatch("[a-z_]+", heading)] == []
    assert any("专柜" in row.values() for row in said)
    assert [len(row) for row in said] == [len(row) for row in bare], "no heading twice"


async def test_times_dates_and_changes_have_their_types_in_a_workbook(tmp_path: Path) -> None:
    tried = {"id": "spring", "name": "Spring", "zones": ["shoes"], "first_day": DATE, "last_day": DATE}
    config = StoreConfig.model_validate(store_values(tmp_path, promotions=[tried]))
    fill(config)
    async with pages.serving(config) as page:
        content = (await page.load(f"/export/all.xlsx?date={DATE}&lang=en"))[2]
        described = json.loads((await page.get("/api/openapi.json"))[2])
    assert row_properties(described, "promotions")["first_day"]["format"] == "date"
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        styles = ElementTree.fromstring(book.read("xl/styles.xml"))
        formats = {one.attrib["numFmtId"]: one.attrib["formatCode"] for one in styles.iter(f"{MAIN}numFmt")}
        xfs = [formats.get(xf.attrib["numFmtId"]) for xf in next(styles.iter(f"{MAIN}cellXfs"))]
        names = list(sheets(content))

        def cells(name: str, heading: str) -> list[tuple[str | None, str]]:
            """Number format and value of a column's cells below its heading."""
            rows = sheets(content)[name]
            column = chr(ord("A") + rows[0].index(heading))
            found = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{names.index(name) + 1}.xml")).iter(
                f"{MAIN}c"
            )
            return [
                (None if c.get("t") == "s" else xfs[int(c.get("s", "0"))], c[0].text or "")
                for c in found
                if re.fullmatch(rf"{column}\d+", c.attrib["r"]) and c.attrib["r"] != f"{column}1" and len(c)
            ]

        day = float((DATE - dt.date(1899, 12, 30)).days)
        assert {(form, float(value)) for form, value in cells("Promotions", "First day")} == {("yyyy-mm-dd", day)}
        starts = cells("Traffic", "Hour")
        assert {form for form, _ in starts} == {"yyyy-mm-dd hh:mm:ss"}
        assert float(starts[0][1]) == pytest.approx(day + 4 / 24)


async def test_all_tables_are_one_workbook(page: Page) -> None:
    fill(page.config)
    _, _, content = await page.load(f"/export/all.xlsx?date={DATE}&lang=en")
    book = sheets(content)
    assert list(book) == ["tagtrail", *(TABLES[name].title for name in OPEN)]
    front = dict(row for row in book["tagtrail"] if len(row) == 2)
    assert front["Store"] == "Store one"
    assert float(front["as of"]) == pytest.approx((DATE - dt.date(1899, 12, 30)).days + 0.5)


async def test_names_that_a_spreadsheet_would_run_are_disarmed(page: Page) -> None:
    fill(page.config)
    _, _, text = await page.get(f"/export/dwell.csv?date={DATE}")
    assert "'=Books()" in text
    assert ",=Books()" not in text
    wide = ("＝1+1", "＋1", "－1", "＠x", "﹢1", "−1", "\u3000＝1", "\u200b=1", "\ufeff+1", "\u00a0@x")
    for evil in ("=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n=1", *wide):
        assert str(formula_safe(evil)).startswith("'")
    for good in ("shoes", "", 3, -3, None, "a=1", "'x", "一楼＝东", "（=）", "\u3000"):
        assert formula_safe(good) == good


async def test_tables_that_do_not_exist_or_are_not_for_everybody(page: Page) -> None:
    for path in ("/export/passwords.csv", "/export/passwords.xlsx", "/api/tables/passwords", "/export/all.csv"):
        assert (await page.get(path))[0] == 404
    for path in ("/export/audit.csv", "/export/audit.xlsx", "/api/tables/audit"):
        assert (await page.get(path))[0] == 403
    assert (await page.get("/api/tables/dwell"))[0] == 503
    assert (await page.get("/api/tables/dwell?date=soon"))[0] == 400


async def test_who_took_a_file_is_written_down(page: Page, config: StoreConfig) -> None:
    fill(config)
    users = Users(users_path(config))
    users.put("chen", Role.IT, "correct horse battery")
    token = users.log_in("chen", "correct horse battery", "here")
    status, _, text = await page.get("/export/audit.csv", Cookie=f"tagtrail={token}")
    assert status == 200
    _, _, text = await page.get("/export/audit.csv", Cookie=f"tagtrail={token}")
    assert "export,tagtrail-s1-audit-" in text


async def test_the_audit_log_can_neither_be_flushed_nor_only_be_seen_in_part(page: Page, config: StoreConfig) -> None:
    fill(config)
    users = Users(users_path(config))
    cookies = {}
    for name, role in (("li", Role.MANAGER), ("chen", Role.IT)):
        users.put(name, role, "correct horse battery")
        cookies[name] = {"Cookie": f"tagtrail={users.log_in(name, 'correct horse battery', 'here')}"}
    users.record("li", "manager", "here", "looked at a member", "••••4567 #abcd")
    for number in range(450):
        users.record("li", "manager", "here", "export", f"file-{number}")
    path, pages_seen, text = "/audit?lang=en", 0, ""
    while path:
        _, _, html = await page.get(path, **cookies["chen"])
        text += html
        pages_seen += 1
        older = re.search(r'href="(/audit\?before=\d+)">Older', html)
        path = f"{older[1]}&lang=en" if older else ""
    assert pages_seen == 3
    assert all(text.count(f"file-{number}<") == 1 for number in range(450))
    assert "#abcd" in text
    assert "#abcd" in (await page.get("/export/audit.csv", **cookies["chen"]))[2]
    _, _, content = await page.load("/export/audit.xlsx", **cookies["chen"])
    assert any("••••4567 #abcd" in row for row in next(iter(list(sheets(content).values())[1:])))
    told = json.loads((await page.get("/api/tables/audit", **cookies["chen"]))[2])
    assert told["next"] is None
    assert any(row["object"] == "••••4567 #abcd" for row in told["rows"])
    below = told["rows"][10]["line"]
    rest = json.loads((await page.get(f"/api/tables/audit?before={below}", **cookies["chen"]))[2])
    assert rest["rows"] == told["rows"][11:]
    for nonsense in ("x", "-1", "1" * 20, "١"):
        assert (await page.get(f"/audit?before={quote(nonsense)}", **cookies["chen"]))[0] == 400
        assert (await page.get(f"/api/tables/audit?before={quote(nonsense)}", **cookies["chen"]))[0] == 400


async def test_a_long_audit_log_is_handed_out_piece_by_piece(
    page: Page, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.words.tables.PIECE_CHARS", 200)
    monkeypatch.setattr(files, "MOST_ROWS", 8)
    monkeypatch.setattr("edge.access.users.AUDIT_ROWS", 5)
    users = Users(users_path(config))
    users.put("chen", Role.IT, "correct horse battery")
    cookie = {"Cookie": f"tagtrail={users.log_in('chen', 'correct horse battery', 'here')}"}
    for number in range(23):
        users.record("x", "manager", "here", "export", f"file-{number:02}")
    text = (await page.get("/export/audit.csv", **cookie))[2]
    assert re.findall(r"file-(\d\d)", text) == [f"{n:02}" for n in reversed(range(23))]
    found, path = [], "/api/tables/audit"
    while path:
        told = json.loads((await page.get(path, **cookie))[2])
        found += [row["object"] for row in told["rows"]]
        path = f"/api/tables/audit?before={told['next']}" if told["next"] else ""
    assert [one for one in found if one.startswith("file-")] == [f"file-{n:02}" for n in reversed(range(23))]


@pytest.mark.parametrize(
    ("role", "path", "line"),
    [
        (Role.MANAGER, "/api/tables/cues", f"cues {DATE}"),
        (Role.MANAGER, "/api/tables/suspects", f"suspects {DATE}"),
        (Role.IT, "/api/tables/audit", "audit"),
        (Role.MANAGER, "/members", str(DATE)),
        (Role.IT, "/quality", str(DATE)),
    ],
)
async def test_looks_at_lists_of_individuals_are_written_down(
    page: Page, config: StoreConfig, role: Role, path: str, line: str
) -> None:
    fill(config)
    users = Users(users_path(config))
    users.put("li", role, "correct horse battery")
    cookie = {"Cookie": f"tagtrail={users.log_in('li', 'correct horse battery', 'here')}"}
    for _ in range(3):
        assert (await page.get(f"{path}?date={DATE}", **cookie))[0] == 200
    assert [one.object for one in users.audit()] == [line], "once, however often it is asked"
    assert (await page.get(f"/api/tables/dwell?date={DATE}", **cookie))[0] == 200
    assert len(users.audit()) == 1, "counts are nobody's"


async def test_openapi_describes_every_table(page: Page) -> None:
    told = json.loads((await page.get("/api/openapi.json"))[2])
    assert told["openapi"] == "3.1.0"
    assert {f"/api/tables/{name}" for name in TABLES} < set(told["paths"])
    for name, table in TABLES.items():
        schema = told["paths"][f"/api/tables/{name}"]["get"]["responses"]["200"]["content"]["application/json"][
            "schema"
        ]
        properties = schema["properties"]["rows"]["items"]["properties"]
        assert list(properties) == list(table.ids)
        assert all(entry["description"] for entry in properties.values())
    assert all(table.about for table in TABLES.values())
    assert set(COLUMNS) == set(TABLES)
    assert set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(openapi("1")))) == {"Error"}


async def test_answers_keep_to_their_description(service: Service, page: Page) -> None:
    fill(page.config)
    await page.until(State.LIVE)
    allowed = {"integer": int, "number": (int, float), "string": str, "null": type(None)}
    told = json.loads((await page.get("/api/openapi.json"))[2])
    for name in OPEN:
        properties = row_properties(told, name)
        for row in json.loads((await page.get(f"/api/tables/{name}?date={DATE}"))[2])["rows"]:
            for column, value in row.items():
                kinds = tuple(allowed[kind] for kind in properties[column]["type"])
                assert isinstance(value, kinds), (name, column, value)  # type: ignore[arg-type]


def test_readers_are_unknown_without_the_service(config: StoreConfig) -> None:
    rows = TABLES["readers"].cells(
        Source(config, "en", parse({}, DATE, config), None, None, lambda: (), Answers(config))
    )
    assert [row[:3] for row in rows] == [("r1", "llrp", "unknown")]


async def test_members_are_masked_until_a_manager_looks_and_that_is_written_down(
    page: Page, config: StoreConfig
) -> None:
    fill(config)
    day = Day(config)
    day.member("m", "A")
    day.conn.execute("UPDATE directory SET member = 'M-1234567'")
    for number in range(3):
        start_us = NOON_US - (number + 1) * 86_400_000_000
        path = json.dumps([["door", start_us, start_us + 40_000_000], ["books", start_us + 50_000_000, NOON_US]])
        day.conn.execute(
            "INSERT INTO journey (tag, tag_class, member, start_us, end_us, censored, path)"
            " VALUES (x'00', 1, 'M-1234567', ?, ?, 0, ?)",
            (start_us, start_us + 10, path),
        )
    day.conn.close()
    users = Users(users_path(config))
    cookies = {}
    for name, role in (("li", Role.MANAGER), ("wall", Role.VIEWER), ("chen", Role.IT)):
        users.put(name, role, "correct horse battery")
        cookies[name] = f"tagtrail={users.log_in(name, 'correct horse battery', 'here')}"
    for name in ("wall", "chen"):
        html = (await page.get("/members?lang=en", Cookie=cookies[name]))[2]
        assert "1234567" not in html
        assert "/members/look" not in html
    html = (await page.get("/members?lang=en", Cookie=cookies["li"]))[2]
    assert "1234567" not in html
    form = re.search(
        r'name="csrf" value="([^"]+)"><input type="hidden" name="date" value="([^"]+)">'
        r'<input type="hidden" name="ref" value="([^"]+)"',
        html,
    )
    assert form is not None
    fields = f"csrf={form[1]}&date={form[2]}&ref={form[3]}"
    assert (await page.get("/members/look", "POST", fields, Cookie=cookies["wall"]))[0] == 403
    assert (await page.get("/members/look", "POST", fields[9:], Cookie=cookies["li"]))[0] == 403
    before = [line.action for line in users.audit()]
    assert "looked at a member" not in before
    status, _, html = await page.get("/members/look?lang=en", "POST", fields, Cookie=cookies["li"])
    assert status == 200
    assert "M-1234567" in html
    assert "3 of 3 journeys in 90 days" in html
    line = users.audit()[0]
    assert (line.name, line.action) == ("li", "looked at a member")
    assert "1234567" not in line.object
    assert (await page.get("/members/look", "POST", fields[:-1] + "z", Cookie=cookies["li"]))[0] == 404
