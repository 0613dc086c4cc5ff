"""Calls to the floor."""
