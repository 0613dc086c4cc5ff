"""Basics of a store that all other rooms use: settings as numbers, clock, calendar, tags, sockets, errors."""
