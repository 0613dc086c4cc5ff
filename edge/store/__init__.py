"""The store itself: what every other room stands on."""
