"""Common names of time zones and their IANA names."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from zoneinfo import available_timezones

_CITIES = {
    "Asia/Shanghai": "beijing peking guangzhou shenzhen chengdu hangzhou nanjing wuhan suzhou tianjin xian xi'an dalian"
    " qingdao xiamen changsha zhengzhou shenyang jinan hefei fuzhou ningbo kunming china cst 'china standard time'"
    " 北京 上海 中国 北京时间 中国标准时间",
    "Asia/Hong_Kong": "hongkong 香港",
    "Asia/Macau": "macao 澳门",
    "Asia/Taipei": "taiwan 台北",
    "Asia/Tokyo": "osaka kyoto nagoya",
    "Asia/Kolkata": "delhi mumbai bangalore ist",
    "Asia/Ho_Chi_Minh": "hanoi",
    "Europe/Berlin": "munich frankfurt hamburg cologne cet",
    "Europe/Rome": "milan",
    "Europe/Madrid": "barcelona",
    "Europe/Zurich": "geneva",
    "Europe/London": "manchester gmt",
    "America/New_York": "boston washington miami est",
    "America/Chicago": "houston dallas",
    "America/Los_Angeles": "seattle san_francisco pst",
}
_MEANT = {
    (quoted or word).replace(" ", "_"): zone
    for zone, words in _CITIES.items()
    for quoted, word in re.findall(r"'(.+?)'(?=\s|$)|(\S+)", words)
}
_OF_OFFSET = {
    -480: "America/Los_Angeles",
    -360: "America/Chicago",
    -300: "America/New_York",
    -180: "America/Sao_Paulo",
    0: "Europe/London",
    60: "Europe/Berlin",
    120: "Europe/Athens",
    180: "Europe/Moscow",
    240: "Asia/Dubai",
    330: "Asia/Kolkata",
    420: "Asia/Bangkok",
    480: "Asia/Shanghai",
    540: "Asia/Tokyo",
    600: "Australia/Sydney",
}
"""Minutes ahead of UTC in winter → a well-known zone."""
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])(\d{1,2})(?::?(\d\d))?")


@cache
def known() -> frozenset[str]:
    """Names of all time zones. Finding them means to look through hundreds of files."""
    return frozenset(available_timezones())


def meant(name: str) -> str | None:
    """Guess the IANA name for an unknown time zone name; None if there is no likely match."""
    zones = known()
    told = re.sub(r"\s+", "_", name.strip().replace("－", "-").replace("＋", "+")).casefold()
    if exact := next((zone for zone in sorted(zones) if zone.casefold() == told), None):
        return exact
    if found := _OFFSET.fullmatch(told):
        minutes = int(found[2]) * 60 + int(found[3] or 0)
        return _OF_OFFSET.get(minutes if found[1] == "+" else -minutes)
    city = told.rpartition("/")[2]
    if city in _MEANT:
        return _MEANT[city]
    if same := [zone for zone in sorted(zones) if zone.rpartition("/")[2].casefold() == city and "/" in zone]:
        return same[0]
    return next(iter(get_close_matches(name, zones, 1)), None)
