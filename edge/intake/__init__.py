"""From reads to rows and events."""
