"""A day as text, CSV and JSON."""
