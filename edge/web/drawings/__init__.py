"""Charts and plans."""
