"""Readers that push their reads as JSON: over HTTP, MQTT or a WebSocket."""
