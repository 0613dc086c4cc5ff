"""Reports about a business day as text, CSV and JSON."""
