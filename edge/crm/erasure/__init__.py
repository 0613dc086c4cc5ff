"""Erasure of members: recorded first, carried out until nothing is left, and remembered."""
