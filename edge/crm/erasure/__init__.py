"""Erasing members: what was asked for is written down first, done until nothing is left, and remembered."""
