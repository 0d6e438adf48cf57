"""Certificates of an authority of one's own, by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vxagent.store.engine import Credentials

_NEW = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DAYS = ("-days", "2")


class Authority:
    """Who signs, and its files, which are named for whom they are.

    Args:
        directory: where it makes them; no other authority does.

    Attributes:
        ca: its own certificate.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca = directory / "ca.pem"
        self._openssl(*_NEW, "-x509", *_DAYS, "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem")

    def server(self, address: str) -> Credentials:
        """For who serves at an IP address."""
        return self._sign("server", f"subjectAltName=IP:{address}")

    def client(self, name: str = "client") -> Credentials:
        """For who asks."""
        return self._sign(name, "extendedKeyUsage=clientAuth")

    def _sign(self, name: str, extension: str) -> Credentials:
        (self._directory / f"{name}.ext").write_text(extension)
        self._openssl(*_NEW, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        sign = ("x509", "-req", *_DAYS, *by, "-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        self._openssl(*sign)
        return Credentials(ca=self.ca, cert=self._directory / f"{name}.pem", key=self._directory / f"{name}.key")

    def _openssl(self, *words: str) -> None:
        subprocess.run(("openssl", *words), cwd=self._directory, check=True, capture_output=True, timeout=30)
