"""The store's database."""
