"""Send a message through the site's mail server (SMTP, RFC 5321). Blocking; errors say what to do and name nobody."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from config.mail import PORTS, Mail
from config.relations import host_port
from edge.store.errors import Trouble
from edge.words.languages import catalogue

TIMEOUT_S = 30.0


class Unsure(Trouble):
    """Raised if the connection broke after the message: the server may have taken it, or not."""


def message(mail: Mail, subject: str, text: str, identity: str) -> EmailMessage:
    """Make a message of plain text. `identity`: a second message with the same one is a duplicate for many servers."""
    made = EmailMessage(policy=SMTP)
    made["Subject"] = subject
    made["From"] = mail.sender
    made["To"] = ", ".join(mail.to)
    made["Date"] = format_datetime(dt.datetime.now(dt.UTC))
    made["Message-ID"] = f"<{identity}@{mail.sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text, cte="quoted-printable")
    return made


def trial(mail: Mail, store: str) -> EmailMessage:
    """Make a message that tries the settings."""
    _ = catalogue(mail.lang).gettext
    text = _("This is a trial. The digests of store {store} will be sent to this address.").format(store=store)
    return message(mail, f"Tagtrail · {store}", f"{text}\n", f"trial-{secrets.token_hex(8)}.{store}")


def attach(made: EmailMessage, name: str, html: str) -> None:
    """Attach a page of HTML: most mail programs would not show its pictures."""
    made.add_attachment(
        html.encode(), maintype="text", subtype="html", filename=name, params={"charset": "utf-8"}, cte="base64"
    )


def send(mail: Mail, made: EmailMessage) -> int:
    """Send a message to all recipients; returns how many of them the server has refused.

    Raises Trouble, and then nothing was sent; Unsure if that is not known.
    """
    with _connected(mail) as server:
        code, _ = server.mail(mail.sender)
        if code != 250:
            raise Trouble(f"the mail server refuses the sender ({code}): check [mail] sender")
        codes = [server.rcpt(each)[0] for each in mail.to]
        refused = [code for code in codes if code not in (250, 251)]
        if len(refused) == len(codes):
            raise Trouble(f"the mail server refuses all recipients ({refused[0]}): check [mail] to")
        try:
            code, _ = server.data(made.as_bytes())
        except smtplib.SMTPDataError as error:
            code = error.smtp_code
        except OSError as error:
            raise Unsure(
                "the mail server broke off after a message: it may have been sent, and is not repeated"
            ) from error
        if code != 250:
            raise Trouble(f"the mail server refuses the message ({code}): ask who runs it")
        return len(refused)


@contextmanager
def _connected(mail: Mail) -> Iterator[smtplib.SMTP]:
    """Connect and log in; Trouble for whatever goes wrong, here and in the block."""
    try:
        server = _connect(mail)
    except OSError as error:  # also those of smtplib and ssl
        raise Trouble(_in_words(error)) from error
    try:
        yield server
        with contextlib.suppress(OSError):
            server.quit()
    except OSError as error:
        raise Trouble(_in_words(error)) from error
    finally:
        server.close()


def _connect(mail: Mail) -> smtplib.SMTP:
    host, port = host_port(mail.server)
    host, port = (host or "").strip("[]"), port or PORTS[mail.tls]
    own = socket.gethostname() or "localhost"
    context = ssl.create_default_context(cafile=None if mail.ca is None else str(mail.ca))
    if mail.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, own, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(host, port, own, timeout=TIMEOUT_S)
    try:
        if mail.tls == "starttls":
            server.starttls(context=context)
        server.ehlo_or_helo_if_needed()
        if mail.username is not None and mail.password_file is not None:
            server.login(mail.username, mail.password_file.read_text("utf-8").strip())
    except BaseException:
        server.close()
        raise
    return server


def _in_words(error: OSError) -> str:
    if isinstance(error.__context__, TimeoutError):  # smtplib says only that the connection was closed
        error = error.__context__
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"the mail server refuses the login ({error.smtp_code}): check [mail] username and password_file"
        case smtplib.SMTPNotSupportedError() if "STARTTLS" in str(error):
            return "the mail server offers no STARTTLS: check [mail] tls and server"
        case smtplib.SMTPNotSupportedError():
            return "the mail server offers no login: check [mail] username and tls"
        case smtplib.SMTPException():
            return "the mail server breaks off: check [mail] server and tls"
        case ssl.SSLCertVerificationError():
            return f"the mail server's certificate is not trusted ({error.verify_message}): check [mail] ca and server"
        case ssl.SSLError():
            return "the mail server speaks no such TLS: check [mail] tls and the port in server"
        case socket.gaierror():
            return "the mail server's name was not found: check [mail] server and the gateway's name server"
        case TimeoutError():
            return "the mail server does not answer: check [mail] server and the network"
        case ConnectionRefusedError():
            return "the mail server refuses the connection: check [mail] server and tls"
        case PermissionError():
            return "the unit may not connect to the mail server, or not read the password: see docs/install.md"
        case FileNotFoundError():
            return f"there is no file {error.filename}: check [mail] password_file and ca"
        case _:
            return f"there is no way to the mail server: {error.strerror or type(error).__name__}"
