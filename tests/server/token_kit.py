# SPDX-License-Identifier: MIT
"""Tokens of every algorithm, signed by cryptography alone, and files of their keys."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hsm_core.errors import AuthenticationError
from hsm_core.protocols import AsyncHSMGateway
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import TrustedNames
from hsm_server.identity.token_sources import TokenSource, TokenWatch
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.server.support import b64url, claims, mint

SECOND_SECRET = b"another secret of thirty-two bytes or more"

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


@dataclass(frozen=True)
class Signer:
    """Who signs tokens: with a private key, or a secret."""

    algorithm: str
    key: Any

    def sign(self, data: bytes) -> bytes:
        """Return a signature as JWS has it."""
        match self.key:
            case rsa.RSAPrivateKey():
                return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey():
                der = self.key.sign(data, ec.ECDSA(hashes.SHA256()))
                return b"".join(n.to_bytes(32) for n in decode_dss_signature(der))
            case _:
                return bytes(self.key.sign(data))

    def token(self, kid: str | None = None, **changes: Any) -> str:
        """Return a token of this key; *changes* are of its claims."""
        header = {"alg": self.algorithm} | ({"kid": kid} if kid is not None else {})
        return self.token_of(header, claims(**changes))

    def token_of(self, header: dict[str, Any], said: dict[str, Any]) -> str:
        """Return a token that says this."""
        if isinstance(self.key, bytes):
            return mint(said, header, secret=self.key)
        parts = (b64url(json.dumps(part).encode()) for part in (header, said))
        signed = ".".join(parts)
        return f"{signed}.{b64url(self.sign(signed.encode()))}"

    def section(self, kid: str | None = None) -> dict[str, Any]:
        """Return the key as a file of keys has it."""
        found: dict[str, Any] = {"algorithm": self.algorithm}
        if kid is not None:
            found["kid"] = kid
        if isinstance(self.key, bytes):
            found["secret"] = base64.b64encode(self.key).decode()
        else:
            found["public_key_pem"] = self.pem()
        return found

    def pem(self) -> str:
        """Return the public key as PEM."""
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        public = self.key.public_key()
        return str(public.public_bytes(serialization.Encoding.PEM, spki).decode())

    def private_pem(self) -> bytes:
        """Return the private key as PEM."""
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


@cache
def signer(algorithm: str, number: int = 0) -> Signer:
    """Return one of several signers of an algorithm, the same each time."""
    match algorithm:
        case "RS256":
            return Signer(algorithm, rsa.generate_private_key(65537, 2048))
        case "ES256":
            return Signer(algorithm, ec.generate_private_key(ec.SECP256R1()))
        case "EdDSA":
            return Signer(algorithm, ed25519.Ed25519PrivateKey.generate())
        case _:
            return Signer(algorithm, SECOND_SECRET + bytes([65 + number]))


def write_config(path: Path, keys: list[dict[str, Any]], **members: Any) -> Path:
    """Write a file of keys in the place of the one before, all at once."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps({**members, "keys": keys}))
    fresh.rename(path)
    return path


class Watched:
    """
    A gatekeeper whose keys are watched, and what the watch has told.

    Args:
        path: File of the keys, if there is one.

        is_fetching: Whether keys are fetched, too.

        declare: See `TokenWatch`.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        is_fetching: bool = False,
        declare: Callable[[], object] = lambda: None,
    ) -> None:
        self.told: list[str] = []
        self.source = TokenSource(path, bytes, TokenRules(), is_fetching=is_fetching)
        trust = self.source.read()
        self.names = TrustedNames(trust)
        nobody = cast("AsyncHSMGateway", None)
        self.gatekeeper = Gatekeeper(nobody, trust, lambda: None, names=self.names)
        self.watch = TokenWatch(
            self.source, trust, self.gatekeeper.use, self.told.append, declare
        )

    def accepts(self, token: str) -> bool:
        """Return whether a token is good now."""
        try:
            self.gatekeeper.authenticate(Visitor(credential=token))
        except AuthenticationError:
            return False
        return True
