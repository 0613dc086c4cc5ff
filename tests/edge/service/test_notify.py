"""Datagrams to a manager that is a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway

from config.check import load
from edge.service import notify as module
from edge.service import service
from edge.service.notify import long_work, notify
from edge.service.service import Service
from edge.store.clock import Clock


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        yield listening


def test_it_reaches_a_socket_in_the_file_system(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")
    assert manager.recv(1024) == b"READY=1"


def test_it_reaches_an_abstract_socket(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"tagtrail-test-{os.getpid()}"
    manager.bind("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    notify("WATCHDOG=1", "STATUS=12 readers up · 店")
    assert manager.recv(1024).decode() == "WATCHDOG=1\nSTATUS=12 readers up · 店"


def test_without_systemd_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_manager_that_is_gone_does_not_hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("STOPPING=1")


def test_a_manager_that_does_not_read_holds_nothing_up(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for _ in range(2000):
        notify("WATCHDOG=1")
    assert manager.recv(1024) == b"WATCHDOG=1"


def test_long_work_keeps_the_manager_patient_until_it_is_done(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    with long_work():
        for _ in range(3):
            assert manager.recv(1024).startswith(b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000")
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while manager.recv(1024):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "patience"]


@pytest.mark.parametrize("phase", ["Database", "compose", "Pipeline", "warm_up", "life.begin", "Pipeline.restore"])
async def test_every_long_phase_of_a_start_keeps_the_manager_patient(
    phase: str, manager: socket.socket, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels are compiled for a minute where there is no cache; a watchdog of 30 s would never let a store start."""
    manager.bind(str(gateway.folder / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(gateway.folder / "notify"))
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    owner, _, name = phase.rpartition(".")
    where: Any = getattr(service, owner) if owner else service
    true = getattr(where, name)
    beats: list[bytes] = []

    def slowly(*args: Any, **kwargs: Any) -> Any:
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while manager.recv(1024):
                pass  # of the phase before
        manager.settimeout(5)
        while len(beats) < 5:
            beats.append(manager.recv(1024))
        assert all(beat.startswith(b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=") for beat in beats)
        return true(*args, **kwargs)

    monkeypatch.setattr(where, name, slowly)
    gateway.configure()
    config = load(gateway.file)
    running = Service(config, gateway.file, Clock(), version="test", web=False, trace=None)
    served = asyncio.Event()

    async def serve(_: Service) -> None:
        served.set()

    monkeypatch.setattr(Service, "_serve", serve)
    await running.run()
    gc.unfreeze()
    assert served.is_set()
    assert len(beats) >= 5


async def test_a_service_that_begins_anew_does_not_say_that_it_stops(
    manager: socket.socket, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that heard STOPPING=1 kills what is still there when TimeoutStopSec is over."""
    manager.bind(str(gateway.folder / "notify"))
    manager.settimeout(60)
    monkeypatch.setenv("NOTIFY_SOCKET", str(gateway.folder / "notify"))
    gateway.configure()
    gateway.start("--no-web")

    def told(until: bytes) -> list[bytes]:
        came = [manager.recv(1024)]
        while came[-1] != until:
            came.append(manager.recv(1024))
        return came

    told(b"READY=1")
    for file in gateway.folder.glob("store.db*"):
        file.unlink()
    came = told(b"READY=1")
    assert [message.split(b"\n")[0] for message in came if not message.startswith((b"WATCHDOG", b"STATUS"))] == [
        b"RELOADING=1",
        b"READY=1",
    ]
    assert gateway.end() == 0, gateway.log()
    told(b"STOPPING=1")
