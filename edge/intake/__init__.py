"""Pipeline from reads to database rows and events."""
