"""Readers on serial lines."""
