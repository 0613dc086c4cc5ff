"""The database on a disk of its own, which becomes read-only after an error or loses its power. Exact counts.

An ext4 file system in a loop device is broken by the kernel's own means: `trigger_fs_error` (Linux's
Documentation/ABI/testing/sysfs-fs-ext4), and the ioctl FS_IOC_SHUTDOWN without flushing, after which it is as after a
power cut: what was not synchronised is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import MakeCrm, Until
from chaos_shops import THRESHOLDS, book, by_epoch, open_shop, serving
from gateways import Gateway

from simulators.headquarters.broker import NatsBroker

SHUTDOWN, NO_FLUSH = 0x8004587D, 2
SIZE = 128 << 20
CUTS = 8
PATIENT = THRESHOLDS | {"journey_end_after_exit_s": 300, "journey_end_silence_s": 300}
"""However long a start takes here: who is announced again was announced in the same journey."""
GREETED = "SELECT count(*), count(DISTINCT json_extract(payload, '$.member')) FROM event WHERE class = 'member'"


class Disk:
    """A mounted ext4 file system in a file; it must not be in use when it is unmounted."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "disk"
        self._image = folder / "disk.img"
        self.place.mkdir()
        self._image.touch()
        os.truncate(self._image, SIZE)
        run("mkfs.ext4", "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.place))

    def unmount(self) -> None:
        run("umount", str(self.place))

    def repair(self) -> None:
        found = subprocess.run(["fsck.ext4", "-p", self._image], capture_output=True, check=False)
        assert found.returncode in (0, 1), found.stdout

    def fail(self) -> None:
        """It meets an error and can only be read from then on."""
        device = run("losetup", "-n", "-O", "NAME", "-j", str(self._image)).strip()
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")

    def cut(self) -> None:
        """It loses its power: nothing is read or written any more, and what was not synchronised is gone."""
        opened = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(opened, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(opened)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    try:
        disk = Disk(tmp_path)
    except RuntimeError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "-l", disk.place], check=False)


def on(gateway: Gateway, disk: Disk) -> dict[str, str | float]:
    gateway.database = disk.place / "store.db"
    return {"path": str(gateway.database), "checkpoint_s": 0.5}


async def test_a_disk_that_becomes_read_only(
    gateway: Gateway,
    disk: Disk,
    tmp_path: Path,
    nats: NatsBroker,
    crm: MakeCrm,
    until: Until,
    tell: Callable[[str], None],
) -> None:
    """It is said why nothing is written; after the repair and a restart nothing is missing or there twice."""
    async with open_shop(gateway, nats.url, 90, database=on(gateway, disk), thresholds=PATIENT) as shop:
        consumer = crm(nats.url)
        await consumer.start()
        gateway.start("--no-web")
        await gateway.until(serving)
        await shop.enter(30, 0.05)
        await until(lambda: consumer.ready() and book(tmp_path, GREETED)[0][0] >= 30, within_s=60)
        disk.fail()
        await shop.enter(30, 0.1)
        state = await gateway.until(lambda s: s["database"]["trouble"])
        assert state["broker"]["connected"]
        assert serving(state)
        assert book(tmp_path, GREETED)[0][0] == 30, "told before it was written"
        await shop.empty()
        gateway.end(signal.SIGKILL)
        disk.unmount()
        disk.repair()
        disk.mount()
        gateway.start("--no-web")
        await gateway.until(serving)
        await shop.enter(30, 0.05)
        await shop.empty()
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()), within_s=60)
        last = await consumer.stop()
    total = sum(numbers.values())
    assert book(tmp_path, GREETED) == [(60, 60)]
    assert all(low == 1 and high == n for low, high, n in by_epoch(tmp_path).values())
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    tell(f"{state['database']['trouble']}; {total:,} of {total:,} events once, nobody announced who was not written")


async def test_power_cuts(
    gateway: Gateway,
    disk: Disk,
    tmp_path: Path,
    nats: NatsBroker,
    crm: MakeCrm,
    until: Until,
    tell: Callable[[str], None],
) -> None:
    """The power goes while members come and go, again and again: what the CRM has heard was on the disk."""
    dice, people = random.Random(7), 40
    parts = {"database": on(gateway, disk), "thresholds": PATIENT}
    async with open_shop(gateway, nats.url, CUTS * people, **parts) as shop:
        consumer = crm(nats.url)
        await consumer.start()
        gateway.start("--no-web")
        await gateway.until(serving)
        for _ in range(CUTS):
            crowd = asyncio.create_task(shop.enter(people, 0.05))
            await asyncio.sleep(dice.uniform(1, 4))
            disk.cut()
            gateway.end(signal.SIGKILL)
            disk.unmount()
            disk.mount()
            gateway.start("--no-web")
            await gateway.until(serving)
            await crowd
        await shop.empty()
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()), within_s=60)
        last = await consumer.stop()
    total = sum(numbers.values())
    announced, members = book(tmp_path, GREETED)[0]
    assert announced == members
    assert members > CUTS * people / 2
    assert all(low == 1 and high == n for low, high, n in by_epoch(tmp_path).values())
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    tell(f"{CUTS} cuts: {total:,} of {total:,} events once, each of {members} members announced once")
