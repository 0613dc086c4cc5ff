"""Charts and floor plans."""
