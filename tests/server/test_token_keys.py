# SPDX-License-Identifier: MIT
"""Several keys at once: each verifies what it is for, and nothing else."""

import hmac
import json
import math
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa

from hsm_core.errors import AuthenticationError, InvalidInputError
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import (
    Algorithm,
    TokenKey,
    TokenTrust,
    is_predictable,
    key_from_jwk,
    key_from_pem,
    key_from_secret,
)
from hsm_server.identity.token_verifier import TokenVerifier
from tests.server.support import b64url, claims
from tests.server.token_kit import ALGORITHMS, Signer, signer


def key(one: Signer, kid: str = "") -> TokenKey:
    """Return the verifying key of a signer."""
    if isinstance(one.key, bytes):
        return key_from_secret(one.key, kid)
    return key_from_pem(one.pem(), Algorithm(one.algorithm), kid)


def verifier(*keys: TokenKey, **rules: Any) -> TokenVerifier:
    """Return a verifier with these keys."""
    return TokenVerifier(TokenTrust(keys, TokenRules(**rules)), time.time)


def every_key(suffix: str = "") -> list[TokenKey]:
    """Return a key of each algorithm, called as it is."""
    return [key(signer(name), f"{name}{suffix}") for name in ALGORITHMS]


def refuses(who: TokenVerifier, token: str) -> bool:
    """Return whether a token is refused, in the words that all are."""
    with pytest.raises(AuthenticationError) as caught:
        who.verify(token)
    return ("Authentication failed.", {}) == (str(caught.value), caught.value.facts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("named", [True, False], ids=["kid", "no-kid"])
def test_each_algorithm_verifies(algorithm: str, named: bool) -> None:
    """All keys at once, the token names its own or none."""
    keys = every_key()
    token = signer(algorithm).token(algorithm if named else None)
    found = verifier(*keys).verify(token)

    assert "alice" == found.principal
    own = next(key for key in keys if key.algorithm == algorithm)
    assert own.name == found.key_name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_without_kid_tries_all_keys_of_its_algorithm(algorithm: str) -> None:
    """That is how keys are replaced whose tokens have no kid."""
    first, second = signer(algorithm), signer(algorithm, 1)
    both = verifier(key(first, "a"), key(second, "b"))

    assert both.verify(first.token()).key_name == key(first).name
    assert both.verify(second.token()).key_name == key(second).name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_kid_names_one_key(algorithm: str) -> None:
    """Another key's name, an unknown one or none at all of a key is refused."""
    first, second = signer(algorithm), signer(algorithm, 1)
    both = verifier(key(first, "a"), key(second, "b"), key(signer("HS256", 9)))

    assert both.verify(first.token("a")).principal
    for kid in ("b", "c", "A", "", " a", "a\0", "a" * 129):
        assert refuses(both, first.token(kid))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_a_key_is_for_one_algorithm(algorithm: str, other: str) -> None:
    """A key ignores the algorithm in the header, with any kid."""
    if algorithm == other:
        return
    one = signer(algorithm)
    for kid in (None, algorithm, other):
        header = {"alg": other} | ({} if kid is None else {"kid": kid})
        assert refuses(verifier(*every_key()), one.token_of(header, claims()))
        assert refuses(verifier(key(one, "x")), one.token_of(header, claims()))


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "ES384", "ES256K", "none"])
def test_other_algorithms_are_none(alg: str) -> None:
    """Good signatures of other hashes or paddings are refused, with the same key."""
    rs, es = signer("RS256"), signer("ES256")
    header = b64url(json.dumps({"alg": alg}).encode())
    signed = f"{header}.{b64url(json.dumps(claims()).encode())}"
    data = signed.encode()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    signatures = [
        rs.key.sign(data, padding.PKCS1v15(), hashes.SHA384()),
        rs.key.sign(data, padding.PKCS1v15(), hashes.SHA512()),
        rs.key.sign(data, pss, hashes.SHA256()),
        es.sign(data),
        es.key.sign(data, ec.ECDSA(hashes.SHA256())),
        b"",
    ]
    everybody = verifier(*every_key())
    for signature in signatures:
        assert refuses(everybody, f"{signed}.{b64url(signature)}")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_the_public_key_set_can_be_read_again(algorithm: str) -> None:
    """What is published verifies, and is the same key."""
    one = key(signer(algorithm), "a")
    (row,) = json.loads(TokenTrust((one,), TokenRules()).public_keys())["keys"]

    again = key_from_jwk(row, None)
    assert one == again
    assert {"alg": algorithm, "use": "sig", "kid": "a"}.items() <= row.items()
    assert verifier(again).verify(signer(algorithm).token("a")).principal


def test_the_public_key_set_holds_nothing_else() -> None:
    """It has no secret and no private member, and a stable order."""
    keys = every_key()
    published = TokenTrust(tuple(keys), TokenRules()).public_keys()
    rows = json.loads(published)["keys"]

    assert ["ES256", "EdDSA", "RS256"] == [row["kid"] for row in rows]
    members = set().union(*rows)
    assert members == {"kty", "crv", "x", "y", "n", "e", "kid", "use", "alg"}
    turned = TokenTrust(tuple(reversed(keys)), TokenRules())
    assert published == turned.public_keys()


def jwk(algorithm: str, **changes: Any) -> dict[str, Any]:
    """Return the public JWK of a signer, changed; None leaves a member out."""
    (row,) = json.loads(
        TokenTrust((key(signer(algorithm)),), TokenRules()).public_keys()
    )["keys"]
    return {name: v for name, v in {**row, **changes}.items() if v is not None}


BAD_JWKS = {
    "private RSA": jwk("RS256", d="AQAB"),
    "private EC": jwk("ES256", d="AQAB"),
    "k beside RSA": jwk("RS256", k="AQAB"),
    "no kty": jwk("RS256", kty=None),
    "another kty": jwk("RS256", kty="EC"),
    "unknown kty": jwk("RS256", kty="AKP"),
    "kty is a list": jwk("RS256", kty=["RSA"]),
    "kty is an object": jwk("RS256", kty={}),
    "alg is a list": jwk("RS256", alg=["RS256"]),
    "key_ops is a number": jwk("RS256", key_ops=5),
    "PS256": jwk("RS256", alg="PS256"),
    "HS256": jwk("RS256", alg="HS256"),
    "for encryption": jwk("RS256", use="enc"),
    "to sign": jwk("RS256", key_ops=["sign"]),
    "no modulus": jwk("RS256", n=None),
    "modulus is a number": jwk("RS256", n=1),
    "short modulus": jwk("RS256", n=b64url(b"\xff" * 128)),
    "long modulus": jwk("RS256", n=b64url(b"\xff" * 1024)),
    "exponent 3": jwk("RS256", e="Aw"),
    "exponent 1": jwk("RS256", e="AQ"),
    "not on the curve": jwk("ES256", x=b64url(bytes(32))),
    "P-384": jwk("ES256", crv="P-384"),
    "X25519": jwk("EdDSA", crv="X25519"),
    "short x": jwk("EdDSA", x="AQAB"),
    "kid is a number": jwk("RS256", kid=1),
    **{
        f"private {name}": jwk("RS256", **{name: "AQAB"})
        for name in ("p", "q", "dp", "dq", "qi", "oth", "priv")
    },
    "short secret": {"kty": "oct", "k": b64url(b"x" * 31)},
    "unclear secret": {"kty": "oct", "k": b64url(b"x" * 32) + "="},
    "secret is a number": {"kty": "oct", "k": 1},
    "nothing": {},
}


FIELDS = {
    *("alg", "algorithm", "jwk", "key_ops", "kid", "kty", "public_key_pem", "secret"),
    "use",
}


@pytest.mark.parametrize("name", BAD_JWKS)
def test_a_bad_jwk_is_refused(name: str) -> None:
    """The error is documented and contains nothing of the key."""
    with pytest.raises(InvalidInputError) as caught:
        key_from_jwk(BAD_JWKS[name], None)
    assert "AQAB" not in str(caught.value)
    assert caught.value.facts["field"] in FIELDS


def test_keys_of_other_kinds_are_refused() -> None:
    """A curve, a size or an exponent that is not offered."""
    others = {
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "Ed448": ed448.Ed448PrivateKey.generate(),
        "RSA-1024": rsa.generate_private_key(65537, 1024),  # noqa: S505 (it is refused)
        "e=3": rsa.generate_private_key(3, 2048),
    }
    for other in others.values():
        for algorithm in ("RS256", "ES256", "EdDSA"):
            with pytest.raises(InvalidInputError):
                key_from_pem(Signer("", other).pem(), Algorithm(algorithm))
    with pytest.raises(InvalidInputError, match="private key"):
        key_from_pem(signer("RS256").private_pem().decode(), Algorithm.RS256)
    with pytest.raises(InvalidInputError, match="valid PEM public key"):
        key_from_pem("-----BEGIN PUBLIC KEY-----\n...\n", Algorithm.RS256)


def test_a_modulus_that_can_be_guessed() -> None:
    """Keys of the chips of 2017 (ROCA, CVE-2017-15361) are refused, and no others."""
    primes = [p for p in range(2, 168) if all(p % d for d in range(2, p))]
    product = math.prod(primes)
    weak = [
        (2**2047 // product + n) * product + pow(65537, n, product)
        for n in (1, 2, 12345)
    ]

    for modulus in weak:
        assert is_predictable(modulus)
        assert not is_predictable(modulus + 2)
        assert 2048 == modulus.bit_length()
        row = jwk("RS256", n=b64url(modulus.to_bytes(256, "big")))
        with pytest.raises(InvalidInputError, match="faulty generator"):
            key_from_jwk(row, None)
    numbers = signer("RS256").key
    assert isinstance(numbers, rsa.RSAPrivateKey)
    assert not is_predictable(numbers.public_key().public_numbers().n)


@pytest.mark.parametrize(
    ("bits", "good"), [(2047, False), (2048, True), (4096, True), (4097, False)]
)
def test_how_long_a_modulus_may_be(bits: int, good: bool) -> None:
    """From 2048 to 4096 bits."""
    data = (2**bits - 1).to_bytes((bits + 7) // 8, "big")
    row = jwk("RS256", n=b64url(data))

    if good:
        assert bits // 8 == key_from_jwk(row, None).signature_bytes
    else:
        with pytest.raises(InvalidInputError, match="bits"):
            key_from_jwk(row, None)


def test_the_name_of_a_key_stays() -> None:
    """Key names are stable across releases, because approvals store them."""
    secret = bytes(32)
    name = hmac.digest(secret, b"FerroHSM token key 1", "sha256").hex()

    assert name == key_from_secret(secret).name == key_from_secret(secret, "k").name
