"""`tagtrail init`: a store file that is valid as it is, with what was found; nothing is overwritten."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import forked
import pytest

from config.check import check, load
from edge.access.users import Users, users_path
from edge.setup.first_file import Answers, FoundReader, mistake, text, write
from edge.store.errors import Trouble
from simulators.readers.llrp import LlrpReader

GIVEN = ("--store", "s7", "--timezone", "Asia/Shanghai", "--broker", "mqtt://127.0.0.1:1", "--members", "9521141")
PASSWORD = "correct horse battery"


def init(file: Path, *options: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return forked.run("init", str(file), *options, given=said.encode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "s7.toml"


async def test_it_writes_what_it_finds_and_makes_the_first_user(file: Path) -> None:
    import asyncio

    reader = LlrpReader(lambda: 0)
    address = await reader.start()
    try:
        done = await asyncio.to_thread(init, file, *GIVEN, "--scan", address, "--antennas", "3", said=f"{PASSWORD}\n")
    finally:
        await reader.stop()
    assert done.returncode == 0, done.stderr
    store = load(file)
    assert (store.store.id, store.mqtt.url) == ("s7", "mqtt://127.0.0.1:1")
    assert [(each.driver, each.address, len(each.antennas)) for each in store.readers] == [("llrp", address, 3)]
    assert [zone.kind for zone in store.zones] == ["entrance", "exit", "counter"]
    assert {antenna.zone for antenna in store.readers[0].antennas} == {zone.id for zone in store.zones}
    users = Users(users_path(store))
    assert [(user.name, user.role) for user in users.users()] == [("admin", "it")]
    users.close()
    assert PASSWORD not in file.read_text() + done.stdout + done.stderr
    assert "ok       program" in done.stdout, "the doctor's findings"
    assert done.stdout.rstrip().endswith(f"tagtrail run -c {file}")


def test_it_overwrites_nothing(file: Path) -> None:
    file.write_text("mine")
    refused = init(file, *GIVEN)
    assert (refused.returncode, file.read_text()) == (1, "mine")
    assert "exists" in refused.stderr


def test_without_a_terminal_it_says_what_it_needs(file: Path) -> None:
    refused = init(file, "--timezone", "Asia/Shanghai")
    assert refused.returncode == 1
    assert "required: --store, --broker" in refused.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "said", "text"),
    [
        (("--timezone", "beijing"), "", 'did you mean "Asia/Shanghai"'),
        (("--store", "no good"), "", "store.id"),
        (("--broker", "ftp://x"), "", "mqtt.url"),
        ((), "short\n", "at least 10 characters"),
        (("--scan", "10.0.0.0/33"), "", "is no network"),
    ],
)
def test_nothing_is_left_of_a_file_that_would_not_be_right(
    file: Path, options: tuple[str, ...], said: str, text: str
) -> None:
    refused = init(file, *GIVEN, *options, said=said)
    assert refused.returncode == 1
    assert text in refused.stderr
    assert not file.exists()


def test_without_a_password_it_says_how_to_make_a_user(file: Path) -> None:
    done = init(file, *GIVEN, "--user", "li")
    assert done.returncode == 0, done.stderr
    assert f"tagtrail users set li --role it -c {file}" in done.stdout


def test_on_a_terminal_it_asks_until_the_answers_are_right(file: Path) -> None:
    """A password of none can be given there too."""
    answers = [
        ("Id of the store", ""),
        ("Name of the store", "Bund"),
        ("Time zone", "beijing"),
        ('did you mean "Asia/Shanghai"', "Asia/Shanghai"),
        ("Broker", "mqtt://127.0.0.1:1"),
        ("name at the broker", ""),
        ("company prefix", "12"),
        ("6 to 12 digits", "9521141"),
        ("Where to look", ""),
        ("(empty: no user yet)", ""),
        ("Repeat", ""),
    ]
    near, far = os.openpty()
    started = [sys.executable, "-m", "edge", "init", str(file)]
    with subprocess.Popen(started, stdin=far, stdout=far, stderr=far, start_new_session=True) as process:
        os.close(far)
        said = ""
        for wanted, answer in answers:
            while wanted not in said or not said.endswith(": "):
                said += os.read(near, 1024).decode()
            said = ""
            os.write(near, f"{answer}\n".encode())
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(near, 1024):
                said += part.decode()
    os.close(near)
    assert process.returncode == 0, said
    assert f"tagtrail users set admin --role it -c {file}" in said
    store = load(file)
    assert (store.store.id, store.store.name, store.store.timezone) == ("s7", "Bund", "Asia/Shanghai")
    assert store.tag_classes[0].company_prefix == "9521141"


def test_the_folder_is_looked_at_before_anything_is_asked(tmp_path: Path) -> None:
    refused = init(tmp_path / "no" / "s7.toml")
    assert refused.returncode == 1
    assert "there is no folder" in refused.stderr


@pytest.mark.parametrize("members", [None, "9521141", "0xE280aa"])
@pytest.mark.parametrize("readers", [(), (FoundReader("llrp", "10.0.0.9", 4), FoundReader("thingmagic", "/dev/x", 1))])
def test_whatever_is_told_the_file_is_valid_and_without_doubts(
    file: Path, members: str | None, readers: tuple[FoundReader, ...]
) -> None:
    database = Path("/var/lib/tagtrail/s7/tagtrail.db")
    answers = Answers(
        's-"7"'.replace('"', ""),
        'a "name"\\ \n',
        "Asia/Shanghai",
        "mqtts://b",
        database,
        "me",
        members,
        readers=readers,
    )
    file.write_text(text(answers))
    doubts = [each.text for each in check(file)]
    assert [each for each in doubts if "CREDENTIALS_DIRECTORY" not in each] == (
        [] if members else [each for each in doubts if "member" in each]
    )
    assert tomllib.loads(file.read_text())["store"]["name"] == 'a "name"\\ \n'


@pytest.mark.parametrize(("timezone", "region"), [("Asia/Shanghai", "prc"), ("Europe/Berlin", None)])
def test_a_reader_gets_the_band_of_china_only_there(file: Path, timezone: str, region: str | None) -> None:
    reader = FoundReader("thingmagic", "/dev/x", 1)
    file.write_text(text(Answers("s7", "s7", timezone, "mqtts://b", Path("s7.db"), readers=(reader,))))
    assert load(file).readers[0].region == region
    assert any("without region" in each.text for each in check(file)) == (region is None)


def test_every_line_that_is_commented_out_would_be_valid(file: Path) -> None:
    """What store IT is told to uncomment."""
    answers = Answers("s7", "s7", "Europe/Berlin", "mqtts://b", Path("s7.db"))
    lines = []
    for line in text(answers).splitlines():
        bare = line.removeprefix("# ")
        wanted = line.startswith("# ") and (bare.startswith(("[[", "[m")) or " = " in bare[:16])
        if wanted and not bare.startswith(("password_file", "username", "ca ", "cert", "key")):
            line = bare
        lines.append(line)
    file.write_text("\n".join(lines))
    assert [each for each in check(file) if not each.warning] == []
    store = load(file)
    assert store.monitoring.listen
    assert store.cues.rules
    assert store.opening_hours
    assert store.readers
    assert store.tag_classes[0].class_ == "member"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="can't write"):
        write(tmp_path / "no" / "s7.toml", Answers("s", "s", "Asia/Shanghai", "mqtts://b", Path("x.db")))


def test_answers_are_judged_one_by_one() -> None:
    assert mistake("store", "s1") is None
    assert "no time zone" in (mistake("timezone", "Mars") or "")
    assert mistake("members", "12") is not None
