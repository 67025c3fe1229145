# SPDX-License-Identifier: MIT
"""Attack classes on bearer tokens: nothing is accepted, and nothing is told."""

import contextlib
import gzip
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from hsm_core.errors import AuthenticationError, InvalidInputError
from hsm_server.config.settings import TokenRules
from hsm_server.identity.token_keys import (
    Algorithm,
    TokenKey,
    TokenTrust,
    key_from_jwk,
    key_from_pem,
    key_from_secret,
)
from hsm_server.identity.token_verifier import TokenVerifier
from tests.server.attacks import CLASSES, NOT_OFFERED
from tests.server.support import API, SECRET, mint
from tests.server.token_kit import signer

OWN_TEST = {"CLM-10"}
SENDABLE = re.compile("[!-~]{1,8192}")
PRIVATE = {"d", "p", "q", "dp", "dq", "qi"}


def is_accepted(verifier: TokenVerifier, token: str) -> bool:
    """Return whether a token is taken, or refused in other words than all are."""
    try:
        verifier.verify(token)
    except AuthenticationError as error:
        return (str(error), error.facts) != ("Authentication failed.", {})
    return True


def test_every_published_class_is_considered(vectors: Callable[[str], Path]) -> None:
    """Each class is expanded here, or named with the reason why it can't be."""
    published = json.loads((vectors("jose") / "jwt_attack_classes.json").read_text())
    ids = {row["id"] for row in published["classes"]}

    assert ids == CLASSES.keys() | NOT_OFFERED.keys() | OWN_TEST


def test_ten_thousand_forgeries_are_refused() -> None:
    """
    Of all tokens of all classes none is accepted, and all errors are one.

    Keys of other algorithms count beside the secret.
    """
    public = [
        key_from_pem(signer(name).pem(), Algorithm(name), name)
        for name in ("RS256", "ES256", "EdDSA")
    ]
    keys = (key_from_secret(SECRET), *public)
    verifier = TokenVerifier(TokenTrust(keys, TokenRules()), time.time)
    tokens = [(name, token) for name, make in CLASSES.items() for token in make()]

    assert len(tokens) >= 10_000
    assert [] == [name for name, token in tokens if is_accepted(verifier, token)]
    assert is_accepted(verifier, mint())
    assert is_accepted(verifier, signer("ES256").token("ES256"))


async def test_forgeries_get_the_uniform_answer(api: API) -> None:
    """
    Over HTTP: 401, one body, counted, and recorded with the address.

    Above the budget of single records the trail holds their number.
    """
    bodies, sent = set(), 0
    for name, make in CLASSES.items():
        for token in [t for t in make() if SENDABLE.fullmatch(t)][:5]:
            answer = await api.send("GET", "/status", token=token)
            assert 401 == answer.status, name
            assert "Bearer" == answer.headers["WWW-Authenticate"]
            body = answer.json
            assert body.pop("request_id") == answer.headers["X-Request-Id"]
            bodies.add(json.dumps(body))
            sent += 1
    api.hsm._refusals.flush()  # noqa: SLF001 (what closing does)

    assert 1 == len(bodies)
    assert sent > 150
    metrics = (await api.send("GET", "//metrics", token="")).body.decode()
    assert f"ferrohsm_auth_jwt_failure_total {sent}.0\n" in metrics
    events = await api.events()
    refused = [e for e in events if e["kind"] == "Authenticate"]
    assert {"authentication_failed"} == {e["code"] for e in refused}
    assert {"127.0.0.1"} == {e["caller"]["source_address"] for e in refused}
    counted = sum(
        e["detail"]["count"] for e in events if e["kind"] == "system.refusals"
    )
    assert len(refused) < sent
    assert sent == len(refused) + counted


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer  {token}")],
        [("Authorization", "Bearer\t{token}")],
        [("Authorization", "Bearer {token} x")],
        [("Authorization", "Basic {token}")],
        [("Authorization", "{token}")],
        [("Authorization", "Token {token}")],
        [("Authorization", "Bearer {token}"), ("Authorization", "Bearer {token}")],
        [("Authorization", "Bearer {token}"), ("authorization", "Basic eA==")],
        [("Cookie", "access_token={token}")],
        [("X-Access-Token", "{token}")],
    ],
)
async def test_a_token_has_one_place(api: API, headers: list[tuple[str, str]]) -> None:
    """One Authorization header, one space, and nowhere else."""
    token = mint()
    sent = CIMultiDict((name, value.format(token=token)) for name, value in headers)
    async with api.client.get("/api/v1/status", headers=sent) as response:
        assert 401 == response.status


async def test_a_token_in_the_query_is_none(api: API) -> None:
    """A query ends in logs."""
    answer = await api.send("GET", "/status", token="", query=f"access_token={mint()}")

    assert 401 == answer.status


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_no_case(api: API, scheme: str) -> None:
    """RFC 9110, section 11.1: schemes are compared without case."""
    headers = {"Authorization": f"{scheme} {mint()}"}
    answer = await api.send("GET", "/status", token="", headers=headers)

    assert 200 == answer.status


WELL_FORMED = {("signature", 367), ("signature", 370)}
"""Said to be badly padded, and are not: the same text as a good token's elsewhere."""

MIXED = {("crypto", 47)}
"""A good token, refused by others for keys of two algorithms in the set."""

NO_TOKENS = {("signature", number) for number in (259, 372, 373)}
"""Good for others: without payload, or with a character that is none of base64url."""


def wycheproof(vectors: Callable[[str], Path], subject: str) -> list[dict[str, Any]]:
    """Return the groups of a file."""
    path = vectors("wycheproof") / f"json_web_{subject}_test.json.gz"
    groups: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))[
        "testGroups"
    ]
    return groups


def keys_of(group: dict[str, Any]) -> list[TokenKey]:
    """Return the keys of a group that can be used here, without private members."""
    given = group.get("public") or group.get("private") or {}
    found = []
    for row in given.get("keys", [given]):
        public = {name: v for name, v in row.items() if name not in PRIVATE}
        with contextlib.suppress(InvalidInputError):
            found.append(key_from_jwk(public, None))
    return found


def opens(key: TokenKey, token: object) -> bool:
    """Return whether a signature is good, whatever it signs."""
    if not isinstance(token, str):
        return False  # It is no compact serialisation, so no header holds it.
    with contextlib.suppress(AuthenticationError):
        TokenTrust((key,), TokenRules()).open(token, {"jwt", "at+jwt"})
        return True
    return False


def test_wycheproof_signatures(vectors: Callable[[str], Path]) -> None:
    """With its own key, each signature is good or bad as the file says."""
    tried = {"valid": 0, "invalid": 0}
    for subject in ("signature", "crypto"):
        for group in wycheproof(vectors, subject):
            keys = keys_of(group)
            for test in group["tests"] if keys else []:
                place = (subject, test["tcId"])
                expected = test["result"] == "valid" and place not in NO_TOKENS
                expected |= place in WELL_FORMED | MIXED
                assert expected == any(opens(k, test["jws"]) for k in keys), place
                tried[test["result"]] += 1

    assert tried["valid"] > 20
    assert tried["invalid"] > 300


def test_wycheproof_keys(vectors: Callable[[str], Path]) -> None:
    """A key that is short, of another use, off its curve or of another type is none."""
    unusable = {7, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26}
    for group in wycheproof(vectors, "key"):
        for test in group["tests"]:
            if test["tcId"] in unusable:
                assert [] == keys_of(group), test["tcId"]
            if test["result"] == "valid" and "HS256" in test["jws"]:
                assert keys_of(group)


def test_no_wycheproof_token_names_anybody(vectors: Callable[[str], Path]) -> None:
    """With all keys of the files at once, none of their tokens is a bearer's."""
    subjects = ("signature", "crypto", "key", "encryption")
    groups = [group for name in subjects for group in wycheproof(vectors, name)]
    keys = {key.name: key for group in groups for key in keys_of(group)}
    verifier = TokenVerifier(TokenTrust(tuple(keys.values()), TokenRules()), time.time)
    tokens = [
        str(test.get("jws") or test.get("jwe"))
        for group in groups
        for test in group["tests"]
    ]

    assert len(tokens) > 500
    assert len(keys) > 5
    assert [] == [token for token in tokens if is_accepted(verifier, token)]
