"""Examination of a gateway: what is wrong, or soon will be, and what to do about it."""
