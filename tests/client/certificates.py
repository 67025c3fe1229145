# SPDX-License-Identifier: MIT
"""Temporary certificates: a CA, a server, a client, and an unknown CA."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.pki import SERVER, self_signed_root


@dataclass(frozen=True)
class Certificates:
    """
    PEM files.

    Attributes:
        ca: The authority.
        server: Chain and key of a server called localhost.
        elsewhere: The same for a server of another name.
        client: Chain of a client.
        client_key: Its key, mode 0600.
        stranger: An authority that has signed none of them.
    """

    ca: Path
    server: Path
    elsewhere: Path
    client: Path
    client_key: Path
    stranger: Path


def make_certificates(folder: Path) -> Certificates:
    """Write fresh certificates into a folder."""
    found = Certificates(
        *(
            folder / f"{name}.pem"
            for name in (
                *("ca", "server", "elsewhere", "client", "client-key", "stranger"),
            )
        )
    )
    root = self_signed_root("Test authority")
    found.ca.write_bytes(root.chain_pem)
    found.stranger.write_bytes(self_signed_root("Stranger").chain_pem)
    here = root.issue("localhost", use=SERVER)
    elsewhere = root.issue(
        "elsewhere", use=None, names=[x509.DNSName("elsewhere.example")]
    )
    for path, issued in ((found.server, here), (found.elsewhere, elsewhere)):
        path.write_bytes(issued.chain_pem + issued.key_pem)
    written = root.issue("client").write(folder, "client", is_alone=True)
    assert written == (found.client, found.client_key)
    return found
