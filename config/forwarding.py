"""Models for a store with several gateways: one runs the service, the others forward the reads of their readers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from config.basis import FilePath, Id, Int, Model

HostPort = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.%\w]+\]|[^:\s\[\]/]+):\d{1,5}$")]


class Forwarding(Model):
    """Connection between the store's gateways. The same store file is used on all of them."""

    address: HostPort
    """Address and port of the service, to which forwarders connect."""
    listen: HostPort | None = None
    """Address and port on which the service waits for them, if another one."""
    cert: FilePath | None = None
    """The service's certificate (PEM, with its chain), which must contain the address; with `key` and `ca`."""
    key: FilePath | None = None
    ca: FilePath | None = None
    """Certificate (PEM) of the CA of that certificate, for the forwarders."""
    quota_mb: Annotated[Int, Field(ge=1, le=1 << 20)] = 512
    """Most MB of reads on a forwarder's disk while the service is away; beyond, the oldest are deleted."""

    @model_validator(mode="after")
    def _all(self) -> Self:
        if len({self.cert is None, self.key is None, self.ca is None}) > 1:
            raise ValueError("cert, key and ca must be used together")
        return self


class Forwarder(Model):
    """Another gateway of the store, which runs `tagtrail forward` for the readers that name it in `via`."""

    id: Id
    token_file: FilePath
    """File with a secret that the service and this forwarder share, at least 16 characters: `openssl rand -hex 32`."""
