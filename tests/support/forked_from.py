"""Preload of the fork server in `forked`: loads the kernels and the tables of a store."""

from gateways import STORE, antennas

from config import StoreConfig
from dwell.markov.engine import ZoneEngine
from edge.service.warmup import warm_up
from edge.store.compose import compose

warm_up()
_READERS = [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes", "bags", "out")}]
_SHOP = compose(StoreConfig.model_validate(STORE | {"readers": _READERS, "database": {"path": "s.db"}}))
ZoneEngine(_SHOP.layout, _SHOP.settings)
