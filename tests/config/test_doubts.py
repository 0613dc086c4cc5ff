"""What `check` has its doubts about: units, overlaps, antennas, addresses, punctuation, secrets, files."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

from config import files, geometry
from config.certificates import Unusable, read
from config.check import Problem, check, load
from config.hosts import is_local, trouble
from config.punctuation import culprit
from config.relations import host_port
from config.timezones import meant

OWN = "/var/lib/tagtrail/demo/tagtrail.db"


Told = Callable[..., dict[str, Problem]]


@pytest.fixture
def told(demo_text: str, tmp_path: Path) -> Told:
    """What is told of the demo's file with some texts replaced: key, text and whether it is only a warning."""

    def of(*changes: tuple[str, str], name: str = "s.toml") -> dict[str, Problem]:
        text = demo_text
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        found = check(file)
        if not [problem for problem in found if not problem.warning]:
            load(file)  # what is only doubtful keeps nothing from starting
        return {problem.key: problem for problem in sorted(found, key=lambda problem: not problem.warning)}

    return of


# Where zones and antennas lie.

ENTRANCE = "[[0, 9], [6, 9], [6, 16], [0, 16]]"


@pytest.mark.parametrize(
    ("polygon", "said"),
    [
        (
            "[[0, 900], [600, 900], [600, 1600], [0, 1600]]",
            "is 700 m long; expected: metres. Are these centimetres or millimetres?",
        ),
        ("[[31.23041, 121.47370], [31.23047, 121.47370], [31.23047, 121.47377]]", "latitude and longitude"),
        ("[[0, 9], [0.06, 9], [0.06, 9.07], [0, 9.07]]", "is 7 cm long"),
        ("[[300, 309], [306, 309], [306, 316], [300, 316]]", "m from every other zone on its floor"),
    ],
)
def test_a_zone_in_another_unit_is_doubted(told: Told, polygon: str, said: str) -> None:
    found = told((ENTRANCE, polygon))
    assert said in found["zones[0].polygon"].text
    assert found["zones[0].polygon"].warning
    assert not [key for key in found if ".position" in key], "its antennas are not told off, too"


def test_a_file_in_another_unit_is_told_once(demo_text: str, tmp_path: Path) -> None:
    lines = [
        line.replace("polygon = ", "polygon = eval") if line.startswith("polygon") else line
        for line in demo_text.splitlines()
    ]
    text = "\n".join(
        line if "eval" not in line else f"polygon = {[[100 * x, 100 * y] for x, y in eval(line.split('eval')[1])]}"
        for line in lines
    )
    file = tmp_path / "s.toml"
    file.write_text(text, encoding="utf-8")
    (found,) = [problem for problem in check(file) if problem.key.startswith("zones")]
    assert "other units" in found.text


def test_zones_that_overlap_are_told_with_how_much(told: Told) -> None:
    found = told((ENTRANCE, "[[0, 9], [8, 9], [8, 16], [0, 16]]"))
    said = [problem for key, problem in found.items() if key.endswith(".polygon")]
    assert said
    assert all('overlaps zone "' in problem.text and "m²" in problem.text and problem.warning for problem in said)
    assert told((ENTRANCE, "[[0, 9], [6.004, 9], [6, 16], [0, 16]]")) == {}, "nobody draws that exactly"


def test_an_antenna_outside_its_zone_is_told_and_where_it_hangs(told: Told) -> None:
    found = told(("[10.5, 6.5] }", "[105, 65] }"))
    (problem,) = [problem for key, problem in found.items() if key.endswith("position")]
    assert "m outside zone" in problem.text
    assert problem.warning


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        ([(0, 0), (4, 0), (4, 4), (0, 4)], [(2, 2), (6, 2), (6, 6), (2, 6)], 4),
        ([(0, 0), (4, 0), (4, 4), (0, 4)], [(4, 0), (8, 0), (8, 4), (4, 4)], 0),
        ([(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (1, 2), (2, 2), (2, 1)], 1),
        ([(0, 0), (4, 0), (0, 4)], [(4, 4), (4, 0), (0, 4)], 0),
        ([(0, 0), (4, 0), (0, 4)], [(0, 0), (4, 0), (4, 4)], 4),
        ([(0, 0), (6, 0), (6, 6), (5, 6), (5, 1), (1, 1), (1, 6), (0, 6)], [(0, 3), (6, 3), (6, 4), (0, 4)], 2),
    ],
)
def test_the_overlap_of_polygons(a: list[Any], b: list[Any], both: float) -> None:
    for one, other in ((a, b), (b, a), (a[::-1], b), (a[1:] + a[:1], b[::-1])):
        assert geometry.overlap(one, other) == pytest.approx(both)
    assert geometry.area(a) == pytest.approx(abs(sum(p[0] * q[1] - q[0] * p[1] for p, q in geometry.edges(a))) / 2)


# Words, punctuation, addresses.


@pytest.mark.parametrize(
    ("given", "zone"),
    [
        *[(name, "Asia/Shanghai") for name in ("Asia/Beijing", "Beijing", "Asia/Shenzhen", "UTC+8", "GMT+8", "+08:00")],
        *[(name, "Asia/Shanghai") for name in ("shanghai", "asia/shanghai", "北京", "China Standard Time", "utc+0800")],
        *[("Munich", "Europe/Berlin"), ("Europe/Hamburg", "Europe/Berlin"), ("UTC-5", "America/New_York")],
        *[("Asia/Shangai", "Asia/Shanghai"), ("Tokyo", "Asia/Tokyo"), ("UTC+5:30", "Asia/Kolkata")],
    ],
)
def test_the_time_zone_that_is_meant(told: Told, given: str, zone: str) -> None:
    assert meant(given) == zone
    assert f'did you mean "{zone}"?' in told(('"Asia/Shanghai"', f'"{given}"'))["store.timezone"].text


def test_a_time_zone_whose_sign_is_the_other_way_round_is_doubted(told: Told) -> None:
    assert "8 h behind UTC" in told(('"Asia/Shanghai"', '"Etc/GMT+8"'))["store.timezone"].text


@pytest.mark.parametrize(
    ("old", "new", "column", "said"),
    [
        ('id = "demo"', "id = “demo”", 6, "“ is a Chinese quotation mark; expected: '\"'"),
        ('id = "demo"', 'id = "demo”', 11, "” is a Chinese quotation mark"),
        ('id = "demo"', 'id ＝ "demo"', 4, '＝ is a Chinese equals sign; expected: "="'),
        ('id = "demo"', 'id = "demo"\u3000', 12, "U+3000 is a Chinese space; expected: a plain space"),
        ("[store]", "［store］", 1, '［ is a Chinese bracket; expected: "["'),
        ("[[0, 9]", "[[0，9]", 14, '， is a Chinese comma; expected: ","'),
        ("[[0, 9]", "[[0, 9】", 17, '】 is a Chinese bracket; expected: "]"'),
        ("# Lengths are in metres.", "＃ Lengths", 1, "＃ is a Chinese number sign"),
        ('id = "demo"', "id = 「demo」", 6, "「 is a Chinese quotation mark"),
        ('id = "demo"', "id = `demo`", 6, "` is no quotation mark"),
        ('id = "demo"', 'id =\u00a0"demo"', 5, "U+00A0 is a space that TOML does not know"),
        ('id = "demo"', 'id =\u200b "demo"', 5, "U+200B is an invisible character; delete it"),
        ('id = "demo"', 'id = "demo"\nx = ｔｒｕｅ', 5, 'ｔ is a full-width character; expected: "t"'),
    ],
)
def test_chinese_punctuation_is_called_so(
    told: Told, demo_text: str, old: str, new: str, column: int, said: str
) -> None:
    (problem,) = told((old, new)).values()
    assert said in problem.text
    assert f"(column {column})" in problem.text
    assert problem.line == demo_text[: demo_text.index(old)].count("\n") + 1 + new.count("\n")


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("id = 10:00", 'id is 10:00; text is written in quotes: "10:00"'),
        ("id = 0614141", 'text is written in quotes: "0614141"'),
        ("id = demo # mine", 'text is written in quotes: "demo"'),
        ("id = 是", "id is 是; expected: true or false"),
        ("id = True", "id is True; expected: true or false"),
        ('id = "demo"\nid = "other"', "this key stands twice"),
    ],
)
def test_what_is_often_wrong_in_toml_is_told_in_plain_words(told: Told, new: str, said: str) -> None:
    (problem,) = told(('id = "demo"', new)).values()
    assert said in problem.text


def test_punctuation_within_strings_and_comments_is_nobodys_fault() -> None:
    assert culprit('name = "一楼，“东”" # ，') is None
    assert culprit("name = '，', x = ，") == (17, '， is a Chinese comma; expected: ","')


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.20.11", "not a valid IPv4 address"),
        ("10.20.11.256", "not a valid IPv4 address"),
        ("10.20.011.5:5084", "not a valid IPv4 address"),
        ("１２７.0.0.1", 'full-width characters; expected: "127.0.0.1"'),
        ("10.0.0.5：5084", 'full-width characters; expected: "10.0.0.5:5084"'),
        ("fd00::11", 'expected: "[fd00::11]"'),
        ("[fd00::zz]", "no valid IPv6 address in brackets"),
        ("[fd00:::1]", "no valid IPv6 address in brackets"),
        ("0.0.0.0", "all addresses of this machine"),
        ("[::]:5084", "all addresses of this machine"),
        ("224.0.0.1", "not the address of a single machine"),
        ("255.255.255.255", "not the address of a single machine"),
        ("-gate.shop", "not a valid host name"),
        ("gate..shop", "not a valid host name"),
        ("tcp://10.0.0.5", "not a network address"),
        ("http://10.0.0.5/", 'expected: "10.0.0.5"'),
        ("10.0.0.5/24", 'expected: "10.0.0.5"'),
        (" 10.0.0.5:5084 ", 'expected: "10.0.0.5:5084"'),
        ("fe80::1%eth0:5084", 'expected: "[fe80::1%eth0]:5084"'),
        ("[fe80::1]:5084", 'its interface too, such as "[fe80::1%eth0]"'),
        ("10.0.0.5\u200b", 'expected: "10.0.0.5"'),
    ],
)
def test_addresses_that_no_reader_has(told: Told, address: str, said: str) -> None:
    found = told(("127.0.0.1:5084", address))
    assert said in found["readers[0].address"].text
    assert not found["readers[0].address"].warning


@pytest.mark.parametrize(
    "address", ["reader-1", "reader_1.shop.local.", "10.0.0.5", "[fd00::11]:5084", "[fe80::1%eth0]"]
)
def test_addresses_that_one_may_have(address: str) -> None:
    assert trouble(address, host_port(address)[0]) is None


@pytest.mark.parametrize(
    ("key", "old", "new", "said"),
    [
        ("mqtt.url", "mqtt://127.0.0.1:1883", "mqtt://fd00::1", 'expected: "[fd00::1]"'),
        ("mqtt.url", "mqtt://127.0.0.1:1883", "mqtt://10.1.1:1883", "not a valid IPv4 address"),
        ("mqtt.url", "mqtt://127.0.0.1:1883", "mqtt://１０.1.1.1", "full-width"),
        ("readers[3].address", "/dev/rfid/f1-glass", "tcp://10.0.300.1:4001", "not a valid IPv4 address"),
        ("readers[3].address", "/dev/rfid/f1-glass", "/dev／rfid", "full-width"),
        ("web.listen", "127.0.0.1:8080", "127.0.0:8080", "not a valid IPv4 address"),
        ("store.id", 'id = "demo"', 'id = "ｄemo"', 'did you mean "demo"?'),
    ],
)
def test_the_same_of_brokers_serial_servers_the_page_and_ids(
    told: Told, key: str, old: str, new: str, said: str
) -> None:
    found = told((old, new))
    assert said in found[key].text
    assert not found[key].warning


# What is allowed and had better not be.


@pytest.mark.parametrize(
    ("key", "changes", "said"),
    [
        ("mqtt.url", [("mqtt://127.0.0.1:1883", "mqtt://10.1.1.1")], "member data and cards are sent unencrypted"),
        (
            "mqtt.url",
            [("mqtt://127.0.0.1:1883", "mqtt://203.0.113.9"), ('# username = "store-demo"', 'username = "store-demo"')],
            "the password and member data are sent unencrypted; expected: mqtts://",
        ),
        ("web.listen", [("127.0.0.1:8080", "0.0.0.0:8080")], "unencrypted; expected: cert and key"),
        ("web.listen", [("127.0.0.1:8080", "[::]:8080")], "unencrypted; expected: cert and key"),
        ("web.listen", [("127.0.0.1:8080", "127.0.0.1:80")], "can't open port 80"),
        (
            "readers[0].address",
            [('"127.0.0.1:5084"', '"listen://0.0.0.0:5084"\nidentity = "00:11:22:33:44:55"')],
            "without tls, anyone knowing the reader's identity can impersonate it",
        ),
        ("thresholds.small_cell", [("touch_s = 5 ", "small_cell = 0\ntouch_s = 5 ")], "0 is below 5"),
        ("thresholds.small_cell", [("touch_s = 5 ", "small_cell = 4\ntouch_s = 5 ")], "4 is below 5"),
        ("tag_classes", [('class = "member"', 'class = "staff"')], 'no rule has the class "member"'),
    ],
)
def test_what_is_unsafe_is_a_warning(told: Told, key: str, changes: list[tuple[str, str]], said: str) -> None:
    found = told(*changes)
    assert said in found[key].text
    assert found[key].warning


def test_what_is_safe_is_none(told: Told) -> None:
    for url in ("mqtts://10.1.1.1", "mqtt://localhost", "mqtt://[::1]:1883"):
        assert told(("mqtt://127.0.0.1:1883", url)) == {}
    assert told(("touch_s = 5 ", "small_cell = 5\ntouch_s = 5 ")) == {}
    assert is_local("127.3.4.5")
    assert not is_local("localhost.shop.example")


# Files and the database.


def test_a_readers_files_must_be_there_but_keep_no_store_from_starting(told: Told, tmp_path: Path) -> None:
    changes = ('"127.0.0.1:5084"', '"10.0.0.5"\ntls = true\nca = "reader-ca.pem"')
    found = told(changes)
    assert "No such file" in found["readers[0].ca"].text
    assert not found["readers[0].ca"].warning
    load(tmp_path / "s.toml")


def test_secrets_that_others_may_read_are_told(told: Told, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret")
    (tmp_path / "pw").chmod(0o644)
    changes = (
        ('# username = "store-demo"', 'username = "store-demo"'),
        ('# password_file = "${CREDENTIALS_DIRECTORY}/mqtt-password"', 'password_file = "pw"'),
    )
    assert "chmod 600" in told(*changes)["mqtt.password_file"].text
    (tmp_path / "pw").chmod(0o600)
    assert told(*changes) == {}


def test_certificates_are_looked_into(told: Told, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old = Authority(tmp_path / "old", days=(-400, -5))
    authority.issue("store")
    authority.issue("soon", days=(-1, 12))
    authority.issue("young", days=(3, 300))
    for file in tmp_path.glob("*.key"):
        file.chmod(0o600)
    der = ["openssl", "x509", "-in", str(tmp_path / "ca.pem"), "-outform", "der", "-out", str(tmp_path / "der.pem")]
    subprocess.run(der, check=True, timeout=60)
    sealed = ["openssl", "ec", "-in", str(tmp_path / "store.key"), "-aes128", "-passout", "pass:x"]
    subprocess.run([*sealed, "-out", str(tmp_path / "sealed.key")], check=True, capture_output=True, timeout=60)
    (tmp_path / "sealed.key").chmod(0o600)
    (tmp_path / "empty.pem").write_text("nothing\n")
    (tmp_path / "cut.pem").write_text((tmp_path / "ca.pem").read_text()[:300] + "\n-----END CERTIFICATE-----\n")

    def of(**keys: str) -> dict[str, Problem]:
        return told(
            ("mqtt://127.0.0.1:1883", "mqtts://10.0.0.5"),
            ('# ca = "chain-ca.pem"', "\n".join(f'{key} = "{file}"' for key, file in keys.items())),
        )

    assert of(ca="ca.pem", cert="store.pem", key="store.key") == {}
    for keys, key, said, soft in (
        ({"ca": "der.pem"}, "mqtt.ca", "is DER, not PEM: openssl x509 -inform der -in der.pem -out der.pem", False),
        ({"ca": "ca.key"}, "mqtt.ca", "contains a private key but no certificate", False),
        ({"ca": "empty.pem"}, "mqtt.ca", "contains no certificate", False),
        ({"ca": "cut.pem"}, "mqtt.ca", "contains a certificate that can't be read", False),
        ({"ca": "old/ca.pem"}, "mqtt.ca", "expired on", False),
        ({"cert": "store.pem", "key": "soon.key"}, "mqtt.key", "is not the key of", False),
        ({"cert": "store.pem", "key": "sealed.key"}, "mqtt.key", "passphrase", False),
        ({"cert": "store.pem", "key": "store.pem"}, "mqtt.key", "contains no private key", False),
        ({"cert": "soon.pem", "key": "soon.key"}, "mqtt.cert", "in 11 days", True),
        ({"cert": "young.pem", "key": "young.key"}, "mqtt.cert", "is this machine's clock right?", True),
    ):
        found = of(**keys)
        assert said in found[key].text, (keys, found)
        assert found[key].warning is soft
    assert old.folder.joinpath("ca.pem").exists()
    page = told(
        ('# cert = "page.pem"', 'cert = "store.pem"'),
        ('# key = "${CREDENTIALS_DIRECTORY}/page-key"', 'key = "soon.key"'),
    )
    assert "is not the key of" in page["web.key"].text


def test_the_dates_of_certificates_are_those_that_openssl_tells(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for name, days in (("a", (-3, 100)), ("b", (-3, 365 * 60))):  # beyond 2049 the time is written in another way
        pem = authority.issue(name, days=days)
        (found,) = read(pem)
        said = subprocess.run(
            ["openssl", "x509", "-in", str(pem), "-noout", "-dates"], check=True, capture_output=True, text=True
        ).stdout
        for moment, line in zip((found.since, found.until), said.splitlines(), strict=True):
            assert f"{moment:%b %e %H:%M:%S %Y} GMT" == line.partition("=")[2]
        assert found.days_left(dt.datetime.now(dt.UTC)) == days[1] - 1
    (tmp_path / "x.pem").write_bytes(b"\x30\x03abc")
    with pytest.raises(Unusable, match="DER"):
        read(tmp_path / "x.pem")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tagtrail.db", "is beside the store file"),
        ("/var/lib/tagtrail/nowhere/tagtrail.db", "can write only to /var/lib/tagtrail/s/"),
        ("/home/me/tagtrail.db", "can write only to /var/lib/tagtrail/s/"),
        ("/etc/tagtrail/tagtrail.db", "can write only to /var/lib/tagtrail/s/"),
    ],
)
def test_a_database_that_the_unit_may_not_write_is_doubted(told: Told, path: str, said: str) -> None:
    found = told((OWN, path))["database.path"]
    assert said in found.text
    assert found.warning


@pytest.mark.parametrize("path", ["/var/lib/tagtrail/s/tagtrail.db", OWN])
def test_one_in_the_stores_own_folder_is_not(told: Told, path: str) -> None:
    assert told((OWN, path)) == {}


def test_home_folders_are_not_replaced(told: Told) -> None:
    found = told((OWN, "~/tagtrail.db"))["database.path"]
    assert "~ is not replaced" in found.text
    assert not found.warning


@pytest.mark.parametrize(("kind", "said"), [("tmpfs", "is in memory"), ("nfs4", "network drive")])
def test_a_database_on_the_wrong_kind_of_disk_is_doubted(
    told: Told, monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    monkeypatch.setattr(files, "_file_system", lambda path: kind)
    assert said in told((OWN, "/srv/x.db"))["database.path"].text


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="no /proc")
def test_the_kind_of_disk_is_that_of_the_mount(tmp_path: Path) -> None:
    assert files._file_system(Path("/proc/x/y")) == "proc"
    assert files._file_system(tmp_path / "not" / "there") != ""


def test_systemds_own_variable_is_turned_into_ours(told: Told) -> None:
    changes = (
        ('# username = "store-demo"', 'username = "store-demo"'),
        ('# password_file = "${CREDENTIALS_DIRECTORY}/mqtt', 'password_file = "%d/mqtt'),
    )
    assert "write ${CREDENTIALS_DIRECTORY}/mqtt-password" in told(*changes)["mqtt.password_file"].text


def test_a_mail_password_in_the_clear_is_told(told: Told, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret")
    (tmp_path / "pw").chmod(0o600)
    section = '[mail]\nserver = "10.0.0.9"\nsender = "a@b.example"\nto = ["c@b.example"]\ntls = "none"\n'
    login = 'username = "u"\npassword_file = "pw"\n'
    assert told(("[mqtt]\n", f"{section}[mqtt]\n")) == {}
    assert "sent unencrypted" in told(("[mqtt]\n", f"{section}{login}[mqtt]\n"))["mail.tls"].text
    at_home = section.replace("10.0.0.9", "127.0.0.1:2525")
    assert told(("[mqtt]\n", f"{at_home}{login}[mqtt]\n")) == {}


def test_a_mail_password_that_is_missing_stops_nothing(told: Told, tmp_path: Path) -> None:
    section = '[mail]\nserver = "smtp.example"\nsender = "a@b.example"\nto = ["c@b.example"]\nusername = "u"\n'
    found = told(("[mqtt]\n", f'{section}password_file = "none"\n[mqtt]\n'))
    assert "No such file" in found["mail.password_file"].text
    load(tmp_path / "s.toml")
    found = told(("[mqtt]\n", f'{section}password_file = "${{HOME}}/x"\n[mqtt]\n'))
    assert "only in [mqtt], [web] and [mail]" in found["mail.password_file"].text
