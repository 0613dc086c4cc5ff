"""Keys of readers that push JSON: what is refused, what is warned of, and what becomes of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from gateways import Gateway, antennas

from config.check import ConfigError, check, load
from drivers.session import Push, Tls
from edge.store.compose import compose

MAPPING = {"epc": "/tag/id", "antenna": "/port"}


def reader(address: str = "http://10.0.0.5/x", profile: str = "zebra", **more: Any) -> dict[str, Any]:
    return {"id": "r1", "driver": "json", "address": address, "profile": profile, "antennas": antennas("door")} | more


def problems(gateway: Gateway, **keys: Any) -> str:
    gateway.configure(readers=[reader(**keys)])
    return "\n".join(map(str, check(gateway.file)))


def test_everything_reaches_the_driver(gateway: Gateway) -> None:
    (gateway.folder / "pw").write_text("x")
    gateway.configure(
        readers=[
            reader(
                "https://10.0.0.5", "impinj", username="root", password_file="pw", pin=":".join(["0a"] * 32),
                heartbeat_s=30, preset="default", identity="00:16:25:14:2f:f4", phase=True,
            )
        ]
    )  # fmt: skip
    (settings,) = compose(load(gateway.file)).readers
    assert settings.push == Push("root", gateway.folder / "pw", 30, False, "default")
    assert settings.tls == Tls(pin="0A" * 32)
    assert (settings.profile, settings.identity, settings.phase) == ("impinj", "001625142FF4", True)


def test_a_mapping_reaches_the_driver(gateway: Gateway) -> None:
    gateway.configure(
        readers=[reader("listen://0.0.0.0:8484/a", "generic", mapping=MAPPING, source="10.0.0.9", holds=True)]
    )
    (settings,) = compose(load(gateway.file)).readers
    assert settings.push == Push(holds=True, source="10.0.0.9", mapping=MAPPING | {"epc_as": "hex", "rssi_unit": "dbm"})


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"address": "10.0.0.5"}, "address must begin with http://"),
        ({"profile": "alien"}, "driver json needs a profile"),
        ({"profile": None}, "driver json needs a profile"),
        ({"profile": "generic"}, 'profile = "generic" needs a mapping'),
        ({"mapping": MAPPING}, 'profile = "generic" needs a mapping, and only this profile has one'),
        ({"profile": "generic", "mapping": {"epc": "id"}}, "mapping.epc"),
        ({"profile": "generic", "mapping": {"epc": "/a", "rssi": "/a/b"}}, "can't be a value and lead to another one"),
        ({"session": 1}, 'session: only for driver = "llrp"'),
        ({"tls": True}, "tls is only for listen://"),
        ({"address": "https://10.0.0.5/x"}, "require either ca or pin"),
        ({"address": "mqtts://10.0.0.5/x", "pin": "0a" * 32}, "pin can't be used with mqtts://"),
        ({"ca": "ca.pem"}, "ca, pin, cert and key require TLS"),
        ({"address": "listen://0.0.0.0/x", "tls": True}, "tls = true requires cert and key"),
        ({"address": "listen://0.0.0.0"}, "has no path to tell readers apart"),
        ({"address": "mqtt://10.0.0.5"}, "has no topic"),
        ({"address": "mqtt://u:p@10.0.0.5/t"}, "user and password are not allowed here"),
        ({"address": "http://10.0.0.500/x"}, "10.0.0.500"),
        ({"address": "http://10.0.0.5:99999/x"}, "port 99999 does not exist"),
        ({"preset": "default"}, "preset: only for profile"),
        ({"source": "10.0.0.9"}, "source: only for listen://"),
        ({"username": "root"}, "username needs a password_file"),
        ({"heartbeat_s": 0}, "heartbeat_s"),
    ],
)
def test_impossible_readers_are_refused(gateway: Gateway, keys: dict[str, Any], says: str) -> None:
    entry = {name: value for name, value in reader(**keys).items() if value is not None}
    gateway.configure(readers=[entry])
    with pytest.raises(ConfigError) as refused:
        load(gateway.file)
    assert says in str(refused.value)


def test_keys_of_json_are_only_for_json(gateway: Gateway) -> None:
    llrp = {"id": "r1", "driver": "llrp", "address": "10.0.0.5", "antennas": antennas("door")}
    for more, says in (
        ({"preset": "x"}, 'preset: only for driver = "json"'),
        ({"profile": "keonn"}, 'driver = "json"'),
    ):
        gateway.configure(readers=[llrp | more])
        with pytest.raises(ConfigError, match=says):
            load(gateway.file)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"address": "listen://0.0.0.0:8484/a"}, "anyone on the network can send reads here"),
        ({"address": "mqtt://10.0.0.5/t"}, "without heartbeat_s a reader that has failed can't be told"),
        ({"profile": "keonn", "address": "listen://127.0.0.1:8484/a"}, "known from documents only"),
        ({"password_file": "pw"}, "the password is sent unencrypted"),
    ],
)
def test_doubts_are_warnings(gateway: Gateway, keys: dict[str, Any], says: str) -> None:
    (gateway.folder / "pw").write_text("x")
    (gateway.folder / "pw").chmod(0o600)
    assert says in problems(gateway, **keys)
    load(gateway.file)


def test_a_good_reader_has_no_doubts(gateway: Gateway) -> None:
    found = problems(gateway, address="listen://0.0.0.0:8484/a", source="10.0.0.9", heartbeat_s=30)
    assert "readers[0]" not in found


def test_readers_may_share_a_port_but_not_a_path(gateway: Gateway) -> None:
    entries = [
        reader("listen://0.0.0.0:8484/a") | {"id": id_, "address": f"listen://0.0.0.0:8484/{path}"}
        for id_, path in (("r1", "a"), ("r2", "b"), ("r3", "a"))
    ]
    gateway.configure(readers=entries)
    with pytest.raises(ConfigError, match=r"is also the address of readers\[0\]"):
        load(gateway.file)
    gateway.configure(readers=entries[:2])
    load(gateway.file)
