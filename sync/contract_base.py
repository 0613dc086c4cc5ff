"""Base classes of the contract's models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Us = Annotated[int, Field(ge=0, lt=2**63, description="UTC, microseconds since 1970")]
Name = Annotated[str, Field(max_length=128)]


class Message(BaseModel):
    """Base: frozen. Consumers ignore keys they don't know, so that v1 can grow. Built when first used: the page, which
    knows of them only by what it imports, need not pay for them."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Numbered(Message):
    """Base of events. The outbox gives the id, together with the sequence number, when the event is committed."""

    id: str = Field(default="", max_length=200, description="store/epoch/class/sequence")
