"""What a simulated shop sells: of where people were, the same for the same people, and nothing that is refused."""

from __future__ import annotations

from pathlib import Path

from shopdays import DATE, Day, store_values

from config import StoreConfig
from edge.crm.sales_csv import import_csv
from simulators.headquarters.tills import Tills
from simulators.shop import tills
from simulators.shop.score import Stay
from sync.down import Sales

HOUR_US = 3_600_000_000


def people(day: Day, n: int, seconds: float, zone: str = "shoes", epc: str = "2d") -> list[Stay]:
    return [
        Stay(f"{epc}{i:06x}", zone, day.us(f"10:{i % 40}"), day.us(f"10:{i % 40}") + round(seconds * 1e6))
        for i in range(n)
    ]


def test_more_is_sold_to_more_people_who_stay_longer(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    day = Day(config)
    span = day.us("09:30"), day.us("12:10")

    def sold(stays: list[Stay], seed: int = 1) -> dict[tuple[str, int], tills.Sale]:
        found = tills.sales(config, stays, *span, seed)
        return {(sale.zone, (sale.hour_us - day.us("00:00")) // HOUR_US): sale for sale in found}

    few, many, longer = (sold(people(day, *args)) for args in ((40, 60), (400, 60), (400, 600)))
    assert set(few) == {(zone, hour) for zone in ("shoes", "bags", "books") for hour in (9, 10, 11)}
    at = "shoes", 10
    assert few[at].tickets < many[at].tickets < longer[at].tickets < 400
    assert longer[at].units >= longer[at].tickets
    assert longer[at].amount > 0
    assert {sale.tickets for key, sale in longer.items() if key != at} == {0}
    assert sold(people(day, 400, 600)) == longer
    assert sold(people(day, 400, 600), seed=2) != longer
    assert sold(people(day, 400, 600, epc="2e"))[at].tickets == 0, "staff buys nothing"
    assert tills.sales(config, people(day, 9, 60), day.us("10:30"), day.us("10:50"), 1) == []
    day.conn.close()


def test_headquarters_sends_what_was_not_taken_or_has_changed(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    day = Day(config)
    file = tmp_path / "tills.csv"
    told = Tills(file, "s1")
    assert told.due() == []
    tills.write(file, config, tills.sales(config, people(day, 90, 300), day.us("10:00"), day.us("12:00"), 1))
    messages = [Sales.model_validate_json(message, strict=True) for message in told.due()]
    assert [message.hours[0].hour_us for message in messages] == [day.us("10:00"), day.us("11:00")]
    told.taken(messages[0].id)
    assert [Sales.model_validate_json(message).id for message in told.due()] == [messages[1].id]
    tills.write(file, config, tills.sales(config, people(day, 99, 300), day.us("10:00"), day.us("12:00"), 1))
    assert len(told.due()) == 2
    done = import_csv(config, file, day.us("13:00"))
    assert (done.hours, done.problems) == (6, [])
    assert day.past.conn.execute("SELECT sum(tickets) FROM sales").fetchone()[0] > 0
    assert DATE.isoformat() in dict(day.conn.execute("SELECT date, changes FROM sales_day"))
    day.conn.close()
