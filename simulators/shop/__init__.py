"""Simulated shop: people, cards and radio."""
