"""Readers of the store's other gateways: what a forwarder keeps and sends, and what the service makes of it."""
