"""A shop with people and cards in it."""
