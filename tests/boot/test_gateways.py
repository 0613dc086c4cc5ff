"""Service, standby, forwarder and witness as units, by the words of docs/gateways.md; all on one machine, each with an
address of its own. `make boot-test` builds the package first; needs root."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from booted import Booted
from certificates import Authority
from later_release import later
from technician import BROKER_PASSWORD, FILE, NEEDS, ROOT, TAGS, UNIT, Shop, install, works

pytestmark = NEEDS

SECOND = "/etc/tagtrail/two.toml"
UNITS = ("s1", "two", "two-forward", "two-witness")
PARTS = """
[forwarding]
address = "127.0.0.1:8790"
cert = "/etc/tagtrail/tls/service.pem"
key = "${CREDENTIALS_DIRECTORY}/service-key"
ca = "/etc/tagtrail/tls/ca.pem"

[[forwarders]]
id = "gateway-2"
token_file = "${CREDENTIALS_DIRECTORY}/gateway-2"

[standby]
id = "gateway-2"
address = "127.0.0.2:8790"
token_file = "${CREDENTIALS_DIRECTORY}/standby"
witness = "127.0.0.3:8790"
"""
NEEDED = {
    "s1": ("gateway-2", "standby", "service-key"),
    "two": ("gateway-2", "standby", "service-key", "mqtt-password"),
    "two-forward": ("gateway-2",),
    "two-witness": ("standby", "service-key"),
}
"""Secrets of each instance."""


def words() -> dict[str, str]:
    """The drop-ins of the document, by the command that each runs."""
    text = (ROOT / "docs" / "gateways.md").read_text("utf-8")
    found = re.findall(r"^ *\[Service\]\n(?: *\w+=.*\n)+", text, re.MULTILINE)
    return {("--state " if "forward" in each and "--state" in each else "") + _command(each): each for each in found}


def _command(drop_in: str) -> str:
    return re.findall(r"bin/tagtrail (\w+)", drop_in)[0]


def stands_by(machine: Booted) -> bool:
    return "stands by, and has everything" in machine.run("tagtrail", "status", "-c", SECOND, check=False).stdout


def says(machine: Booted, instance: str) -> str:
    return machine.shows(f"tagtrail@{instance}", "StatusText")


def set_up(machine: Booted, packages: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("service", names="IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3")
    secrets = {"gateway-2": "1f" * 32, "standby": "2e" * 32, "service-key": issued.with_suffix(".key").read_text()}
    for file in (issued, authority.folder / "ca.pem"):
        shutil.copy(file, packages)
    machine.sh("install -D -m 0644 -t /etc/tagtrail/tls /srv/packages/service.pem /srv/packages/ca.pem")
    for instance, names in NEEDED.items():
        for name in names:
            place = f"/etc/credstore/tagtrail.{instance}.{name}"
            given = (secrets | {"mqtt-password": BROKER_PASSWORD})[name]
            machine.run("install", "-D", "-m", "0600", "/dev/stdin", place, given=given)
    (packages / "parts.toml").write_text(PARTS)
    machine.sh(f"""
sed -i 's/^\\[\\[readers\\]\\]/&\\nvia = "gateway-2"/' {FILE}
cat /srv/packages/parts.toml >>{FILE}
sed 's|/var/lib/tagtrail/s1/|/var/lib/tagtrail/two/|; s|127.0.0.1:8080|127.0.0.1:8081|' {FILE} >{SECOND}
ln -s two.toml /etc/tagtrail/two-forward.toml
ln -s two.toml /etc/tagtrail/two-witness.toml
""")
    drop_ins = words()
    also = "".join(f"LoadCredential={name}:tagtrail.%i.{name}\n" for name in ("gateway-2", "standby", "service-key"))
    for instance, text in (
        ("s1", f"[Service]\n{also}"),
        ("two", drop_ins["standby"]),
        ("two-forward", drop_ins["--state forward"]),
        ("two-witness", drop_ins["witness"]),
    ):
        place = f"/etc/systemd/system/tagtrail@{instance}.service.d/override.conf"
        machine.run(
            "install", "-D", "-m", "0644", "/dev/stdin", place, given=re.sub("^ +", "", text, flags=re.MULTILINE)
        )
    machine.run("systemctl", "daemon-reload")


def test_a_standby_that_forwards_too_and_a_witness(
    gateway: Booted, shop: Shop, packages: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    gateway.run("tagtrail", "directory", "import", "/srv/packages/members.csv", "-c", FILE)
    gateway.until(lambda: shop.recognised() == TAGS)
    set_up(gateway, packages, tmp_path)
    for file in (FILE, SECOND):
        checked = gateway.run("tagtrail", "check", file)
        assert "credstore" not in checked.stderr, checked.stderr
    gateway.run("systemctl", "restart", UNIT)
    for instance in UNITS[1:]:
        gateway.run("systemctl", "enable", "--now", f"tagtrail@{instance}")
    gateway.until(lambda: works(gateway) and stands_by(gateway))
    gateway.until(lambda: says(gateway, "two") == "stands by, and has everything")
    gateway.until(lambda: says(gateway, "two-forward") == "1 of 1 readers up, service connected")
    gateway.until(lambda: says(gateway, "two-witness").startswith("127.0.0.1:8790 runs the service"))
    doctor = gateway.run("tagtrail", "doctor", "-c", SECOND, check=False).stdout
    assert "this gateway stands by, and has everything" in doctor
    assert "tag key" not in doctor, "it has come with the copy"

    # An upgrade of a machine with all four is not taken back for want of a service.
    later(packages / "first.deb", "7.5.0", packages)
    install(gateway, "7.5.0.deb")
    assert gateway.sh("basename $(readlink /opt/tagtrail/current)") == "7.5.0"
    gateway.until(lambda: works(gateway) and stands_by(gateway))
    assert {gateway.shows(f"tagtrail@{instance}", "ActiveState") for instance in UNITS} == {"active"}

    # The service is gone, and comes back when the other one has taken over by itself.
    gateway.run("systemctl", "stop", UNIT)
    second = ("tagtrail", "status", "-c", SECOND)
    serves = "broker connected, 1 of 1 readers up"
    gateway.until(lambda: serves in gateway.run(*second, check=False).stdout)
    gateway.run("systemctl", "start", UNIT, check=False)
    gateway.until(lambda: gateway.shows(UNIT, "ExecMainStatus") == "3")
    assert gateway.shows(UNIT, "NRestarts") == "0", "systemd leaves it alone"
    assert gateway.shows("tagtrail@two-witness", "StatusText").startswith("127.0.0.2:8790 runs the service")
    events = len(shop.events())
    gateway.until(lambda: len(shop.events()) > events)
    assert shop.gaps() == []
    tell(f"four instances upgraded, taken over by the witness, {len(shop.events())} events at the CRM without a gap")
