"""Handlers of pages and forms."""
