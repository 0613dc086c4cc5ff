"""The service's Unix sockets: for the store's own user and group, and no trace on what else the process makes."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from edge.store.live_socket import open_socket


async def test_sockets_opened_side_by_side_are_private_and_leave_the_umask_alone(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("live", "orders", "third")]
    (tmp_path / "before").mkdir()
    servers = await asyncio.gather(*(open_socket(path, lambda *_: None) for path in paths))
    (tmp_path / "after").mkdir()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("before", "after")]
    assert modes[0] == modes[1]
    for path, server in zip(paths, servers, strict=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        server.close()
