"""Service process of one store."""
