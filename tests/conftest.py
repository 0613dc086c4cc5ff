"""Fixtures for all tests come from modules beside this file."""

pytest_plugins = ["brokers", "databases", "gateways", "nodetools"]
