"""The pictures of README and docs: the demo's store with five made-up weeks, before Chromium. `make pictures`."""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from pages import NOON_US  # noqa: E402
from playwright import sync_api  # noqa: E402
from shopdays import DATE, Day  # noqa: E402
from sites import FLAGS, PASSWORD, browser, running  # noqa: E402

from config import StoreConfig  # noqa: E402
from config.check import load  # noqa: E402
from edge.access.users import Role, Users, users_path  # noqa: E402
from edge.crm.sales import Sold, Terms, take  # noqa: E402
from edge.days import kept, sold  # noqa: E402
from edge.days.history import History  # noqa: E402

FOLDER = ROOT / "docs" / "pictures"
PAGES = {
    "now": "/",
    "wall": "/?wall=1",
    **{name: f"/{name}" for name in ("today", "plan", "counters", "flows", "promotions", "layout", "members")},
    **{name: f"/{name}" for name in ("service", "quality", "readers")},
    "performance": "/counters?view=trend&days=7",
}
SIZE: sync_api.ViewportSize = {"width": 1240, "height": 860}
WALL: sync_api.ViewportSize = {"width": 1920, "height": 1080}
DAYS = 29
LYING = (b"lost card in a drawer", b"a student who helps out")
PLAN = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 230" fill="none" stroke="#000" stroke-width="1.5">
<path d="M10 90V10H410V90M410 160V220H10V160" stroke-width="5"/>
<path d="M10 90V160M410 90V160" stroke-dasharray="6 4"/>
<g fill="#000">{pillars}</g>
<path d="M330 30h60v46h-60zM338 30v46m8-46v46m8-46v46m8-46v46m8-46v46m8-46v46"/>
<path d="M355 182h40v24h-40zM375 182v24"/>
<path d="M92 22h56v36h-56zM192 32h36v30h-36zM282 32h36v30h-36zM86 156h48v38h-48zM178 156h60v44h-60z" stroke-width="1"/>
</svg>
"""
"""Walls, doors, pillars, escalator, lift and furniture of the ground floor."""
DAY_US = 86_400_000_000
ONE = kept.DAY


def store(folder: Path) -> StoreConfig:
    """The demo's store file with hours, a promotion and a move."""
    with resources.as_file(resources.files("config") / "demo.toml") as file:
        values = load(file, files=False).model_dump(by_alias=True, exclude_unset=True)
    values["database"]["path"] = folder / "store.db"
    values["opening_hours"] = [{"open": "10:00", "close": "22:00"}]
    values["promotions"] = [
        {
            "id": "spring-shoes",
            "name": {"zh": "春季鞋展", "en": "Spring shoes"},
            "zones": ["shoes"],
            "first_day": DATE - 6 * ONE,
            "last_day": DATE + ONE,
        }
    ]
    values["layout_changes"] = [
        {"id": "bags", "name": {"zh": "箱包搬迁", "en": "Bags moved"}, "zones": ["bags"], "date": DATE - 6 * ONE}
    ]
    pillars = "".join(f'<path d="M{x} {y}h5v5h-5z"/>' for x in range(60, 400, 54) for y in (84, 160))
    plan = folder / "f1.svg"
    plan.write_text(PLAN.format(pillars=pillars), encoding="utf-8")
    values["floors"][0]["image"] = {"file": plan, "left": -1, "bottom": 1, "width": 42, "height": 23}
    return StoreConfig.model_validate(values)


def weeks(config: StoreConfig) -> None:
    """Four weeks and a day: people who walk from the entrance by aisles and counters to the exit, and staff."""
    day = Day(config)
    for back in reversed(range(DAYS)):
        _day(day, back)
    day.watermark("20:30")
    for back in range(1, DAYS):
        kept.save(day.conn, config, replace(History(day.conn, config).make(DATE - back * ONE), complete=True))
    past = History(day.conn, config)
    while (found := sold.missing(past)) is not None:
        sold.save(day.conn, config, *found, sold.make(past, found[0]))
    day.conn.close()
    users = Users(users_path(config))
    for name, role in (("li", Role.MANAGER), ("wall", Role.VIEWER)):
        users.put(name, role, PASSWORD)
    users.close()


def _day(day: Day, back: int) -> None:
    dice = random.Random(back)
    date = DATE - back * ONE
    floor_of = {zone.id: zone.floor for zone in day.config.zones}
    counters = [zone.id for zone in day.config.zones if zone.kind.value in ("counter", "fitting_room")]
    weight = [0.4 + (n * 7919 % 10) / 6 for n in range(len(counters))]
    if back < 7:
        weight[counters.index("shoes")] *= 1.5
    last_s = 20.5 * 3600 if back == 0 else 22 * 3600
    rows: list[tuple[Any, ...]] = []
    midnight_us = day.us("00:00") - back * DAY_US

    def stay(tag: bytes, cls: int, member: str | None, zone: str, at_s: float, long_s: float, journey_s: float) -> None:
        if at_s + long_s <= last_s:
            times = (midnight_us + round(s * 1e6) for s in (at_s, at_s + long_s, journey_s))
            rows.append((tag, cls, member, zone, *times))

    for number in range(round((420 if back else 520) * (1.5 if date.weekday() >= 5 else 1))):
        who = dice.randrange(400)
        member = f"M-{1_000_000 + who}" if number % 8 == 0 else None
        tag = b"card%06d" % who if member else dice.randbytes(16)
        if member:
            day.conn.execute(
                "INSERT OR IGNORE INTO directory (tag, member, tier, consent) VALUES (?, ?, ?, 1)",
                (tag, member, "ABC"[min(2, who * 5 // 400)]),
            )
        begin = at = dice.triangular(10, 21.8, 17) * 3600
        way = ["f1-entrance", "f1-aisle"]
        for zone in dict.fromkeys(dice.choices(counters, weight, k=dice.randrange(1, 5))):
            way += [f"{floor_of[zone].lower()}-aisle"] * (dice.random() < 0.7) + [zone]
        way += ["f1-exit"] * (dice.random() < 0.8)
        for zone in way:
            ways = zone.endswith(("aisle", "entrance", "exit"))
            long = dice.uniform(4, 25) if ways else dice.lognormvariate(4.0, 1.1)
            stay(tag, 1 if member else 0, member, zone, at, long, begin)
            at += long + dice.uniform(1, 9)
    for badge in range(20):
        zone = counters[badge % len(counters)]
        at = 10 * 3600 + dice.uniform(0, 900)
        while at < 21.8 * 3600:
            long = dice.uniform(60, 300)
            stay(b"badge%d" % badge, 3, None, zone, at, long, 36_000)
            at += long + dice.uniform(60, 400)
    for hour in range(10, 20):
        stay(LYING[0], 0, None, "watches", hour * 3600, 3500, 36_000)
        stay(
            LYING[1],
            0,
            None,
            ("home", "bedding", "f3-stockroom")[hour % 3],
            hour * 3600,
            3400,
            36_000,
        )
    tickets: dict[tuple[str, int], int] = {}
    for tag, cls, _, zone, enter_us, exit_us, _ in rows:
        buys = dice.random() < 0.12 * min(1.0, (exit_us - enter_us) / 9e7)
        if zone in counters and cls in (0, 1) and tag not in LYING and buys:
            hour_us = enter_us // 3_600_000_000 * 3_600_000_000
            tickets[zone, hour_us] = tickets.get((zone, hour_us), 0) + dice.choice((1, 1, 2))
    if back < 7:
        tickets = {key: n for key, n in tickets.items() if key[0] != "jewellery" or n > 1}
    hours = range(midnight_us + 10 * 3_600_000_000, midnight_us + round(last_s * 1e6) - 3_599_999_999, 3_600_000_000)
    told = [(zone, hour_us, tickets.get((zone, hour_us), 0)) for zone in counters for hour_us in hours]
    made = [Sold(zone, at, n, n + n // 3, n * dice.randrange(8_000, 90_000)) for zone, at, n in told]
    rows.sort(key=lambda row: row[4])
    day.conn.execute("BEGIN")
    take(day.conn, day.config, made, Terms(hours.stop, "CNY"))
    day.conn.executemany(
        "INSERT INTO visit (tag, tag_class, member, zone, enter_us, exit_us, journey_us, reads, censored, confidence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 9, 0, 0.9)",
        rows,
    )
    day.conn.executemany(
        "INSERT INTO journey (tag, tag_class, member, start_us, end_us, censored, path)"
        " VALUES (?, 1, ?, ?, ?, 0, '[]')",
        {(tag, member, journey, journey + 1) for tag, _, member, _, _, _, journey in rows if member},
    )
    first_us = day.us("04:00") - back * DAY_US
    end_us = day.us("20:15") if back == 0 else first_us + DAY_US
    day.conn.executemany(
        "INSERT OR REPLACE INTO aggregate VALUES (?, ?, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?, 1, x'')",
        [
            (
                at,
                zone.id,
                0.0 if zone.id in ("watches", "jewellery") and 16 <= (at - first_us) / 3.6e9 + 4 < 17 else 1.0,
            )
            for at in range(first_us, end_us, 900_000_000)
            for zone in day.config.zones
        ],
    )
    day.conn.execute("COMMIT")


def tell(config: StoreConfig, told: dict[str, Any]) -> None:
    """The store now."""
    dice = random.Random(3)
    now_us = NOON_US + 30_600_000_000
    told.update(as_of_us=now_us, watermark_us=now_us, store=config.store.id, reads_per_s=412)
    told["zones"] = [
        {
            "id": zone.id,
            "floor": zone.floor,
            "state": "unknown" if zone.id == "lingerie" else "ok",
            "people": dice.choice((0, 1, 2, 3, 4, 6, 9, 14)),
            "by_class": {"member": dice.randrange(2), "staff": dice.randrange(2)},
        }
        for zone in config.zones
    ]
    told["members"] = [
        {"member": f"M-{1_000_100 + n}", "tier": "ABC"[n % 3], "zone": zone, "since_us": now_us - n * 77_000_000}
        for n, zone in enumerate(("shoes", "cosmetics", "womenswear", "digital", "home"))
    ]
    told["recognitions"] = [
        {"at_us": now_us - n * 181_000_000, "member": f"M-{1_000_104 - n}", "tier": "CBA"[n % 3], "zone": "f1-entrance"}
        for n in range(5)
    ]
    told["readers"] = [
        {
            "id": reader.id,
            "driver": reader.driver,
            "link": "down" if reader.id == "f2-middle" else "up",
            "reason": "no answer to keepalives for 10 s" if reader.id == "f2-middle" else "",
            "since_us": now_us - 3_600_000_000,
            "reads": 90_000 + 71 * n,
            "reads_per_s": 0 if reader.id == "f2-middle" else 40.5 + n,
            "clock_offset_us": 800 * n,
        }
        for n, reader in enumerate(config.readers)
    ]


def main(chromium: str) -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = store(Path(folder))
        with running(Path(folder), config, weeks, tell) as site, sync_api.sync_playwright() as playwright:
            launched = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
            for lang, locale in (("en", "en-GB"), ("zh", "zh-CN")):
                context = launched.new_context(locale=locale)
                page = context.new_page()
                page.goto(site.url + "/login")
                page.fill('input[name="name"]', "li")
                page.fill('input[name="password"]', PASSWORD)
                page.click("button.primary")
                for name, path in PAGES.items():
                    page.set_viewport_size(WALL if name == "wall" else SIZE)
                    page.goto(site.url + path)
                    if name == "flows":
                        page.wait_for_selector("#sankey svg.main-svg")
                    if name in ("now", "wall"):
                        page.wait_for_selector('[data-state="live"]')
                    page.screenshot(path=FOLDER / f"{name}-{lang}.png")
                    print(f"{name}-{lang}.png")
                context.close()
            launched.close()


if __name__ == "__main__":
    main(browser() or sys.exit("install chromium-headless-shell or chromium first"))
