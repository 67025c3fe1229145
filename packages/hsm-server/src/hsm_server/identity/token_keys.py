# SPDX-License-Identifier: MIT
"""
Token verification keys: one algorithm per key, whatever a token's header says.

RSA keys of a faulty generator (ROCA, CVE-2017-15361) are rejected. Their primes are
``k * M + 65537^a mod M``, with M the product of small primes. So such a modulus is a
power of 65537 modulo each of these; a random one is so once in some hundred million
times.

Standard:
    RFC 7515, RFC 7517, RFC 7518 sections 3.2 to 3.4, RFC 8037; RFC 8725 section 3.1.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwk, jws
from joserfc.errors import JoseError

from hsm_core import wire
from hsm_core.errors import AuthenticationError, HSMError, InvalidInputError
from hsm_server.config.settings import TokenRules

_GENERATOR: Final = 65537
_PRIMES: Final = tuple(
    p for p in range(3, 168) if all(p % d for d in range(2, int(p**0.5) + 1))
)


@cache
def _powers(prime: int) -> frozenset[int]:
    """Return the powers of the generator modulo a prime."""
    found, power = set[int](), 1
    while power not in found:
        found.add(power)
        power = power * _GENERATOR % prime
    return frozenset(found)


def is_predictable(modulus: int) -> bool:
    """Return whether the faulty generator may have made a modulus."""
    return all(modulus % prime in _powers(prime) for prime in _PRIMES)


MIN_SECRET_BYTES: Final = 32
"""Shortest HS256 secret (RFC 7518, section 3.2)."""

_RSA_BITS: Final = range(2048, 4096 + 1)
_LEAST_EXPONENT: Final = 65537
_NAME: Final = b"FerroHSM token key 1"
"""Prefix of key names; no token starts with it, because it contains spaces."""

SIGNATURE_USES: Final = frozenset({"sig", "jwt-svid"})
"""``use`` of keys for signatures (RFC 7517; SPIFFE Trust Domain and Bundle)."""

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "priv"})
_TEXTS: Final = ("kty", "alg", "use", "crv")
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")


class Algorithm(StrEnum):
    """Signature algorithm of tokens."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


_TYPES: Final = {
    "oct": Algorithm.HS256,
    "RSA": Algorithm.RS256,
    "EC": Algorithm.ES256,
    "OKP": Algorithm.EDDSA,
}
"""Algorithm of each key type."""


_SHAPE: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\Z")
_HEADER_MEMBERS: Final = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})
"""Thumbprints are ignored: keys are chosen by ``kid`` alone."""

_MAX_KID_CHARACTERS: Final = 128


def _read_header(header: Any, types: Collection[str]) -> tuple[object, str | None]:
    """Return ``alg`` and ``kid``."""
    if not isinstance(header, dict) or not header.keys() <= _HEADER_MEMBERS:
        # Others would change the meaning: crit, b64, jwk, jku, x5c, x5u.
        raise AuthenticationError
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str):
        raise AuthenticationError
    if kind.lower().removeprefix("application/") not in types:
        raise AuthenticationError
    if "kid" not in header:
        return header.get("alg"), None
    kid = header["kid"]
    if not isinstance(kid, str) or not 1 <= len(kid) <= _MAX_KID_CHARACTERS:
        raise AuthenticationError
    return header.get("alg"), kid


class _Registry(jws.JWSRegistry):
    """Registry with the only algorithm of a key."""

    def get_alg(self, name: str) -> Any:
        """Return it without the warning that EdDSA leaves the curve open (RFC 9864)."""
        if self.allowed is None or name not in self.allowed:
            raise ValueError
        return self.algorithms[name]

    def check_header(self, header: Any) -> None:
        """Check nothing: the verifiers check the members that they use."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenKey:
    """
    Key that verifies tokens.

    Attributes:
        algorithm: Its only algorithm.
        kid: Key ID in a token's header; empty for none.
        name: Stable across restarts, unique per key; reveals nothing of a secret.
        signature_bytes: Length of its signatures.
        public: Members of its JWK; None for a secret.
        origin: Its source, if not the configuration file.
    """

    algorithm: Algorithm
    kid: str
    name: str
    signature_bytes: int = field(compare=False)
    public: Mapping[str, str] | None = field(compare=False)
    _key: Any = field(compare=False)
    origin: str = field(default="", compare=False)

    def open(self, token: str) -> bytes:
        """
        Verify the signature of a token, and return its payload.

        Raises:
            JoseError: The signature is not valid.
            ValueError: The token is malformed.
        """
        registry = _Registry(algorithms=[self.algorithm.value])
        signed = jws.deserialize_compact(token, self._key, registry=registry)
        return signed.payload


def key_from_secret(secret: bytes, kid: str = "") -> TokenKey:
    """
    Return the HS256 key of a secret.

    Raises:
        InvalidInputError: It is too short.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise InvalidInputError(
            f"A secret must be at least {MIN_SECRET_BYTES} bytes after decoding, "
            f"got {len(secret)}.",
            field="secret",
        )
    name = hmac.digest(secret, _NAME, "sha256").hex()
    key = jwk.OctKey.import_key(secret)
    return TokenKey(Algorithm.HS256, kid, name, 32, None, key)


def key_from_pem(text: str, algorithm: Algorithm, kid: str = "") -> TokenKey:
    """
    Return a public key in PEM (``PUBLIC KEY`` or ``RSA PUBLIC KEY``).

    Raises:
        InvalidInputError: It is not a public key, or of another algorithm.
    """
    if "PRIVATE KEY" in text:
        raise InvalidInputError(
            "This is a private key. Configure the public key only; the private "
            "key belongs to the issuer.",
            field="public_key_pem",
        )
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInputError(
            "Not a valid PEM public key.", field="public_key_pem"
        ) from None
    return _public_key(key, algorithm, kid)


def key_from_jwk(members: Mapping[str, Any], algorithm: Algorithm | None) -> TokenKey:
    """
    Return the key of a JWK: public, or a secret of type ``oct``.

    Args:
        members: The JWK, with its ``alg`` and ``kid``.

        algorithm: Algorithm if the JWK names none; None derives it from the type.

    Raises:
        InvalidInputError: It is malformed, private, or for another use.
    """
    if not has_types_of_jwk(members):
        raise InvalidInputError(
            f"{', '.join(_TEXTS)} must be strings, and key_ops must be a list.",
            field="jwk",
        )
    kid, kty = members.get("kid", ""), members.get("kty")
    if not isinstance(kid, str) or not isinstance(kty, str) or kty not in _TYPES:
        raise InvalidInputError(
            f"kty must be one of {', '.join(_TYPES)}, and kid must be a string.",
            field="jwk",
        )
    if members.keys() & _PRIVATE or (kty != "oct" and "k" in members):
        raise InvalidInputError(
            "This is a private key. Configure the public key only; the private "
            "key belongs to the issuer.",
            field="jwk",
        )
    chosen = _algorithm_of(members, kty, algorithm)
    try:
        if kty == "oct":
            return key_from_secret(_octets(members, "k"), kid)
        if kty == "RSA":
            # The library only warns about short keys.
            _check_bits(int.from_bytes(_octets(members, "n")).bit_length())
        found = jwk.JWKRegistry.import_key(
            {name: members[name] for name in _present(members)}
        )
        return _public_key(found.raw_value, chosen, kid)
    except InvalidInputError:
        raise
    except (JoseError, ValueError, TypeError, AttributeError, LookupError):
        raise InvalidInputError("Not a valid JWK for its kty.", field="jwk") from None
    except (UnsupportedAlgorithm, OverflowError):
        raise InvalidInputError(
            "The key has unsupported parameters.", field="jwk"
        ) from None


def has_types_of_jwk(members: Mapping[str, Any]) -> bool:
    """Return whether the members of a JWK about its use have valid types."""
    texts = (members.get(name) for name in _TEXTS)
    return all(text is None or isinstance(text, str) for text in texts) and isinstance(
        members.get("key_ops"), list | None
    )


def _present(members: Mapping[str, Any]) -> list[str]:
    return [name for name in _PUBLIC if name in members]


def _octets(members: Mapping[str, Any], name: str) -> bytes:
    return canonical(members[name])


def canonical(segment: str) -> bytes:
    """
    Decode canonical base64url (RFC 7515, section 2).

    Raises:
        ValueError: It is not.
    """
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise ValueError
    return data


def _algorithm_of(
    members: Mapping[str, Any], kty: str, given: Algorithm | None
) -> Algorithm:
    alg = members.get("alg", (given or _TYPES[kty]).value)
    if alg != _TYPES[kty].value:
        raise InvalidInputError(
            f"A key of type {kty} supports {_TYPES[kty]} only.",
            field="alg",
        )
    if members.get("use", "sig") not in SIGNATURE_USES:
        raise InvalidInputError("use must be sig.", field="use")
    operations = members.get("key_ops")
    if operations is not None and "verify" not in operations:
        raise InvalidInputError("key_ops must include verify.", field="key_ops")
    return _TYPES[kty]


def _public_key(key: object, algorithm: Algorithm, kid: str) -> TokenKey:
    found, size, own = _kind(key)
    if found is not algorithm:
        raise InvalidInputError(
            f"The key is for {found}, not for {algorithm}.", field="algorithm"
        )
    der = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    name = hashlib.sha256(_NAME + algorithm.encode() + der).hexdigest()
    known = own.as_dict(private=False)
    public = {member: str(known[member]) for member in _PUBLIC if member in known}
    return TokenKey(algorithm, kid, name, size, public, own)


def _kind(key: object) -> tuple[Algorithm, int, Any]:
    """Return algorithm, length of signatures and joserfc's key of a public key."""
    match key:
        case rsa.RSAPublicKey():
            _check_rsa(key)
            own: Any = jwk.RSAKey(key, key)
            return Algorithm.RS256, (key.key_size + 7) // 8, own
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
            return Algorithm.ES256, 64, jwk.ECKey(key, key)
        case ed25519.Ed25519PublicKey():
            return Algorithm.EDDSA, 64, jwk.OKPKey(key, key)
        case _:
            raise InvalidInputError(
                "A public key must be RSA, EC on P-256, or Ed25519.",
                field="public_key_pem",
            )


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    _check_bits(key.key_size)
    numbers = key.public_numbers()
    if is_predictable(numbers.n):
        raise InvalidInputError(
            "The RSA key is weak: a faulty generator made it (ROCA, CVE-2017-15361).",
            field="public_key_pem",
        )
    if numbers.e < _LEAST_EXPONENT:
        raise InvalidInputError(
            f"The exponent of an RSA key must be at least {_LEAST_EXPONENT}.",
            field="public_key_pem",
        )


def _check_bits(bits: int) -> None:
    if bits not in _RSA_BITS:
        raise InvalidInputError(
            f"An RSA key must have {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits, got {bits}.",
            field="public_key_pem",
        )


def public_key_set(keys: Iterable[TokenKey]) -> bytes:
    """
    Return a JWK Set of the public keys, in a stable order.

    Standard:
        RFC 7517, section 5.
    """
    rows = []
    for key in sorted(keys, key=lambda key: (key.kid, key.name)):
        if key.public is not None:
            named = {"kid": key.kid} if key.kid else {}
            use = {"use": "sig", "alg": key.algorithm.value}
            rows.append({**key.public, **named, **use})
    return json.dumps({"keys": rows}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class TokenTrust:
    """
    Immutable keys and rules, replaced as a whole.

    Attributes:
        keys: Keys with distinct kids.
        rules: Required claims of a token.
        issuer: Issuer whose tokens the policy maps to principals; empty for the
            server's own tokens, which name principal and roles.
    """

    keys: tuple[TokenKey, ...]
    rules: TokenRules
    issuer: str = ""

    def name_of(self, key: TokenKey) -> str:
        """Return the name of a key in the HSM: apart for each issuer."""
        if not self.issuer:
            return key.name
        named = f"{len(self.issuer)}:{self.issuer}{key.name}"
        return hashlib.sha256(b"FerroHSM token issuer 1" + named.encode()).hexdigest()

    def names(self) -> tuple[str, ...]:
        """Return the names of the keys in the HSM."""
        return tuple(map(self.name_of, self.keys))

    @classmethod
    def of_secret(cls, secret: bytes, rules: TokenRules) -> TokenTrust:
        """Return the trust in one HS256 secret without kid."""
        return cls((key_from_secret(secret),), rules)

    def of_names(self, names: Collection[str]) -> TokenTrust:
        """Return the trust in the keys with one of these names."""
        keys = tuple(key for key in self.keys if key.name in names)
        return TokenTrust(keys, self.rules, self.issuer)

    def without(self, names: Collection[str]) -> TokenTrust:
        """Return the trust without keys of these names in the HSM."""
        if not names:
            return self
        keys = tuple(key for key in self.keys if self.name_of(key) not in names)
        return TokenTrust(keys, self.rules, self.issuer)

    def open(self, token: str, types: Collection[str]) -> tuple[TokenKey, bytes]:
        """
        Return the key that has signed a token, and its payload.

        Args:
            token: JWS compact serialisation.

            types: Accepted types, in lower case without ``application/``.

        Raises:
            AuthenticationError: No trusted key has signed it, or it is malformed.
        """
        shape = _SHAPE.match(token)
        if shape is None:
            raise AuthenticationError
        try:
            # Older releases of joserfc accept signatures with unused bits set.
            header, payload, signature = map(canonical, shape.groups())
            algorithm, kid = _read_header(wire.scan_json(header), types)
            key = self._signer(token, payload, algorithm, kid, len(signature))
        except (HSMError, ValueError):
            raise AuthenticationError from None
        return key, payload

    def _signer(
        self,
        token: str,
        payload: bytes,
        algorithm: object,
        kid: str | None,
        signature_bytes: int,
    ) -> TokenKey:
        """
        Return the key that has signed a token.

        The algorithm in its header selects keys and never changes the algorithm of one.
        """
        fitting = [
            key
            for key in self.keys
            if key.algorithm.value == algorithm
            and key.signature_bytes == signature_bytes
        ]
        named = [key for key in fitting if kid is None or key.kid == kid]
        # Unknown kids take as long as known ones.
        for key in named or fitting[:1]:
            with contextlib.suppress(JoseError, ValueError):
                if key.open(token) == payload and key in named:
                    return key
        raise AuthenticationError

    def public_keys(self) -> bytes:
        """Return the JWK Set of the public keys."""
        return public_key_set(self.keys)


class TrustedNames:
    """
    Names of the current keys: `CredentialKeys` of the HSM.

    Args:
        trust: The keys, which may be replaced.

        also: Names of other credential sources, constant while the server runs.
    """

    def __init__(self, trust: TokenTrust, also: Sequence[str] = ()) -> None:
        self._also = tuple(also)
        self.use(trust)

    def use(self, *trusts: TokenTrust) -> None:
        """Replace the names by those of other keys."""
        found = (name for trust in trusts for name in trust.names())
        self._names = (*found, *self._also)

    def trusted(self) -> tuple[str, ...]:
        """Return the current names."""
        return self._names
