"""Models for a store with several gateways: one runs the service, others forward reads, and one may stand by for it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from config.basis import FilePath, Id, Int, Model, Seconds

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


class Standby(Model):
    """A gateway that keeps an exact copy of the service's database (`tagtrail standby`) and can take over from it."""

    id: Id
    address: HostPort
    """Address and port of the service once this gateway runs it. Forwarders try both."""
    listen: HostPort | None = None
    """Address and port on which it waits for them then, if another one."""
    token_file: FilePath
    """File with a secret of the gateways that run the service in turn, and of the witness: `openssl rand -hex 32`."""
    patience_s: Annotated[Seconds, Field(ge=0.2, le=60)] = 2.0
    """Events wait at most this long for a standby that does not answer; then the service goes on without it."""
    witness: Annotated[str, Field(pattern=r"^(nats://[^\s]+|[^\s/]+:\d{1,5})$")] | None = None
    """Third party that lets the standby take over by itself: host:port of `tagtrail witness`, or nats://host:port of
    the chain's log."""
    lease_s: Annotated[Seconds, Field(ge=3, le=600)] = 10.0
    """With a witness: the standby takes over after the service has been silent for so long."""
