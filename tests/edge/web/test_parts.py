"""Parts of the page that need no server: translations, plans, colours, masks."""

from __future__ import annotations

import ast
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import chinese_calendar
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from sayings import MARK, sayings
from shopdays import ZONES, store_values

import edge.web
from config import StoreConfig
from config.check import load
from config.model import Thresholds
from edge.days.flows import ZoneFlows, ZoneTransition
from edge.web.drawings.charts import MOST_LINKS, sankey
from edge.web.drawings.now import mask, masks
from edge.web.drawings.plan import label_rectangle, plans
from edge.words.languages import catalogue, negotiate, parse_po, reason
from edge.words.numbers import in_words

WEB = Path(edge.web.__path__[0])
LOCALE = WEB.parent / "words" / "locale"
PLACES = re.compile(r"%\(\w+\)s|\{\w+\}")


def messages() -> dict[str, str]:
    """Every message of templates and code → its file; of plurals both forms."""
    found: dict[str, str] = {}
    environment = Environment(extensions=["jinja2.ext.i18n"])
    for template in sorted((WEB / "templates").iterdir()):
        for _, _, message in environment.extract_translations(template.read_text("utf-8")):
            for text in [message] if isinstance(message, str) else [part for part in message if part]:
                found[text] = template.name
    for source in WEB.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                found[ast.literal_eval(node.args[0])] = source.name
    return found


def test_everything_the_page_says_is_said_in_both_languages() -> None:
    said = messages()
    assert len(said) > 100
    po = (LOCALE / "zh.po").read_text("utf-8")
    ids = re.findall(r'^msgid "(.+)"$', po, re.MULTILINE)
    assert [text for text, n in Counter(ids).items() if n > 1] == [], "translated twice"
    plurals = set(re.findall(r'^msgid_plural "(.*)"$', po, re.MULTILINE))
    chinese = catalogue("zh").messages
    missing = {text: file for text, file in said.items() if text not in chinese and text not in plurals}
    assert missing == {}
    assert set(chinese) - set(said) == set(), "translated, but nobody says it"
    for text, translated in chinese.items():
        assert set(PLACES.findall(translated)) <= set(PLACES.findall(text)) | {"%(num)s"}, text
        assert re.search("[一-鿿]", translated), text


def test_every_public_holiday_has_a_chinese_name() -> None:
    assert {holiday.value for holiday in chinese_calendar.Holiday} <= set(catalogue("zh").messages)


def test_templates_say_nothing_that_is_not_translated() -> None:
    for template in (WEB / "templates").iterdir():
        text = re.sub(r"\{[{%#].*?[}%#]\}", " ", template.read_text("utf-8"), flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", " ", text)
        words = set(re.findall(r"[A-Za-z]{3,}", text)) - {"Tagtrail", "CSV", "API", "doctype"}
        assert words == set(), template.name


def sentences() -> set[str]:
    """Every string of readers' drivers, the broker's client, the timekeeper and the jobs; `{}` for a value in it."""
    found = set()
    root = WEB.parent.parent
    for folder in ("drivers", "sync", "edge/store", "edge/doctor", "edge/forwarding", "edge/standby", "edge/service"):
        for source in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(source.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value.replace("@STORE", "@{}"))  # as an examination names the store's unit
                elif isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                    found.add("".join(map(str, parts)))
    return found


def test_what_readers_and_broker_report_is_said_in_chinese_too() -> None:
    translated = parse_po((LOCALE / "reasons.zh.po").read_text("utf-8"))
    said = sentences()
    assert len(translated) > 30
    for text, chinese in translated.items():
        assert re.sub(r"\{\w+\}", "{}", text) in said, f"nobody says {text}"
        assert sorted(PLACES.findall(text)) == sorted(PLACES.findall(chinese)), text
        values = {place[1:-1]: f"<{n}>" for n, place in enumerate(PLACES.findall(text))}
        assert reason(text.format_map(values), "zh") == chinese.format_map(values)
        assert reason(text, "en") == text
    refused = "10.0.0.7:5084 refused the connection: is LLRP switched on, is the port right?"
    assert reason(refused, "zh") == "10.0.0.7:5084 拒绝连接：是否已启用 LLRP，端口是否正确？"
    silent = (
        "no M100 reader answers on /dev/rfid/a at 9600 and 115200 baud: check its power and cable and the driver's name"
    )
    assert reason(silent, "zh").startswith("/dev/rfid/a at 9600 and 115200 baud 上没有 M100 读写器")
    lacking = "it does not read: it does not have the antennas in the store file (status 1)"
    assert reason(lacking, "zh") == "读写器无法读取：读写器没有门店配置中的天线（状态 1）"
    assert reason("it refuses ports above 8: unknown (code 47)", "zh").startswith("读写器不接受 8 以上的端口")
    assert reason("a word of {nobody}", "zh") == "a word of {nobody}"


def test_everything_that_drivers_say_of_readers_is_said_in_chinese() -> None:
    wrong = {}
    for where, text in sayings():
        said = text
        for number in range(1, said.count(MARK) + 1):
            said = said.replace(MARK, f"<{number}>", 1)
        chinese = reason(said, "zh")
        kept = sorted(re.findall(r"<\d>", chinese)) == sorted(re.findall(r"<\d>", said))
        if not (kept and re.search("[一-鿿]", chinese)):
            wrong[where] = chinese
    assert wrong == {}


def test_a_catalogue_with_what_it_cannot_hold_is_refused() -> None:
    assert parse_po('msgid "a\\"b"\nmsgstr ""\n"x "\n"y"\n\n# c\nmsgid "z"\nmsgstr ""\n') == {'a"b': "x y"}
    assert parse_po('msgid "n"\nmsgid_plural "ns"\nmsgstr[0] "N"\n') == {"n": "N"}
    with pytest.raises(ValueError, match="line 3"):
        parse_po('msgid "a"\nmsgstr "b"\nmsgctxt "menu"\n')


def test_plurals() -> None:
    assert catalogue("en").ngettext("%(num)s zone", "%(num)s zones", 1) == "%(num)s zone"
    assert catalogue("en").ngettext("%(num)s zone", "%(num)s zones", 2) == "%(num)s zones"
    assert catalogue("zh").ngettext("person", "people", 2) == "人"


@given(st.text(max_size=60))
def test_any_language_header_gives_a_language(header: str) -> None:
    assert negotiate(header) in ("zh", "en")


@pytest.mark.parametrize(
    ("member", "masked"), [("M-1234567", "••••4567"), ("12345", "••••45"), ("123", "••••"), ("", "••••")]
)
def test_masks(member: str, masked: str) -> None:
    assert mask(member) == masked


def test_members_shown_together_look_different() -> None:
    assert masks(["M-1234567", "M-7654321"]) == {"M-1234567": "••••4567", "M-7654321": "••••4321"}
    assert masks(["M-1234567", "M-1254567"]) == {"M-1234567": "••••34567", "M-1254567": "••••54567"}
    assert masks(["M-1234567", "M-2234567"]) == {"M-1234567": "••••1••4567", "M-2234567": "••••2••4567"}
    assert masks(["7", "8"]) == {"7": "••••", "8": "••••"}, "nothing is left to hide in a short number"


@given(st.sets(st.from_regex(r"[A-Z]?-?[0-9]{4,9}", fullmatch=True), max_size=12))
def test_masks_tell_any_members_apart(members: set[str]) -> None:
    found = masks(members)
    assert set(found) == members
    assert len(set(found.values())) == len(members)
    assert all(member not in text for member, text in found.items() if len(member) > 5)


def test_plans_have_north_up(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    ground, first = plans(config)
    assert (ground.id, first.id) == ("F1", "F2")
    assert ground.view_box == "-1 -10 17 11"
    assert ground.zones[0].points == "0,0 4,0 4,-4 0,-4"
    assert [zone.id for zone in first.zones] == ["hall", "books", "attic"]


def test_a_label_stands_inside_an_angled_zone() -> None:
    bags = next(zone[4] for zone in ZONES if zone[0] == "bags")
    assert label_rectangle([(x, y) for x, y in bags]) == pytest.approx((12, 0, 15, 9))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_labels_of_angled_zones_lie_inside(a: int, b: int, c: int, d: int) -> None:
    polygon = [(0, 0), (a + b, 0), (a + b, c), (a, c), (a, c + d), (0, c + d)]
    x0, y0, x1, y1 = label_rectangle(polygon)
    area = (a + b) * c + a * d
    if area < 0.85 * (a + b) * (c + d):
        assert (x1 <= a + 1e-9) or (y1 <= c + 1e-9)
        assert (x1 - x0) * (y1 - y0) == pytest.approx(max((a + b) * c, a * (c + d)))
    else:
        assert (x0, y0, x1, y1) == (0, 0, a + b, c + d)


def test_a_sankey_is_not_a_tangle(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    ids = [zone.id for zone in config.zones]
    links = (*(ZoneTransition(a, b, 9) for a in ids for b in ids if a != b), ZoneTransition("closed-zone", "door", 99))
    drawn = sankey(config, ZoneFlows(links * 2, 0, 0, 0, 0), "zh")
    assert drawn.count("9") == MOST_LINKS
    assert "正门" in drawn


def test_the_demo_store_is_drawn_whole() -> None:
    config = load(Path(__file__).parents[3] / "config" / "demo.toml")
    drawn = [zone for plan in plans(config) for zone in plan.zones]
    assert {zone.id for zone in drawn} == {zone.id for zone in config.zones}
    for zone in drawn:
        assert min(zone.label.width, zone.label.height) > 5, zone.id


def colours(dark: bool) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", (WEB / "static" / "app.css").read_text("utf-8"), re.DOTALL)
    light, night = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return light | night if dark else light


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(dark: bool) -> None:
    named = colours(dark)
    pairs = [(f"on{level}", f"lv{level}") for level in range(6)]
    pairs += [(text, ground) for text in ("ink", "soft", "accent") for ground in ("card", "ground")]
    pairs += [(state, f"{state}-soft") for state in ("good", "warn", "bad")]
    pairs += [("soft", "hatch"), ("soft", "warn-soft"), ("soft", "bad-soft"), ("accent", "accent-soft")]
    poor = {pair: round(contrast(*(named[name] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("dark", [False, True])
def test_shades_of_the_plan_grow_steadily(dark: bool) -> None:
    named = colours(dark)
    ground = named["card"]
    steps = [contrast(named[f"lv{level}"], ground) for level in range(6)]
    assert all(after > before for before, after in pairwise(steps))


def test_definitions_name_every_threshold_and_its_default() -> None:
    text = (Path(__file__).parents[3] / "docs" / "definitions.md").read_text("utf-8")
    told = dict(re.findall(r"`([a-z_]+)` \(([^)`]+)\)", text))
    machinery = {"def_version", "lateness_s", "recognition_ttl_s"}  # no number of people's depends on them
    limits = Thresholds()
    assert set(told) - {"wait_s"} == set(Thresholds.model_fields) - machinery
    for name, value in told.items():
        default = getattr(limits, name)
        if name.endswith("_s"):
            assert value in (in_words(default, "en"), f"{default:g} s"), name
        else:
            assert value in (str(default), f"{default:.0%}".replace("%", " %") if isinstance(default, float) else ""), (
                name
            )


@pytest.mark.parametrize(
    ("seconds", "chinese", "english"),
    [
        (30, "30 秒", "30 s"),
        (120, "2 分钟", "2 min"),
        (5400, "1 小时 30 分钟", "1 h 30 min"),
        (28_800, "8 小时", "8 h"),
        (0.25, "0.25 秒", "0.25 s"),
    ],
)
def test_durations_in_words(seconds: float, chinese: str, english: str) -> None:
    assert (in_words(seconds, "zh"), in_words(seconds, "en")) == (chinese, english)
