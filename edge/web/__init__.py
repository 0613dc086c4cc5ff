"""The floor manager's web page: a separate process that only reads the store's database."""
