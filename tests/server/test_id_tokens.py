# SPDX-License-Identifier: MIT
"""Which ID tokens the vault takes, and whom they name."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any, Final

import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.model import Role
from hsm_server.config.settings import OIDCSettings
from hsm_server.identity.id_tokens import IDTokens, Person, provider_name
from hsm_server.identity.token_keys import Algorithm, key_from_pem, key_from_secret
from tests.core.test_sound_keys import ORDERS
from tests.server.support import SetClock, b64url
from tests.server.token_kit import signer

ISSUER: Final = "https://id.example.com/realms/hsm"
CLIENT: Final = "ferrohsm"
NONCE: Final = "n" * 43
ASYMMETRIC: Final = ("RS256", "ES256", "EdDSA")
KID: Final = "one"


def settings(**changes: Any) -> OIDCSettings:
    """Return a provider whose people are Operators if they are in a group."""
    given = {
        "issuer": ISSUER,
        "client_id": CLIENT,
        "redirect_uri": "https://hsm.example.com/ui/sign-in/oidc/answer",
        "jwks_file": Path("keys.json"),
        "roles_claim": "realm_access.roles",
        "roles": {"signers": Role.OPERATOR, "watchers": Role.AUDITOR},
    }
    return OIDCSettings(**{**given, **changes})


def verifier(clock: SetClock | None = None, **changes: Any) -> IDTokens:
    """Return what checks tokens of three keys."""
    keys = [
        key_from_pem(signer(name).pem(), Algorithm(name), KID) for name in ASYMMETRIC
    ]
    return IDTokens(settings(**changes), keys, clock or SetClock(time.time()))


def said(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, changed; None takes one away."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "sub": "olga",
        "aud": CLIENT,
        "iat": now,
        "exp": now + 300,
        "nonce": NONCE,
        "realm_access": {"roles": ["signers", "drivers"]},
    }
    return {name: v for name, v in {**good, **changes}.items() if v is not None}


def token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token, by default a good one."""
    return signer("ES256").token_of(
        header or {"alg": "ES256", "kid": KID}, said(**changes)
    )


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_good_token(algorithm: str) -> None:
    """
    A token of each algorithm names principal and roles, and the provider vouches.
    """
    made = signer(algorithm).token_of({"alg": algorithm, "kid": KID}, said())
    person = verifier().redeem(made, NONCE)

    assert ("olga", frozenset({Role.OPERATOR})) == (person.principal, person.roles)
    assert provider_name(settings()) == person.key_name


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({"aud": [CLIENT]}, {}, "olga"),
        ({"aud": [CLIENT, "other"], "azp": CLIENT}, {}, "olga"),
        ({"azp": CLIENT}, {}, "olga"),
        ({"email": "o@example.com"}, {"principal_claim": "email"}, "o@example.com"),
        ({"groups": "signers"}, {"roles_claim": "groups"}, "olga"),
        ({"https://x.y/r": ["signers"]}, {"roles_claim": "https://x.y/r"}, "olga"),
        ({"auth_time": 1, "at_hash": "x", "unknown": {}}, {}, "olga"),
    ],
    ids=["list", "several", "azp", "other claim", "one role", "dots", "more"],
)
def test_other_good_tokens(
    changes: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    """
    Providers say the same in different ways.
    """
    person = verifier(**options).redeem(token(**changes), NONCE)

    assert (
        Person(
            expected, frozenset({Role.OPERATOR}), person.credential_id, person.key_name
        )
        == person
    )


BAD: Final[dict[str, dict[str, Any]]] = {
    "issuer": {"iss": "https://id.example.com/realms/other"},
    "issuer with slash": {"iss": ISSUER + "/"},
    "no issuer": {"iss": None},
    "audience": {"aud": "another"},
    "no audience": {"aud": None},
    "audiences without azp": {"aud": [CLIENT, "other"]},
    "azp": {"azp": "another"},
    "nonce": {"nonce": "m" * 43},
    "no nonce": {"nonce": None},
    "nonce of another kind": {"nonce": 7},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "reserved subject": {"sub": "system"},
    "subject that hides something": {"sub": "ol\u200bga"},
    "subject of another kind": {"sub": ["olga"]},
    "no roles": {"realm_access": None},
    "roles elsewhere": {"realm_access": ["signers"]},
    "unknown roles": {"realm_access": {"roles": ["drivers"]}},
    "our own word for a role": {"realm_access": {"roles": ["Operator"]}},
    "no exp": {"exp": None},
    "exp as text": {"exp": "9999999999"},
    "exp as truth": {"exp": True},
    "exp without end": {"exp": 2**60},
    "no iat": {"iat": None},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_bad_claims(changes: dict[str, Any]) -> None:
    """
    A token that says something else is refused, like any other.
    """
    with pytest.raises(AuthenticationError):
        verifier().redeem(token(**changes), NONCE)


def test_times_may_be_fractions() -> None:
    """
    They are JSON numbers (RFC 7519, section 2).
    """
    now = int(time.time())
    made = token(iat=now - 0.5, nbf=now - 0.25, exp=now + 300.5)

    assert "olga" == verifier().redeem(made, NONCE).principal


@pytest.mark.parametrize(
    ("seconds", "is_good"),
    [(-61, False), (-59, True), (359, True), (361, False)],
    ids=["before iat", "within the leeway", "end of the leeway", "after exp"],
)
def test_times(seconds: int, *, is_good: bool) -> None:
    """
    A clock may be a minute off, and no more.
    """
    clock = SetClock(time.time())
    made, checks = token(), verifier(clock)
    clock.seconds = int(clock.seconds) + seconds
    if is_good:
        assert "olga" == checks.redeem(made, NONCE).principal
    else:
        with pytest.raises(AuthenticationError):
            checks.redeem(made, NONCE)


def test_old_token() -> None:
    """
    A token that was made long ago is refused, however long it is good for.
    """
    clock = SetClock(time.time())
    made, checks = token(exp=int(clock()) + 86400), verifier(clock)
    clock.seconds += 670

    with pytest.raises(AuthenticationError):
        checks.redeem(made, NONCE)


def test_not_before() -> None:
    """
    A token that is not good yet is refused.
    """
    with pytest.raises(AuthenticationError):
        verifier().redeem(token(nbf=int(time.time()) + 120), NONCE)


HEADERS: Final[dict[str, dict[str, Any]]] = {
    "none": {"alg": "none", "kid": KID},
    "another algorithm": {"alg": "RS256", "kid": KID},
    "no algorithm": {"kid": KID},
    "unknown kid": {"alg": "ES256", "kid": "two"},
    "kid of another kind": {"alg": "ES256", "kid": ["one"]},
    "crit": {"alg": "ES256", "kid": KID, "crit": ["exp"]},
    "jku": {"alg": "ES256", "kid": KID, "jku": "https://evil.example"},
    "jwk": {"alg": "ES256", "jwk": {}},
    "typ": {"alg": "ES256", "kid": KID, "typ": "at+jwt"},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_bad_headers(header: dict[str, Any]) -> None:
    """
    A header chooses among the keys of the provider, and does nothing else.
    """
    with pytest.raises(AuthenticationError):
        verifier().redeem(token(header), NONCE)


def test_secret_is_no_key() -> None:
    """
    Who knows the client's secret can't make tokens with it.
    """
    shared = signer("HS256")
    checks = IDTokens(settings(), [key_from_secret(shared.key)], SetClock(time.time()))

    with pytest.raises(AuthenticationError):
        checks.redeem(shared.token_of({"alg": "HS256"}, said()), NONCE)


@pytest.mark.parametrize("change", ["flipped", "longer", "in two", "huge", "accents"])
def test_broken_tokens(change: str) -> None:
    """
    What is not a whole signed token is refused.
    """
    made = token()
    head, body, signature = made.split(".")
    other = "B" if signature[0] == "A" else "A"
    broken = {
        "flipped": f"{head}.{body}.{other}{signature[1:]}",
        "longer": made + "A",
        "in two": f"{head}.{body}",
        "huge": token(filler="x" * 9000),
        "accents": made + "é",
    }[change]

    with pytest.raises(AuthenticationError):
        verifier().redeem(broken, NONCE)


def test_good_once() -> None:
    """
    A token is redeemed once, and another one of the same person counts.
    """
    checks, made = verifier(), token()
    checks.redeem(made, NONCE)

    with pytest.raises(AuthenticationError):
        checks.redeem(made, NONCE)
    assert "olga" == checks.redeem(token(jti="2"), NONCE).principal


def test_other_signature() -> None:
    """
    A token with another valid signature, which needs no key, is the same token.
    """
    checks, made = verifier(), token()
    signed, _, signature = made.rpartition(".")
    found = base64.urlsafe_b64decode(f"{signature}==")
    s = ORDERS["secp256r1"] - int.from_bytes(found[32:])
    other = b64url(found[:32] + s.to_bytes(32))
    checks.redeem(made, NONCE)

    with pytest.raises(AuthenticationError):
        checks.redeem(f"{signed}.{other}", NONCE)


@pytest.mark.parametrize("nonce", ["", "short", "n" * 44, "n" * 42 + "\n"])
def test_nonce_must_be_one(nonce: str) -> None:
    """
    No token is good for a request that named no proper nonce.
    """
    with pytest.raises(AuthenticationError):
        verifier().redeem(token(nonce=nonce), nonce)


def test_other_keys() -> None:
    """
    When the provider's keys are others, the former ones count no more.
    """
    checks = verifier()
    checks.use([key_from_pem(signer("EdDSA").pem(), Algorithm.EDDSA, KID)])

    with pytest.raises(AuthenticationError):
        checks.redeem(token(), NONCE)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where too many were redeemed, more are refused, until the first are too old.
    """
    monkeypatch.setattr("hsm_server.identity.id_tokens._MOST_REMEMBERED", 2)
    clock = SetClock(time.time())
    checks = verifier(clock)
    for number in "12":
        checks.redeem(token(jti=number), NONCE)
    with pytest.raises(AuthenticationError):
        checks.redeem(token(jti="3"), NONCE)
    clock.seconds += 400

    now = int(clock())
    later = token(iat=now, exp=now + 300)
    assert "olga" == checks.redeem(later, NONCE).principal
