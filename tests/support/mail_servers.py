"""A mail server on loopback: it keeps what it takes, and refuses what it is told to."""

from __future__ import annotations

import email
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from config.mail import Mail

USER, SECRET = "tagtrail", "correct horse"


@dataclass
class MailServer:
    """`refuse`: reply by address, or by "data"; `hang_up`: break off when a message has come."""

    port: int = 0
    refuse: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    taken: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_MAIL(self, _s: SMTP, _n: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.refuse.get(address, "250 OK")

    async def handle_RCPT(self, _s: SMTP, _n: Session, envelope: Envelope, address: str, _o: list[str]) -> str:
        if address not in self.refuse:
            envelope.rcpt_tos.append(address)
        return self.refuse.get(address, "250 OK")

    async def handle_DATA(self, server: SMTP, _n: Session, envelope: Envelope) -> str:
        if "data" in self.refuse:
            return self.refuse["data"]
        assert isinstance(envelope.content, bytes)
        made = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(made, EmailMessage)
        self.taken.append((list(envelope.rcpt_tos), made))
        connection: Any = server.transport
        self.encrypted.append(connection.get_extra_info("ssl_object") is not None)
        if self.hang_up:
            connection.abort()
        return "250 OK"

    def authenticate(self, _s: SMTP, _n: Session, _e: Envelope, _m: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        right = (data.login, data.password) == (USER.encode(), SECRET.encode())
        return AuthResult(success=right, handled=False)


@contextmanager
def serving(cert: Path | None = None, *, tls: str = "none", logs_in: bool = False) -> Iterator[MailServer]:
    """The server in a thread of its own. `cert`: its certificate, with the key beside it."""
    server = MailServer()
    context = None
    if cert is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, cert.with_suffix(".key"))
    options: dict[str, Any] = {"hostname": "127.0.0.1", "port": 0}
    if tls == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    elif tls == "tls":
        options |= {"ssl_context": context}
    if logs_in:
        options |= {"authenticator": server.authenticate, "auth_required": True, "auth_require_tls": False}
    controller = _Controller(server, **options)
    controller.start()
    try:
        server.port = controller.listening
        yield server
    finally:
        controller.stop()


class _Controller(Controller):
    """On any free port."""

    @property
    def listening(self) -> int:
        listening: Any = self.server
        return int(listening.sockets[0].getsockname()[1])

    def _trigger_server(self) -> None:
        """The base class connects to the port that it was given, to see whether the server runs."""
        self.port, given = self.listening, self.port
        super()._trigger_server()  # type: ignore[no-untyped-call]
        self.port = given


def mail_to(by: MailServer, **keys: Any) -> Mail:
    """The section of the store file for it."""
    values = {
        "server": f"127.0.0.1:{by.port}",
        "tls": "none",
        "sender": "tagtrail@shop.example",
        "to": ["manager@shop.example", "deputy@shop.example"],
        "lang": "en",
    }
    return Mail.model_validate(values | keys)
