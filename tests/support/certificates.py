"""Certificates made by the openssl command, of any time."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest

_CA = """
[ca]
default_ca = d
[d]
new_certs_dir = .
database = index
serial = serial
default_md = sha256
policy = p
unique_subject = no
x509_extensions = {kind}
[p]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
[leaf]
basicConstraints = CA:FALSE
subjectAltName = {names}
"""


class Authority:
    """A folder of certificates: `NAME.pem` and `NAME.key` of each that was issued, the authority's own called `ca`."""

    def __init__(self, folder: Path, *, days: tuple[int, int] = (-1, 3650)) -> None:
        """`days`: from when until when it holds, counted from now. Skips the test where there is no openssl."""
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "index").touch()
        (folder / "serial").write_text("01\n")
        self._issue("ca", "authority", "DNS:ca", days, ("-selfsign", "-keyfile", "ca.key"))

    def issue(self, name: str, *, names: str = "IP:127.0.0.1,DNS:localhost", days: tuple[int, int] = (-1, 365)) -> Path:
        """A certificate signed by it; the path of its PEM file."""
        self._issue(name, "leaf", names, days, ("-cert", "ca.pem", "-keyfile", "ca.key"))
        return self.folder / f"{name}.pem"

    def _issue(self, name: str, kind: str, names: str, days: tuple[int, int], signer: tuple[str, ...]) -> None:
        now = dt.datetime.now(dt.UTC)
        since, until = (f"{now + dt.timedelta(days=n):%Y%m%d%H%M%SZ}" for n in days)
        (self.folder / "openssl.cnf").write_text(_CA.format(kind=kind, names=names))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
        self._run("req", "-new", *key, "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._run(
            *("ca", "-batch", "-notext", "-config", "openssl.cnf", *signer, "-in", f"{name}.csr"),
            *("-out", f"{name}.pem", "-startdate", since, "-enddate", until),
        )

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)
