# SPDX-License-Identifier: MIT
"""Bearer tokens: what is accepted, and that nothing else is."""

import hashlib
from typing import Any

import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.model import Role
from hsm_server.config.settings import MAX_TOKEN_BYTES, TokenRules
from hsm_server.identity import token_verifier as module
from hsm_server.identity.token_keys import (
    TokenKey,
    TokenTrust,
    TrustedNames,
    key_from_secret,
)
from hsm_server.identity.token_verifier import LRUCache, TokenVerifier
from tests.server.support import SECRET, SetClock, b64url, mint

NOW = 1_800_000_000
GOOD = {"sub": "alice", "roles": ["Operator"], "iat": NOW, "exp": NOW + 300}
FINGERPRINT = hashlib.sha256(b"certificate").hexdigest()


@pytest.fixture
def clock() -> SetClock:
    """Give a clock that stands still."""
    return SetClock(NOW)


@pytest.fixture
def verifier(clock: SetClock) -> TokenVerifier:
    """Give a verifier with the default rules."""
    return TokenVerifier(TokenTrust.of_secret(SECRET, TokenRules()), clock)


def with_rules(**rules: Any) -> TokenVerifier:
    """Return a verifier with these rules."""
    return TokenVerifier(TokenTrust.of_secret(SECRET, TokenRules(**rules)), lambda: NOW)


def test_a_good_token_names_its_bearer(verifier: TokenVerifier) -> None:
    """Subject, roles and id come from the claims."""
    identity = verifier.verify(mint({**GOOD, "jti": "t-1", "extra": [1]}))

    assert "alice" == identity.principal
    assert frozenset({Role.OPERATOR}) == identity.roles
    assert "t-1" == identity.credential_id


def test_a_token_without_id_is_named_by_its_hash(verifier: TokenVerifier) -> None:
    """The trail can tell tokens apart without holding them."""
    token = mint(GOOD)
    digest = hashlib.sha256(token.encode()).hexdigest()

    assert f"sha256:{digest[:16]}" == verifier.verify(token).credential_id


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["operator"], {Role.OPERATOR}),
        (["admin"], {Role.ADMINISTRATOR}),
        (["Auditor", "service"], {Role.AUDITOR, Role.SERVICE}),
        (["Operator", "root", "offline_access"], {Role.OPERATOR}),
        (["uma_authorization", "OPERATOR", "auditor"], {Role.AUDITOR}),
    ],
)
def test_roles_are_read_in_two_spellings(
    verifier: TokenVerifier, names: list[str], roles: set[Role]
) -> None:
    """As in the table, or all in lower case; what is none of them grants nothing."""
    assert frozenset(roles) == verifier.verify(mint({**GOOD, "roles": names})).roles


@pytest.mark.parametrize(
    ("header", "tried"),
    [
        ({"alg": "HS256", "kid": "one"}, 1),
        ({"alg": "HS256", "kid": "other"}, 1),
        ({"alg": "HS256"}, 2),
        ({"alg": "ES256", "kid": "one"}, 0),
    ],
    ids=["known", "unknown", "none", "another algorithm"],
)
def test_an_unknown_kid_takes_as_long_as_a_known_one(
    monkeypatch: pytest.MonkeyPatch, header: dict[str, str], tried: int
) -> None:
    """As many signatures are checked, and a good one by another key counts no more."""
    keys = tuple(key_from_secret(SECRET + n, n.decode()) for n in (b"one", b"two"))
    verifier = TokenVerifier(TokenTrust(keys, TokenRules()), lambda: NOW)
    opened, real = [], TokenKey.open

    def count(self: TokenKey, token: str) -> bytes:
        opened.append(self.kid)
        return real(self, token)

    monkeypatch.setattr(TokenKey, "open", count)
    forged = mint(GOOD, header, secret=b"x" * 32)
    with pytest.raises(AuthenticationError):
        verifier.verify(forged)
    assert tried == len(opened)
    unknown = mint(GOOD, {"alg": "HS256", "kid": "other"}, secret=SECRET + b"one")
    with pytest.raises(AuthenticationError):
        verifier.verify(unknown)


@pytest.mark.parametrize(
    "header",
    [
        *({"typ": typ} for typ in ("JWT", "jwt", "at+jwt", "application/at+JWT")),
        *({"x5t": "AAAA"}, {"typ": "at+jwt", "x5t#S256": "AAAA"}),
        *({"x5t": 7}, {"x5t#S256": ["AAAA"]}),
    ],
)
def test_headers_of_common_issuers_are_taken(
    verifier: TokenVerifier, header: dict[str, Any]
) -> None:
    """A type of tokens, and thumbprints, which choose no key."""
    assert "alice" == verifier.verify(mint(GOOD, {"alg": "HS256", **header})).principal


def test_times_may_be_fractions(verifier: TokenVerifier, clock: SetClock) -> None:
    """They are JSON numbers (RFC 7519, section 2), and count to the fraction."""
    times = {"iat": NOW - 0.5, "nbf": NOW - 0.25, "exp": NOW + 300.5}
    token = mint({**GOOD, **times})
    identity = verifier.verify(token)
    clock.seconds = NOW + 300.5 + 60

    assert (NOW - 0.5, NOW + 360.5) == (identity.issued_at, identity.expires_at)
    with pytest.raises(AuthenticationError):
        verifier.verify(token)


@pytest.mark.parametrize("token_id", ["", "x" * 129, 7, "a\nb"])
def test_an_id_has_its_form(verifier: TokenVerifier, token_id: Any) -> None:
    """It stands in the trail."""
    with pytest.raises(AuthenticationError):
        verifier.verify(mint({**GOOD, "jti": token_id}))


@pytest.mark.parametrize(
    ("seconds", "good"),
    [(299, True), (359, True), (359.9, True), (360, False), (361, False)],
)
def test_a_token_ends_with_the_leeway(
    verifier: TokenVerifier, clock: SetClock, seconds: float, good: bool
) -> None:
    """From exp plus leeway on, to the second, it is refused."""
    token = mint(GOOD)
    clock.seconds = NOW + seconds

    if good:
        assert "alice" == verifier.verify(token).principal
    else:
        with pytest.raises(AuthenticationError):
            verifier.verify(token)


def test_a_token_begins_with_the_leeway(verifier: TokenVerifier) -> None:
    """A start within the leeway is accepted."""
    assert (
        "alice"
        == verifier.verify(mint({**GOOD, "nbf": NOW + 60, "iat": NOW + 60})).principal
    )


EDGES: dict[str, dict[str, Any]] = {
    "long subject": {"sub": "a" * 128},
    "short subject": {"sub": "a"},
    "accented subject": {"sub": "\u00e9va"},
    "long id": {"jti": "j" * 128},
    "short id": {"jti": "j"},
    "whole day": {"exp": NOW + 86400},
    "one second": {"iat": NOW - 1, "exp": NOW},
    "nearly ended": {"iat": NOW - 100, "exp": NOW - 59},
    "from the first": {"nbf": 0},
    "not before the edge": {"nbf": NOW + 60},
    "without times": {"iat": None, "exp": NOW + 86460},
    "all roles": {"roles": ["admin", "operator", "service", "auditor"]},
    "no binding": {"extra": {"cnf": {}}},
}


@pytest.mark.parametrize("claims", EDGES.values(), ids=EDGES.keys())
def test_what_is_just_right_is_accepted(
    verifier: TokenVerifier, claims: dict[str, Any]
) -> None:
    """Every limit is what is still good."""
    body = {k: v for k, v in {**GOOD, **claims}.items() if v is not None}

    assert body["sub"] == verifier.verify(mint(body)).principal


@pytest.mark.parametrize(("characters", "good"), [(128, True), (129, False)])
def test_a_kid_has_its_length(characters: int, good: bool) -> None:
    """Up to 128 characters name a key."""
    kid = "k" * characters
    trust = TokenTrust((key_from_secret(SECRET, kid),), TokenRules())
    token = mint(GOOD, {"alg": "HS256", "kid": kid})

    if good:
        assert "alice" == TokenVerifier(trust, lambda: NOW).verify(token).principal
    else:
        with pytest.raises(AuthenticationError):
            TokenVerifier(trust, lambda: NOW).verify(token)


def test_a_token_has_its_length(verifier: TokenVerifier) -> None:
    """The longest that the server reads is verified, and no longer one."""
    usual = MAX_TOKEN_BYTES * 3 // 4 - 200
    tokens = [mint({**GOOD, "x": "x" * (usual + n)}) for n in range(200)]
    short = [token for token in tokens if len(token) <= MAX_TOKEN_BYTES]

    assert MAX_TOKEN_BYTES - 1 <= len(short[-1])
    assert "alice" == verifier.verify(short[-1]).principal
    with pytest.raises(AuthenticationError):
        verifier.verify(tokens[len(short)])


def test_all_that_a_token_says(verifier: TokenVerifier) -> None:
    """Its times with the leeway, its id, its key and the certificate it is bound to."""
    bound = {"cnf": {"x5t#S256": b64url(bytes.fromhex(FINGERPRINT))}}
    whole = verifier.verify(
        mint({**GOOD, "jti": "t-1", "nbf": NOW + 1, **bound}),
        certificate_sha256=FINGERPRINT,
    )
    bare = verifier.verify(mint({k: v for k, v in GOOD.items() if k != "iat"}))

    assert (NOW + 360, NOW - 59) == (whole.expires_at, whole.not_before)
    assert (NOW, "t-1", "t-1") == (
        whole.issued_at,
        whole.token_id,
        whole.credential_id,
    )
    assert frozenset({FINGERPRINT}) == whole.certificate_sha256
    assert (-1, -1, "", frozenset()) == (
        bare.not_before,
        bare.issued_at,
        bare.token_id,
        bare.certificate_sha256,
    )
    assert key_from_secret(SECRET).name == whole.key_name == bare.key_name


def test_a_token_that_begins_later(verifier: TokenVerifier, clock: SetClock) -> None:
    """It is refused until its start less the leeway, also when it is known."""
    token = mint({**GOOD, "nbf": NOW + 50})
    verifier.verify(token)
    clock.seconds = NOW - 10.1

    with pytest.raises(AuthenticationError):
        verifier.verify(token)
    clock.seconds = NOW - 10
    assert "alice" == verifier.verify(token).principal


def test_least_recently_used_is_removed() -> None:
    """The least recently used result is removed first."""
    memory = LRUCache[str](2)
    for key, found in ((b"a", "1"), (b"b", "2")):
        memory.put(key, found)

    assert "1" == memory.get(b"a")
    memory.put(b"c", "3")
    assert ("1", None, "3") == (memory.get(b"a"), memory.get(b"b"), memory.get(b"c"))
    memory.drop(b"a")
    memory.drop(b"b")
    assert (None, 1) == (memory.get(b"a"), len(memory))


def test_trusted_names() -> None:
    """Names of removed keys are dropped; names of other sources stay."""
    one, two = (TokenTrust.of_secret(SECRET + n, TokenRules()) for n in (b"1", b"2"))
    names = TrustedNames(one, also=["other"])
    before = names.trusted()
    names.use(two)

    assert (one.keys[0].name, "other") == before
    assert (two.keys[0].name, "other") == names.trusted()


def test_a_long_lived_token_without_start_is_refused(verifier: TokenVerifier) -> None:
    """Without iat the life is counted from now."""
    body = {k: v for k, v in GOOD.items() if k != "iat"}

    assert "alice" == verifier.verify(mint({**body, "exp": NOW + 86400})).principal
    with pytest.raises(AuthenticationError):
        verifier.verify(mint({**body, "exp": NOW + 86461}))


@pytest.mark.parametrize("issuer", [None, "", "https://issuer.example", "ISSUER"])
def test_a_configured_issuer_is_required(issuer: str | None) -> None:
    """A missing issuer is rejected too."""
    verifier = with_rules(issuer="issuer")
    body = {**GOOD, "iss": issuer} if issuer is not None else GOOD

    assert "alice" == verifier.verify(mint({**GOOD, "iss": "issuer"})).principal
    with pytest.raises(AuthenticationError):
        verifier.verify(mint(body))


@pytest.mark.parametrize("audience", [None, "", "hsm", "hsm-2x", ["hsm"], []])
def test_a_configured_audience_is_required(audience: Any) -> None:
    """One of the audiences must be ours, exactly."""
    verifier = with_rules(audience="hsm-2")
    body = {**GOOD, "aud": audience} if audience is not None else GOOD

    assert "alice" == verifier.verify(mint({**GOOD, "aud": "hsm-2"})).principal
    assert (
        "alice" == verifier.verify(mint({**GOOD, "aud": ["hsm-1", "hsm-2"]})).principal
    )
    with pytest.raises(AuthenticationError):
        verifier.verify(mint(body))


@pytest.mark.parametrize(
    "binding",
    [
        {"cnf": {"x5t#S256": b64url(bytes.fromhex(FINGERPRINT))}},
        {"fp": FINGERPRINT},
        {"cnf": {"x5t#S256": b64url(bytes.fromhex(FINGERPRINT))}, "fp": FINGERPRINT},
    ],
)
def test_a_bound_token_needs_its_certificate(
    verifier: TokenVerifier, binding: dict[str, Any]
) -> None:
    """A stolen token is worth nothing without the certificate's key."""
    token = mint({**GOOD, **binding})

    assert "alice" == verifier.verify(token, certificate_sha256=FINGERPRINT).principal
    for other in ("", "00" * 32):
        with pytest.raises(AuthenticationError):
            verifier.verify(token, certificate_sha256=other)


def test_two_bindings_must_both_hold(verifier: TokenVerifier) -> None:
    """A second fingerprint does not widen the first."""
    binding = {"cnf": {"x5t#S256": b64url(bytes.fromhex(FINGERPRINT))}, "fp": "00" * 32}

    with pytest.raises(AuthenticationError):
        verifier.verify(mint({**GOOD, **binding}), certificate_sha256=FINGERPRINT)


def test_the_memory_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, and still accepted when it comes again."""
    monkeypatch.setattr(module, "_MAX_REMEMBERED", 4)
    verifier = with_rules()
    many = [mint({**GOOD, "jti": f"t{i}"}) for i in range(9)]
    for token in many:
        verifier.verify(token)

    assert 4 == len(verifier._memory)  # noqa: SLF001 (its size is the point)
    assert "t0" == verifier.verify(many[0]).credential_id


def test_a_token_that_has_ended_is_forgotten(
    verifier: TokenVerifier, clock: SetClock
) -> None:
    """It needs no room any more."""
    token = mint(GOOD)
    verifier.verify(token)
    clock.seconds += 1000

    with pytest.raises(AuthenticationError):
        verifier.verify(token)
    assert 0 == len(verifier._memory)  # noqa: SLF001 (its size is the point)


def test_the_name_of_a_secret() -> None:
    """It is the same each time, another one for another secret, and shows nothing."""
    secrets = (SECRET, SECRET, b"x" * 32)
    trusts = [TokenTrust.of_secret(secret, TokenRules()) for secret in secrets]
    first, again, other = map(TrustedNames, trusts)

    assert first.trusted() == again.trusted() != other.trusted()
    assert SECRET.hex() not in repr(trusts[0])
    other.use(trusts[0])
    assert first.trusted() == other.trusted()
