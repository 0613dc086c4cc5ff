"""What people are told of a store file that is wrong."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from config import StoreConfig
from config.check import ConfigError, Problem, check, load, schema

Say = Callable[[str], tuple[Problem, ...]]

DATABASE = 'path = "/var/lib/tagtrail/demo/tagtrail.db"'
MANY_HOURS = ", ".join(['{ begin = "22:00", end = "09:30" }'] * 11)
# What is replaced in demo.toml, by what, the key that is wrong then, and a piece of what must be said of it.
# The line must be that of the ¶, or where the replacement begins.
MISTAKES = [
    ('id = "demo"', 'id = "de/mo"', "store.id", 'is "de/mo"; expected: letters, digits'),
    ('"Asia/Shanghai"', '"Asia/Shangai"', "store.timezone", '(did you mean "Asia/Shanghai"?)'),
    ('timezone = "Asia/Shanghai"', 'timezone = "PRC/Nowhere"', "store.timezone", 'no time zone "PRC/Nowhere"'),
    ('zh = "一楼", ', "", "floors[0].name.zh", "is missing; expected: a non-empty text"),
    ('name = { zh = "一楼", en = "Ground floor" }', "name = 1", "floors[0].name", "is 1; expected: a text, or { zh"),
    ('[[floors]]\nid = "F2"', '[[floors]]\n¶id = "F1"', "floors[1].id", 'id "F1" is already used by floors[0]'),
    (
        "[mqtt]\n",
        "¶[mail]\n\n[mqtt]\n",
        "mail.server",
        'is missing; expected: the mail server as "host" or "host:port"',
    ),
    (
        "[mqtt]\n",
        '[mail]\n¶server = "2001:db8::1"\nsender = "a@b"\nto = ["c@d"]\n[mqtt]\n',
        "mail.server",
        "is an IPv6 address without brackets",
    ),
    (
        "[mqtt]\n",
        '[mail]\n¶server = "smtp.example:99999"\nsender = "a@b"\nto = ["c@d"]\n[mqtt]\n',
        "mail.server",
        "port 99999 does not exist",
    ),
    (
        "[mqtt]\n",
        '[mail]\nserver = "smtp.example"\n¶sender = "Shop <a@b>"\nto = ["c@d"]\n[mqtt]\n',
        "mail.sender",
        "expected: an e-mail address",
    ),
    (
        "[mqtt]\n",
        '[mail]\nserver = "smtp.example"\nsender = "a@b"\n¶to = ["c@d\\r\\nBcc: e@f"]\n[mqtt]\n',
        "mail.to[0]",
        "expected: an e-mail address",
    ),
    (
        "[mqtt]\n",
        '¶[mail]\nserver = "smtp.example"\nsender = "a@b"\nto = ["c@d"]\nusername = "u"\n[mqtt]\n',
        "mail",
        "username and password_file must be used together",
    ),
    ('kind = "exit"', 'kind = "exist"', "zones[1].kind", '(did you mean "exit"?); expected: one of entrance, exit,'),
    (
        'kind = "exit"\nfloor = "F1"',
        'kind = "exit"\n¶floor = "3"',
        "zones[1].floor",
        'no floor "3"; floors are: F1, F2, F3',
    ),
    ('kind = "exit"\nfloor', 'kind = "exit"\n¶flor', "zones[1].flor", 'unknown key (did you mean "floor"?)'),
    ('id = "shoes"', 'id = "bags"', "zones[7].id", 'id "bags" is already used by zones[6]'),
    ('"womenswear", "f2-fitting-room"', '"womanswear"', "zones[9].neighbours[2]", '(did you mean "womenswear"?)'),
    ('"f1-aisle", "f3-aisle"', '"f2-aisle"', "zones[9].neighbours[0]", "can't be its own neighbour"),
    ("[[0, 9], [6, 9], [6, 16], [0, 16]]", "[[0, 9], [6, 9]]", "zones[0].polygon", "at least three corners"),
    (
        "[[0, 9], [6, 9], [6, 16], [0, 16]]",
        "[[0, 9], [6, 9], [6]]",
        "zones[0].polygon[2]",
        "two numbers in metres: [x, y]",
    ),
    ("[6, 16], [0, 16]]", "[6, 16, 0], [0, 16]]", "zones[0].polygon[2]", "two numbers in metres: [x, y]"),
    ("[6, 16], [0, 16]]", '[6, "16"], [0, 16]]', "zones[0].polygon[2][1]", 'is "16"; expected: a number'),
    ("[6, 16], [0, 16]]", "[6, true], [0, 16]]", "zones[0].polygon[2][1]", "is true; expected: a number"),
    ("[6, 16], [0, 16]]", "[6, inf], [0, 16]]", "zones[0].polygon[2][1]", "other than nan and inf"),
    (
        "[6, 16], [0, 16]]",
        "[6, 99999], [0, 16]]",
        "zones[0].polygon[2][1]",
        "99999 is too large; expected: at most 10000",
    ),
    ("[6, 16], [0, 16]]", "[0, 16], [6, 16]]", "zones[0].polygon", "crosses or touches itself"),
    ("[6, 9], [6, 16], [0, 16]]", "[0, 16], [0, 20]]", "zones[0].polygon", "on one line"),
    ("[6, 16], [0, 16]]", "[6, 16], [0, 9]]", "zones[0].polygon[3]", "duplicate corner"),
    ("[[readers]]\n", '[[readers]]\n¶identity = "12:34"\n', "readers[0].identity", "the reader's MAC or EPC in hex"),
    ("[[readers]]\n", '[[readers]]\n¶pin = "zz"\n', "readers[0].pin", "64 hex digits"),
    ('driver = "thingmagic"', 'driver = "thingmagik"', "readers[3].driver", '(did you mean "thingmagic"?)'),
    (
        'port = 2, zone = "bags"',
        'port = 2, zone = "bag"',
        "readers[2].antennas[1].zone",
        'no zone "bag" (did you mean "bags"?)',
    ),
    (
        'port = 2, zone = "bags"',
        'port = 1, zone = "bags"',
        "readers[2].antennas[1].port",
        "port 1 is already used by antennas[0]",
    ),
    ('port = 2, zone = "bags"', 'port = 0, zone = "bags"', "readers[2].antennas[1].port", "expected: at least 1"),
    (
        'port = 2, zone = "bags"',
        'port = 2.5, zone = "bags"',
        "readers[2].antennas[1].port",
        "is 2.5; expected: a whole number",
    ),
    ("[10.5, 6.5] }", "[10.5] }", "readers[2].antennas[1].position", "two numbers"),
    (
        "[10.5, 6.5] }",
        "[10.5, 6.5], height = 250 }",
        "readers[2].antennas[1].height",
        "is too large; expected: at most 50",
    ),
    ("[10.5, 6.5] }", '[10.5, 6.5], height = "2 m" }', "readers[2].antennas[1].height", "expected: a number"),
    ("[10.5, 6.5] }", "[10.5, 6.5], tilt = 120 }", "readers[2].antennas[1].tilt", "expected: at most 90"),
    ("[10.5, 6.5] }", "[10.5, 6.5], beam = 0 }", "readers[2].antennas[1].beam", "expected:"),
    ("[10.5, 6.5] }", "[10.5, 6.5], azimut = 90 }", "readers[2].antennas[1].azimut", '(did you mean "azimuth"?)'),
    ("127.0.0.1:5085", "127.0.0.1:5084", "readers[1].address", "is also the address of readers[0]"),
    ("127.0.0.1:5084", "127.0.0.1:99999", "readers[0].address", "port 99999 does not exist"),
    ("127.0.0.1:5084", "/dev/ttyUSB0", "readers[0].address", "is not a network address"),
    ("/dev/rfid/f1-glass", "gate:5084", "readers[3].address", "is not a serial device"),
    ("/dev/rfid/f1-glass", "tcp://gate", "readers[3].address", 'expected: "tcp://host:port"'),
    ('class = "member" ', 'class = "membre" ', "tag_classes[0].class", '(did you mean "member"?)'),
    (
        '"gsrn-96"\ncompany_prefix = "9521141"',
        '"gsrn-96"\n¶company_prefix = "12"',
        "tag_classes[0].company_prefix",
        "6 to 12 digits",
    ),
    ('scheme = "sgtin-96"', 'epc_prefix = "xyz"', "tag_classes[3].epc_prefix", "1 to 124 hex digits"),
    (
        '[[tag_classes]]\nclass = "merchandise"\n',
        '[[tag_classes]]\nclass = "staff"\ncompany_prefix = "952114"\nepc_prefix = "E2"\n# ',
        "tag_classes[3]",
        "company_prefix needs a scheme",
    ),
    (
        '[[tag_classes]]\nclass = "merchandise"\nscheme = "sgtin-96"',
        '[[tag_classes]]\nclass = "merchandise"',
        "tag_classes[3]",
        "use either scheme",
    ),
    ("mqtt://127.0.0.1:1883", "tcp://127.0.0.1", "mqtt.url", 'expected: "mqtt://host"'),
    ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:70000", "mqtt.url", "ports are 1 to 65535"),
    ("mqtt://127.0.0.1:1883", "mqtt://me:secret@h", "mqtt.url", "use username and password_file"),
    ('# key = "${CREDENTIALS_DIRECTORY}/mqtt-key"', 'key = "demo.key"', "mqtt.key", "key without cert"),
    ('# key = "${CREDENTIALS_DIRECTORY}/mqtt-key"', 'password_file = "p"', "mqtt.password_file", "without username"),
    ('# ca = "chain-ca.pem"', 'ca = "absent.pem"', "mqtt.ca", "No such file"),
    ('# ca = "chain-ca.pem"', 'ca = "."', "mqtt.ca", "is not a file"),
    ('# ca = "chain-ca.pem"', 'ca = "a\\u0000b"', "mqtt.ca", "the path of a file"),
    ('# ca = "chain-ca.pem"', 'ca = "${HOME}/ca.pem"', "mqtt.ca", "only ${CREDENTIALS_DIRECTORY}"),
    (
        'path = "/var/lib/tagtrail/demo/tagtrail.db"',
        'path = "${STATE_DIRECTORY}/x"',
        "database.path",
        "only ${CREDENTIALS_DIRECTORY}",
    ),
    (DATABASE, 'path = ""', "database.path", "the path of a file"),
    ("quota_mb = 512", 'quota_mb = "512"', "database.quota_mb", 'is "512"; expected: a whole number'),
    ("quota_mb = 512", "quota_mb = 2", "database.quota_mb", "2 is too small; expected: at least 16"),
    ("127.0.0.1:8080", "8080", "web.listen", 'expected: "host:port"'),
    ("127.0.0.1:8080", "127.0.0.1:65536", "web.listen", "port 65536 does not exist"),
    (
        "def_version = 1\n",
        'def_version = 1\n¶business_day_start = "24:00"\n',
        "thresholds.business_day_start",
        '"HH:MM"',
    ),
    (
        "[thresholds]\ndef_version = 1\ntouch_s = 5 ",
        "[thresholds]\ndef_version = 1\ntouch_s = 50 ",
        "thresholds",
        "expected: touch_s < visit_s < engaged_s",
    ),
    ('id = "vip-waits"', 'id = "vip"', "cues.rules[1].id", 'id "vip" is already used by rules[0]'),
    (
        'kind = "arrival"',
        'kind = "arival"',
        "cues.rules[0].kind",
        '(did you mean "arrival"?); expected: one of arrival',
    ),
    ('tiers = ["silver"]', "tiers = []", "cues.rules[2].tiers", "a list of tiers of the member directory"),
    ('tiers = ["silver"]', f'tiers = ["{"x" * 33}"]', "cues.rules[2].tiers[0]", "a tier's name, at most 32 characters"),
    (
        '# quiet = [ { begin = "22:00", end = "09:30" } ]',
        f"quiet = [{MANY_HOURS}]",
        "cues.quiet",
        "at most 10",
    ),
    ("wait_s = 240", "wait_s = 0", "cues.rules[2].wait_s", "0 is too small; expected: more than 0"),
    (
        '[[cues.rules]]\nid = "vip"\nkind = "arrival"\n',
        '[[cues.rules]]\nid = "vip"\nkind = "arrival"\nwait_s = 60\n',
        "cues.rules[0]",
        'wait_s is required for kind = "waiting"',
    ),
    (
        '# zones = ["cosmetics", "jewellery"]',
        'zones = ["cosmetic"]',
        "cues.rules[2].zones[0]",
        '(did you mean "cosmetics"?)',
    ),
    (
        '# quiet = [ { begin = "22:00"',
        'quiet = [ { begin = "24:00"',
        "cues.quiet[0].begin",
        'expected: "HH:MM", such as',
    ),
    ("join_gap_s = 30", "join_gap_s = -1", "thresholds.join_gap_s", "at least 0"),
    ("[web]", "[wep]", "wep", '(did you mean "web"?); keys here are: store, floors'),
]


@pytest.mark.parametrize(("old", "new", "key", "text"), MISTAKES)
def test_a_mistake_is_told_with_its_line(
    old: str, new: str, key: str, text: str, demo_text: str, problems_of: Say
) -> None:
    at = demo_text.index(old)
    found = problems_of(demo_text.replace(old, new.replace("¶", ""), 1))
    told = [problem for problem in found if problem.key == key and text in problem.text]
    assert told, "\n".join(map(str, found))
    assert told[0].line == demo_text[:at].count("\n") + new.partition("¶")[0].count("\n") * ("¶" in new) + 1


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "[::]"])
def test_metrics_are_for_this_machine_only(host: str, demo_text: str, problems_of: Say) -> None:
    (problem,) = (each for each in problems_of(demo_text + MONITORING.format(host)) if not each.warning)
    assert (problem.key, "without a login" in problem.text) == ("monitoring.listen", True)


MONITORING = '\n[monitoring]\nlisten = "{}:9464"\n'


def test_all_mistakes_are_told_at_once(demo_text: str, problems_of: Say) -> None:
    text = demo_text
    for old, new in [
        ('timezone = "Asia/Shanghai"', 'timezone = "Mars"'),
        ('kind = "entrance"', 'kind = "door"'),
        ('zone = "f1-service"', 'zone = "service"'),
        ("def_version = 1\n", "def_version = 0\n"),
    ]:
        text = text.replace(old, new, 1)
    found = problems_of(text)
    assert [p.key for p in found] == [
        "store.timezone",
        "zones[0].kind",
        "readers[2].antennas[3].zone",
        "thresholds.def_version",
    ]
    assert [p.line for p in found] == sorted(p.line for p in found)


def test_the_form_of_a_line(demo_text: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(demo_text.replace('floor = "F1"', 'floor = "3"', 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    line = demo_text.splitlines().index('floor = "F1"') + 1
    assert str(caught.value) == f'{file}:{line}: zones[0].floor: no floor "3"; floors are: F1, F2, F3'


def test_nothing_in_the_file(problems_of: Say) -> None:
    assert [p.key for p in problems_of("")] == ["database", "floors", "mqtt", "store", "zones"]


def test_the_wrong_brackets(demo_text: str, problems_of: Say) -> None:
    (found,) = problems_of(demo_text.replace("[store]", "[[store]]"))
    assert (found.key, found.text) == ("store", "is a list; expected: a table [store] with id, name and timezone")
    found = problems_of(re.sub(r"(?s)\[\[floors\]\].*?\n\n", "", demo_text) + "\n[floors]\nid = 1\n")[0]
    assert (found.key, found.text) == (
        "floors",
        "is a table; expected: a table [[floors]] for each floor, with id and name",
    )


def test_a_syntax_error_has_its_line(problems_of: Say) -> None:
    (found,) = problems_of('[store]\nid = "x"\nname = oops\n')
    assert found.line == 3
    assert "invalid TOML" in found.text
    (found,) = problems_of("[store]\nid = [1,\n\n")
    assert (found.line, "invalid TOML" in found.text) == (4, True)


def test_what_cannot_be_read(tmp_path: Path, problems_of: Say) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match="can't be read") as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[store]\nname = "Kaufhaus Würzburg"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r":2: byte 0xfc is not UTF-8; save it as UTF-8"):
        load(latin)
    (nested,) = problems_of("a = " + "[" * 5000 + "]" * 5000)
    assert "nested too deep" in nested.text


def test_windows_files_are_fine(demo_text: str, tmp_path: Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes(b"\xef\xbb\xbf" + demo_text.replace("\n", "\r\n").encode())
    assert load(file).store.id == "demo"
    file.write_bytes(b"\xef\xbb\xbf" + demo_text.replace("\n", "\r\n").replace('"Asia/Shanghai"', '"X"').encode())
    assert check(file)[0].line == demo_text[: demo_text.index("Asia/Shanghai")].count("\n") + 1


def test_paths_are_beside_the_file(demo_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("x")
    text = demo_text.replace("mqtt://", "mqtts://").replace('# ca = "chain-ca', 'ca = "ca')
    (tmp_path / "s.toml").write_text(text.replace('"/var/lib/tagtrail/demo/', '"'))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load("../s.toml")
    assert config.mqtt.ca == tmp_path / "ca.pem"
    assert config.database.path == tmp_path / "tagtrail.db"


def test_credentials_of_systemd(demo_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = demo_text.replace("# username", "username", 1).replace("# password_file", "password_file", 1)
    file = tmp_path / "s.toml"
    file.write_text(text)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (warning,) = check(file)
    assert warning.warning
    assert "warning: mqtt.password_file: " in str(warning)
    with pytest.raises(ConfigError, match="is not set here"):
        load(file)
    assert load(file, files=False).mqtt.username == "store-demo"

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match=f"can't read {tmp_path}/mqtt-password: No such file"):
        load(file)
    (tmp_path / "mqtt-password").write_text("secret")
    (tmp_path / "mqtt-password").chmod(0o400)
    assert load(file).mqtt.password_file == tmp_path / "mqtt-password"
    assert check(file) == ()


def test_a_secret_that_the_user_may_not_read(demo_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").touch(mode=0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who may run the tests, may read everything
    (tmp_path / "s.toml").write_text(demo_text.replace('# ca = "chain-ca.pem"', 'ca = "ca.pem"'))
    with pytest.raises(ConfigError, match="permission denied"):
        load(tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("old", "new", "key", "text"),
    [
        ('kind = "entrance"', 'kind = "aisle"', "zones", 'no zone is of kind "entrance"'),
        ('kind = "exit"', 'kind = "aisle"', "zones", 'no zone is of kind "exit"'),
        ('{ port = 2, zone = "bags", position = [10.5, 6.5] },', "", "zones[6]", 'zone "bags" has no antenna'),
        ('"gsrn-96"', '"gsrnp-96"', "tag_classes[1]", "never matches: tag_classes[0]"),
        (
            '"grai-96"\ncompany_prefix',
            '"sgtin-96"\n# company_prefix',
            "tag_classes[3]",
            "never matches: tag_classes[2]",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning_and_loads(
    old: str, new: str, key: str, text: str, demo_text: str, tmp_path: Path
) -> None:
    file = tmp_path / "s.toml"
    changed = demo_text.replace(old, new, 1)
    assert changed != demo_text
    file.write_text(changed)
    load(file)
    (found,) = check(file)
    assert found.warning
    assert found.key == key
    assert text in found.text


_LITERALS = st.sampled_from(
    (
        *[
            "-1",
            "0",
            "3",
            "1e400",
            "nan",
            "-inf",
            "true",
            '""',
            '"x"',
            '"F1"',
            '"cosmetics"',
            '"\\u0000"',
            '"/"',
            "[]",
            "[[]]",
            "{}",
            "[1,2]",
            "[[0,0],[0,0],[1,1]]",
            "{zh=1}",
            "1979-05-27",
            "07:32:00",
            "1979-05-27T07:32:00Z",
        ],
        "9" * 400,
        "'''\n'''",
    )
)
_KEYS = st.sampled_from(("id", "polygon", "x.y", "name", "class", '"\\u0007"'))


@pytest.mark.parametrize(
    ("line", "instead"), [('id = "demo"', "id = []"), ('"127.0.0.1:8080"', f'"127.0.0.1:{"9" * 5000}"')]
)
def test_warnings_bear_values_of_another_type_or_length(
    line: str, instead: str, demo_text: str, tmp_path: Path
) -> None:
    assert line in demo_text
    is_sound(demo_text.replace(line, instead, 1), tmp_path)


@settings(max_examples=examples(250), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_value_or_key_is_more_than_a_config_error(
    data: st.DataObject, demo_text: str, tmp_path: Path
) -> None:
    lines = demo_text.splitlines()
    settable = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.sampled_from(settable))
        key, _, value = lines[i].partition(" = ")
        change = data.draw(st.sampled_from(["value", "inner", "key", "drop", "double"]))
        if change == "value":
            lines[i] = f"{key} = {data.draw(_LITERALS)}"
        elif change == "inner":
            lines[i] = re.sub(r"\d+", lambda _: data.draw(_LITERALS), lines[i])
        elif change == "key":
            lines[i] = f"{data.draw(_KEYS)} = {value}"
        elif change == "drop":
            lines[i] = ""
        else:
            j = data.draw(st.integers(0, len(lines)))
            lines[i:i] = lines[max(0, j - 8) : j]
    is_sound("\n".join(lines), tmp_path)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_the_text_is_more_than_a_config_error(data: st.DataObject, demo_text: str, tmp_path: Path) -> None:
    text = demo_text
    for _ in range(data.draw(st.integers(1, 4))):
        a = data.draw(st.integers(0, len(text)))
        b = data.draw(st.integers(a, min(len(text), a + 40)))
        text = text[:a] + data.draw(st.text("[]{}=,.\"'\n# a1é\\", max_size=6)) + text[b:]
    is_sound(text, tmp_path)


def is_sound(text: str, folder: Path) -> None:
    file = folder / "store.toml"
    file.write_text(text, encoding="utf-8")
    problems = check(file)
    with nullcontext() if all(problem.warning for problem in problems) else pytest.raises(ConfigError):
        load(file)
    for problem in problems:
        assert 1 <= problem.line <= text.count("\n") + 1 or "nested" in problem.text
        assert str(problem).isprintable(), repr(str(problem))


def test_the_committed_schema_is_current(demo_path: Path) -> None:
    committed = demo_path.with_name("store.schema.json").read_text(encoding="utf-8")
    assert json.loads(committed) == schema(), "run: tagtrail check --schema > config/store.schema.json"
    assert demo_path.read_text(encoding="utf-8").startswith("#:schema store.schema.json\n")


def test_the_demo_is_a_good_file(demo_path: Path) -> None:
    assert check(demo_path) == ()
    assert load(demo_path).store == StoreConfig.model_validate(tomllib.loads(demo_path.read_text("utf-8"))).store


def test_a_credential_is_looked_for_where_systemd_takes_it_from(
    demo_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr("config.files.UNITS", tmp_path)
    plain, sealed = tmp_path / "credstore", tmp_path / "sealed"
    monkeypatch.setattr("config.files.CREDSTORES", (plain, sealed))
    file = tmp_path / "s7.toml"
    lines = '# username = "store-demo"\n# password_file = "${CREDENTIALS_DIRECTORY}/mqtt-password"'
    file.write_text(demo_text.replace(lines, lines.replace("# ", "")))

    def said() -> str:
        return " ".join(problem.text for problem in check(file) if problem.key == "mqtt.password_file")

    assert "only the service" in said(), "nobody but root may look"
    for folder in (plain, sealed):
        folder.mkdir()
    assert f"there is no {plain}/tagtrail.s7.mqtt-password" in said()
    for folder in (sealed, plain):
        secret = folder / "tagtrail.s7.mqtt-password"
        secret.write_text("")
        secret.chmod(0o600)
        assert "is empty" in said()
        secret.write_text("x")
        assert said() == ""
        secret.chmod(0o644)
        assert (f"chmod 600 {secret}" in said()) == (folder == plain)
        secret.unlink()
