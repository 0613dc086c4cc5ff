"""The floor manager's page: a process of its own that reads, never writes."""
