"""Cues for staff to attend to members."""
