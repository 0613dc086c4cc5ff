"""Numbered migrations of the gateway's database."""
