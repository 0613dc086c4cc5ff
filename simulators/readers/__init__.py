"""Simulated readers: the reader's side of all protocols."""
