"""A machine, the shop around it, a gateway that works there; and the table of what was counted."""

from __future__ import annotations

import technician
from telling import pytest_terminal_summary, tell

gateway, machine, packages, shop = technician.gateway, technician.machine, technician.packages, technician.shop
__all__ = ["gateway", "machine", "packages", "pytest_terminal_summary", "shop", "tell"]
