"""The service of one store."""
