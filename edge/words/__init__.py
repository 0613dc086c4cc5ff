"""Translations, and numbers and tables as text."""
