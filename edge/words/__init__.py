"""Languages, and numbers as text."""
