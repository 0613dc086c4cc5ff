"""Readers' ends of their protocols."""
