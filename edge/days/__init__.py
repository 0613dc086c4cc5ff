"""Business days in numbers."""
