"""Readers' bytes to READ arrays, and sessions that survive."""
