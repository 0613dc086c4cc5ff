"""Readers, their contacts and lamps, and the tools for installing them."""
