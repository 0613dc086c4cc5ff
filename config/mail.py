"""Model of the digest by e-mail: the site's own mail server, who gets it, and when."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from config.basis import FilePath, Model

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}$")]
Tls = Literal["starttls", "tls", "none"]
PORTS: dict[Tls, int] = {"starttls": 587, "tls": 465, "none": 25}


class Mail(Model):
    """Digests of the day and of the week, sent each morning through a mail server (SMTP)."""

    server: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.%\w]+\]|[^:\s\[\]/]+)(:\d{1,5})?$")]
    """Host, or host:port, of the mail server; default port: 587, 465 with tls = "tls", 25 with "none"."""
    tls: Tls = "starttls"
    """How the connection is encrypted: by STARTTLS, from the beginning, or not at all."""
    ca: FilePath | None = None
    """Certificates (PEM) of the CA that signed the server's; default: those that the machine trusts."""
    username: Annotated[str, Field(min_length=1, max_length=254)] | None = None
    password_file: FilePath | None = None
    """File that contains the password; with `username`."""
    sender: Address
    """Address from which it is sent."""
    to: Annotated[tuple[Address, ...], Field(min_length=1, max_length=50)]
    """Addresses to which it is sent."""
    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "08:00"
    """Local time, after the end of the business day, from which it is sent."""
    day: bool = True
    """Whether the digest of each day is sent."""
    week: Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "never"] = "mon"
    """On which day the digest of the seven days before is sent; "never" if not at all."""
    lang: Literal["zh", "en"] = "zh"
    """Its language."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file must be used together")
        return self
