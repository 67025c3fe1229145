# SPDX-License-Identifier: MIT
"""A small certificate authority for tests, whose certificates lie in files."""

from dataclasses import dataclass
from pathlib import Path

from tests.pki import CLIENT, SERVER, Issuer, self_signed_root


@dataclass(frozen=True)
class Pair:
    """Where a certificate and its private key lie, as PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """An authority that signs for a day; its own certificate lies in *bundle*."""

    folder: Path
    bundle: Path
    root: Issuer

    def issue(self, common_name: str, *, server: bool) -> Pair:
        """Make a key and a certificate for a server on loopback, or for a client."""
        issued = self.root.issue(common_name, use=SERVER if server else CLIENT)
        return Pair(*issued.write(self.folder, common_name, is_alone=True))


def make_authority(folder: Path, common_name: str = "test authority") -> Authority:
    """Make an authority whose files lie in *folder*, which is made with mode 0700."""
    folder.mkdir(mode=0o700, exist_ok=True)
    root = self_signed_root(common_name, below=0)
    bundle = folder / "authority.pem"
    bundle.write_bytes(root.chain_pem)
    return Authority(folder, bundle, root)
