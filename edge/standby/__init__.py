"""A second gateway that keeps an exact copy of the service's database, and takes over from it."""
