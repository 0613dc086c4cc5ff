"""Command line of Tagtrail."""
