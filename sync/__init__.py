"""Sync with the CRM: outbox, MQTT, acknowledgements, and messages to the store."""
