"""Backups of a store, and stores from backups."""
