"""Outbox to MQTT to acks, and what comes down."""
