"""Folders and files of a store: for its own user, who gets to them whoever made them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.store.private import create_private, make_folder


@pytest.fixture(params=[0o077, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_the_services_user_gets_through_the_folders_above(tmp_path: Path) -> None:
    """A backup that root puts in place before the first start: systemd gives only the last folder to the service."""
    folder = tmp_path / "lib" / "tagtrail" / "s1"
    make_folder(folder)
    assert [each.stat().st_mode & 0o777 for each in (folder, *folder.parents[:2])] == [0o750, 0o755, 0o755]
    folder.chmod(0o700)
    make_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700, "what is there stays as it is"


@pytest.mark.usefixtures("umask")
def test_a_private_file_is_its_owners_only(tmp_path: Path) -> None:
    create_private(tmp_path / "x", b"1")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
