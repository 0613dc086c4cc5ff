"""Readers with their inputs and outputs, and the tools for installing them."""
