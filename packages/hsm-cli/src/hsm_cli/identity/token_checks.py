# SPDX-License-Identifier: MIT
"""
Whether a key at hand has signed a token.

A key is for one algorithm, whatever the token says, as servers have it.

Standard:
    RFC 7515 section 5.2, RFC 7517, RFC 8725 section 3.1.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

from hsm_core.errors import AuthenticationError, InvalidInputError

_FIELD: Final = "verify_key"
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")


def check_by_secret(token: str, secret: bytes) -> None:
    """
    Check a token of HS256.

    Raises:
        AuthenticationError: The secret has not signed it.
    """
    from joserfc import jwk

    if not _is_signed(token, jwk.OctKey.import_key(secret), "HS256"):
        raise AuthenticationError(
            "The token was not signed with this secret, or not with HS256."
        )


def check_by_keys(token: str, header: Mapping[str, Any], data: bytes) -> None:
    """
    Check a token of RS256, ES256 or EdDSA.

    Args:
        token: What may be signed.

        header: What it says of itself; of a set, the keys with its ``kid`` are tried.

        data: A public key as PEM, a JWK, or a JWK Set.

    Raises:
        InvalidInputError: It is none of these, or holds no key that tokens may have.
        AuthenticationError: None of the keys has signed it.
    """
    found = _keys_of_json(data) if data.lstrip()[:1] == b"{" else [("", _of_pem(data))]
    usable = [(kid, key, alg) for kid, key in found if (alg := _algorithm_of(key))]
    if not usable:
        raise InvalidInputError(
            "The file holds no public key that is RSA, EC on P-256 or Ed25519.",
            field=_FIELD,
        )
    kid = header.get("kid")
    if not any(
        _is_signed(token, key, alg)
        for name, key, alg in usable
        if not name or kid is None or name == kid
    ):
        raise AuthenticationError(
            "The token was not signed with this key, or not with its algorithm."
            if len(usable) == 1
            else "The token was not signed with the key of its kid in this set."
        )


def _is_signed(token: str, key: Any, algorithm: str) -> bool:
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        with warnings.catch_warnings():
            # EdDSA leaves the curve open (RFC 9864); here the key says it.
            warnings.simplefilter("ignore")
            jwt.decode(token, key, algorithms=[algorithm])
    except (JoseError, ValueError):
        return False
    return True


def _of_pem(data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        load_pem_public_key(data)
        for kind in (jwk.RSAKey, jwk.ECKey, jwk.OKPKey):
            try:
                return kind.import_key(data)
            except (JoseError, ValueError, TypeError):
                continue
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise InvalidInputError(
        "The file is no public key as PEM, and no JWK Set.", field=_FIELD
    )


def _keys_of_json(data: bytes) -> list[tuple[str, Any]]:
    """Return each key with its ``kid``; private members and others are passed over."""
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        known = json.loads(data)
        rows = known.get("keys", [known])
        found = []
        for row in rows:
            try:
                public = {name: row[name] for name in _PUBLIC if name in row}
                found.append((str(row.get("kid", "")), jwk.import_key(public)))
            except (JoseError, ValueError, TypeError, LookupError, AttributeError):
                continue
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInputError(
            "The file is no public key as PEM, and no JWK Set.", field=_FIELD
        ) from None
    return found


def _algorithm_of(key: Any) -> str:
    """Return the one algorithm of a key, or nothing where tokens can't have it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match key.raw_value:
        case rsa.RSAPublicKey():
            return "RS256"
        case ec.EllipticCurvePublicKey() as raw if isinstance(raw.curve, ec.SECP256R1):
            return "ES256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
        case _:
            return ""
