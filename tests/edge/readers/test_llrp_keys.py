"""Keys of [[readers]]: what is refused, and what becomes of the rest."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from gateways import Gateway, antennas

from config.check import ConfigError, check, load
from config.readers import Region
from config.relations import BY_DOCUMENT, PORT_MAX
from drivers.open import SERIAL, serial_family
from drivers.serial.thingmagic import REGIONS
from drivers.session import Radio, ReaderSettings, Select, Tls
from edge.store.compose import compose

PIN = "0A" * 32
LISTENS = {"address": "listen://0.0.0.0:5084", "identity": "020000000001"}


def reader(**more: Any) -> dict[str, Any]:
    return {"id": "r1", "driver": "llrp", "address": "10.0.0.5", "antennas": antennas("door")} | more


def settings(gateway: Gateway, **more: Any) -> ReaderSettings:
    gateway.configure(readers=[reader(**more)])
    (settings,) = compose(load(gateway.file)).readers
    return settings


def test_a_plain_reader_has_none_of_it(gateway: Gateway) -> None:
    plain = settings(gateway)
    assert (plain.tls, plain.identity, plain.profile, plain.session, plain.search_mode, plain.select) == (
        None, None, None, None, None, (),
    )  # fmt: skip


def test_identities_are_plain_hex(gateway: Gateway) -> None:
    assert settings(gateway, identity="00:16:25:10:a1:b2").identity == "00162510A1B2"
    assert settings(gateway, identity="001625FFFE10A1B2").identity == "001625FFFE10A1B2"


def test_files_are_beside_the_store_file_and_a_pin_is_plain_hex(gateway: Gateway) -> None:
    folder = gateway.folder
    pin = ":".join(["0a"] * 32)
    pinned = settings(gateway, tls=True, pin=pin, cert="gw.pem", key="gw.key").tls
    assert pinned == Tls(None, PIN, folder / "gw.pem", folder / "gw.key")
    assert settings(gateway, tls=True, ca="ca.pem").tls == Tls(ca=folder / "ca.pem")


def test_taking_a_reader_over_is_asked_for(gateway: Gateway) -> None:
    assert not settings(gateway).takeover
    assert settings(gateway, takeover=True).takeover


def test_filters_come_from_the_tag_classes(gateway: Gateway) -> None:
    member, staff = settings(gateway, filter=True, session=2, profile="impinj", search_mode="dual").select
    assert staff == Select(0, 8, b"\x2e")
    assert member.bits == 3 + 24


def test_many_readers_may_connect_to_one_port(gateway: Gateway) -> None:
    shared = [
        reader(id=f"r{n}", address="listen://0.0.0.0:5084", identity=f"0200000000{n:02}", antennas=antennas("door"))
        for n in range(3)
    ]
    gateway.configure(readers=shared)
    assert len(load(gateway.file).readers) == 3
    secure = {"tls": True, "cert": "a", "key": "b"}
    gateway.configure(readers=[one | secure for one in shared])
    assert len(load(gateway.file).readers) == 3
    gateway.configure(readers=[shared[0] | secure, shared[1] | secure, shared[2] | secure | {"ca": "c"}])
    with pytest.raises(ConfigError, match=r"must match readers\[0\], which connects to the same port"):
        load(gateway.file)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"driver": "thingmagic", "address": "/dev/x", "filter": True}, "only for driver"),
        ({"tls": True}, "either ca or pin"),
        ({"tls": True, "ca": "a", "pin": PIN}, "either ca or pin"),
        ({"pin": PIN}, "either ca or pin"),
        ({"tls": True, "pin": PIN, "cert": "a"}, "cert and key must be used together"),
        ({"cert": "a", "key": "b"}, "cert and key must be used together"),
        ({"address": "listen://0.0.0.0:5084"}, "needs the reader's identity"),
        (LISTENS | {"tls": True, "pin": PIN}, "set ca to that file"),
        (LISTENS | {"tls": True, "ca": "a"}, "requires cert and key"),
        (LISTENS | {"ca": "a"}, "requires cert and key"),
        ({"address": "listen://:0"}, "address"),
        ({"identity": "reader"}, "identity"),
        ({"driver": "r2000", "address": "/dev/x", "takeover": True}, "only for driver"),
        ({"pin": "0A", "tls": True}, "pin"),
        ({"session": 4}, "session"),
        ({"profile": "acme"}, "profile"),
    ],
)
def test_what_does_not_go_together_is_told(gateway: Gateway, given: dict[str, Any], words: str) -> None:
    gateway.configure(readers=[reader(**given)])
    with pytest.raises(ConfigError, match=words):
        load(gateway.file)


def with_radio(**more: Any) -> list[dict[str, Any]]:
    return [antenna | more for antenna in antennas("door")]


def test_power_mode_and_population_are_given_to_the_antennas(gateway: Gateway) -> None:
    hung = with_radio(power=24.5, mode=1002, population=8)
    told = settings(gateway, antennas=hung, session=1, report_tags=4)
    assert told.radio == {hung[0]["port"]: Radio(2450, 1002, 8)}
    assert (told.report_tags, told.groups) == (4, ())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"antennas": with_radio(population=8)}, "population of antennas needs the reader's session"),
        ({"groups": [[1]]}, "groups: two or more"),
        ({"groups": [[1], [2]]}, "groups: each port of antennas belongs to one group"),
        ({"driver": "m100", "address": "/dev/x", "antennas": with_radio(power=20)}, 'power: only for driver = "llrp"'),
        ({"driver": "r2000", "address": "/dev/x", "report_tags": 4}, 'report_tags: only for driver = "llrp"'),
    ],
)
def test_radio_keys_that_do_not_go_together_are_told(gateway: Gateway, given: dict[str, Any], words: str) -> None:
    gateway.configure(readers=[reader(**given)])
    with pytest.raises(ConfigError, match=words):
        load(gateway.file)


def serial(driver: str, *ports: int, **more: Any) -> dict[str, Any]:
    (door,) = antennas("door")
    return {"id": "r1", "driver": driver, "address": "/dev/x", "antennas": [door | {"port": p} for p in ports]} | more


@pytest.mark.parametrize("driver", sorted(PORT_MAX))
def test_a_port_that_a_family_does_not_have_is_told_by_check(gateway: Gateway, driver: str) -> None:
    most = serial_family(driver).PORT_MAX
    gateway.configure(readers=[serial(driver, 1, most)])
    load(gateway.file)
    gateway.configure(readers=[serial(driver, 1, most + 1)])
    with pytest.raises(ConfigError, match=rf"readers\[0\].antennas\[1\].port: {driver} readers have ports 1 to {most}"):
        load(gateway.file)


@pytest.mark.parametrize("driver", sorted(SERIAL))
@pytest.mark.parametrize("key", [{"tls": True}, {"pin": PIN, "tls": True}, {"session": 1}, {"groups": [[1], [2]]}])
def test_keys_of_networks_and_of_llrp_are_refused_for_each_serial_family(
    gateway: Gateway, driver: str, key: dict[str, Any]
) -> None:
    gateway.configure(readers=[serial(driver, 1, **key)])
    with pytest.raises(ConfigError, match=f'{", ".join(sorted(key))}: only for driver = "llrp"'):
        load(gateway.file)


def test_an_m100_with_several_antennas_is_wondered_at(gateway: Gateway) -> None:
    gateway.configure(readers=[serial("m100", 5)])
    assert not [problem for problem in check(gateway.file) if problem.key.startswith("readers[0]")]
    gateway.configure(readers=[serial("m100", 1, 2)])
    (told,) = [problem for problem in check(gateway.file) if problem.key.startswith("readers[0]")]
    assert told.warning
    assert "most m100 readers have one antenna" in told.text


def test_a_thingmagic_without_region_is_told_what_happens(gateway: Gateway) -> None:
    gateway.configure(readers=[serial("thingmagic", 1)])
    told = [problem.text for problem in check(gateway.file) if problem.warning and problem.key == "readers[0]"]
    assert len(told) == 1
    assert 'set to China (region = "prc")' in told[0]
    gateway.configure(readers=[serial("thingmagic", 1, region="eu3")])
    assert not [problem for problem in check(gateway.file) if problem.key == "readers[0]"]
    assert compose(load(gateway.file)).readers[0].region == "eu3"


def test_every_region_of_the_store_file_is_one_of_the_readers(gateway: Gateway) -> None:
    assert list(REGIONS) == list(get_args(Region))
    gateway.configure(readers=[reader(region="eu3")])
    with pytest.raises(ConfigError, match="region: only for driver"):
        load(gateway.file)


@pytest.mark.parametrize("driver", sorted(BY_DOCUMENT))
def test_what_no_real_reader_has_confirmed_is_told_by_check(gateway: Gateway, driver: str) -> None:
    gateway.configure(readers=[serial(driver, 1)])
    told = [problem.text for problem in check(gateway.file) if problem.warning and problem.key == "readers[0].driver"]
    assert len(told) == 1
    assert "known from documents only" in told[0]
