# SPDX-License-Identifier: MIT
"""Issued certificate, and its validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.acme.self_signed import general_names, key_der
from hsm_server.tls.certificates import check_chain
from hsm_server.tls.state import ServerPair


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """
    Stored certificate.

    Attributes:
        key: Its private key.
        chain: The chain, server certificate first.
    """

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    def has_names(self, names: Sequence[str]) -> bool:
        """Return whether it is for all of these names, and no others."""
        try:
            found = self.leaf.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except (x509.ExtensionNotFound, ValueError):
            return False
        return set(found.value) == set(general_names(names))

    def pair(self, now: datetime) -> ServerPair:
        """
        Return it as a listener takes it.

        Raises:
            ListenError: It can't be shown at this instant, UTC.
        """
        if self.key.public_key() != self.leaf.public_key():
            raise ListenError("The CA issued a certificate for another key.")
        chain = check_chain(list(self.chain), "the issued certificate", now)
        pair = ServerPair(
            chain=tuple(map(_der, chain)),
            key=key_der(self.key),
        )
        if len(self.chain) == 1:
            return pair
        return msgspec.structs.replace(pair, issuer=_der(self.chain[1]))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
