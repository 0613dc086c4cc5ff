"""Names of tag classes."""

from __future__ import annotations

TAG_CLASSES = ("unknown", "member", "cart", "staff", "merchandise")
"""Names of the numbers in `tag_class`: dwell.layout.TagClass, without its NumPy, which the page can do without."""
