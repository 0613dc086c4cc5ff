"""Names of tag classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page does without the contract's models
    from sync.contract_base import TagClassName

TAG_CLASSES: tuple[TagClassName, ...] = ("unknown", "member", "cart", "staff", "merchandise")
"""The contract's names of the numbers in `tag_class`, in the order of dwell.layout.TagClass.

A list of its own, because the page does without NumPy.
"""
