"""Secrets of a running service are in their own files and nowhere else."""

from __future__ import annotations

from pathlib import Path

from brokers import MosquittoBroker, Until, need_mosquitto
from gateways import Gateway

from config.check import load
from edge.access.users import Role, Users, users_path
from edge.database.keys import tag_key_file

BROKER, PAGE = "br0ker-S3cret-7Q", "page S3cret 8R"


def traces(folder: Path, secret: bytes, *own: Path) -> list[str]:
    """Files that have the secret in them, besides its own."""
    return [
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and file not in own and secret in file.read_bytes()
    ]


async def test_secrets_are_nowhere_but_in_their_files(gateway: Gateway, tmp_path: Path, until: Until) -> None:
    """Not even if the broker refuses the password, which is told in the log."""
    need_mosquitto()
    password, shown = gateway.folder / "mqtt-password", tmp_path / "broker"
    password.write_text(f"{BROKER}\n")
    password.chmod(0o600)
    shown.mkdir()
    broker = MosquittoBroker(shown, "allow_anonymous false")
    await broker.start()
    try:
        gateway.configure(mqtt={"url": broker.url, "username": "s1", "password_file": str(password)})
        config = load(gateway.file)
        users = Users(users_path(config))
        users.put("li", Role.MANAGER, PAGE)
        users.close()
        gateway.start(cold=True)
        await until(lambda: "is away" in gateway.log())  # it has tried, and been refused
        assert gateway.process is not None
        process = Path(f"/proc/{gateway.process.pid}")
        key = tag_key_file(config.database.path)
        secrets = {BROKER.encode(): password, PAGE.encode(): None, bytes.fromhex(key.read_text()): None}
        secrets[key.read_text().strip().encode()] = key
        for secret, own in secrets.items():
            assert secret not in (process / "cmdline").read_bytes()
            assert secret not in (process / "environ").read_bytes()
            assert traces(gateway.folder, secret, *([own] if own else [])) == []
    finally:
        if gateway.process is not None:
            gateway.end()
        await broker.stop()
    for secret, own in secrets.items():
        assert traces(gateway.folder, secret, *([own] if own else [])) == [], "after the stop"
