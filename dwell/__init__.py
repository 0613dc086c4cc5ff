"""Reads to visits, paths and aggregates: NumPy and Numba, no I/O."""
