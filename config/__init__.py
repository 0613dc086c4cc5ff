"""Store configuration, loaded from one TOML file. Independent of the rest of Tagtrail."""

from config.facts import ZoneKind
from config.model import (
    Database,
    Floor,
    Mqtt,
    Name,
    Store,
    StoreConfig,
    TagClass,
    Thresholds,
    Web,
    Zone,
)
from config.readers import Antenna, Reader

__all__ = [
    "Antenna",
    "Database",
    "Floor",
    "Mqtt",
    "Name",
    "Reader",
    "Store",
    "StoreConfig",
    "TagClass",
    "Thresholds",
    "Web",
    "Zone",
    "ZoneKind",
]
