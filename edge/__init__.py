"""The service: composes readers, engine, database, sync and page."""
