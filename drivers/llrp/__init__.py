"""LLRP readers."""
