"""Readers, their contacts and lamps, and the tools for who installs them."""
