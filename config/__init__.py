"""What a store is made of, from one TOML file. Knows nothing of the rest of Tagtrail."""

from config.model import (
    Antenna,
    Database,
    Floor,
    Mqtt,
    Name,
    Reader,
    Store,
    StoreConfig,
    TagClass,
    Thresholds,
    Web,
    Zone,
    ZoneKind,
)

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
