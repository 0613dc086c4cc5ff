"""The audit log of the page, for what is done on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config import StoreConfig


def record(store: StoreConfig, action: str, object_: str = "", *, member: str = "") -> None:
    """Add an entry to the audit log, if there is one; a member is named by a digest."""
    from edge.access.users import Users, users_path

    path = users_path(store)
    if path.exists():
        users = Users(path)
        users.record("console", "", "", action, f"#{users.digest(member)}" if member else object_)
        users.close()
