"""Settings of the connection to the broker, from the store file."""

from __future__ import annotations

from config import StoreConfig
from sync.mqtt import MqttSettings


def settings(config: StoreConfig, suffix: str = "") -> MqttSettings:
    """Return the settings of this store; `suffix`: of the client id, for who connects beside the service."""
    mqtt = config.mqtt
    return MqttSettings.from_url(
        mqtt.url,
        f"tagtrail-{config.store.id}{suffix}",
        version=mqtt.version,
        username=mqtt.username,
        password_file=mqtt.password_file,
        ca=mqtt.ca,
        cert=mqtt.cert,
        key=mqtt.key,
    )
