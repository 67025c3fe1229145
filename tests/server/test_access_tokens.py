# SPDX-License-Identifier: MIT
"""Access tokens of OpenID Connect providers and workloads: accepted, and attacked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_core import operations as ops
from hsm_core.errors import (
    ApprovalRequiredError,
    AuthenticationError,
    ConfigurationError,
    HSMError,
)
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Caller
from hsm_core.policies import parse_policy
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import OIDCSettings, TokenRules
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.id_tokens import IDTokens
from hsm_server.identity.issuer_config import load_token_issuers
from hsm_server.identity.token_config import public_keys_of_set
from hsm_server.identity.token_keys import TokenTrust, TrustedNames, public_key_set
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.core.test_withdrawn_approvers import granted, put_in_force
from tests.server.attacks import CLASSES
from tests.server.issuer_kit import (
    AUDIENCE,
    ENTRA,
    GITHUB,
    ISSUED,
    KEYCLOAK,
    SPIFFE,
    Issued,
    mapping_policy,
)
from tests.server.support import SECRET, SetClock, b64url, claims, mint, sign_parts
from tests.server.token_kit import Signer, signer

NAMES: Final = tuple(ISSUED)
SENDABLE: Final = re.compile("[!-~]{1,8192}")


def guard(
    hsm: OpenHSM, *names: str, clock: FlooredClock | None = None
) -> tuple[Gatekeeper, TrustedNames]:
    """Return what verifies tokens of these issuers, and of the server's secret."""
    own = TokenTrust.of_secret(SECRET, TokenRules())
    names_of_keys = TrustedNames(own)
    issuers = [ISSUED[name].trust() for name in names]
    gatekeeper = Gatekeeper(
        open_async(hsm),
        own,
        lambda: None,
        clock or FlooredClock(),
        names_of_keys,
        issuers=issuers,
    )
    return gatekeeper, names_of_keys


@pytest.fixture(scope="module")
def hsm() -> Iterator[OpenHSM]:
    """Give an HSM whose policy maps the tokens of all issuers."""
    with memory_hsm(policy=mapping_policy(*NAMES)) as opened:
        yield opened


@pytest.fixture(scope="module")
def gatekeeper(hsm: OpenHSM) -> Gatekeeper:
    """Return what verifies tokens of all issuers."""
    return guard(hsm, *NAMES)[0]


def named(gatekeeper: Gatekeeper, token: str) -> Caller | None:
    """Return the caller of a token; None if it is refused as all are."""
    refused: tuple[str, dict[str, object]] = ("Authentication failed.", {})
    try:
        return gatekeeper.authenticate(Visitor(credential=token)).caller
    except AuthenticationError as error:
        if (str(error), error.facts) != refused:
            raise
        return None


@pytest.mark.parametrize("name", NAMES)
def test_tokens_as_issuers_make_them(gatekeeper: Gatekeeper, name: str) -> None:
    """Issuer, audience and claims give principal and roles."""
    made = ISSUED[name]
    found = named(gatekeeper, made.token())

    assert found is not None
    principal, role = made.expected
    assert (principal, {role}) == (found.principal, {r.value for r in found.roles})
    assert found.credential_key in guard_names(name)
    assert 1 == len(found.credential_rules)
    said = made.claims.get("jti")
    assert found.credential_id == said or found.credential_id.startswith("sha256:")


def guard_names(name: str) -> tuple[str, ...]:
    """Return the names of an issuer's keys in the HSM."""
    return ISSUED[name].trust().names()


def test_own_tokens_stay_good(gatekeeper: Gatekeeper) -> None:
    """Other issuers change nothing about tokens of the server's own keys."""
    found = named(gatekeeper, mint())

    assert found is not None
    assert ("alice", ()) == (found.principal, found.credential_rules)


GOOD: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "type in full": ("github", {"typ": "application/at+jwt"}, {}),
    "no type": ("github", {"typ": "JWT"}, {}),
    "one audience of several": ("github", {}, {"aud": ["x", AUDIENCE]}),
    "without iat": ("github", {}, {"iat": None}),
    "fractions": ("github", {}, {"exp": lambda: time.time() + 300.5}),
    "without jti": ("github", {}, {"jti": None}),
    "fp of another meaning": ("github", {}, {"fp": 7}),
    "roles of another meaning": ("github", {}, {"roles": {"Administrator": True}}),
    "trust domain with an issuer": ("spiffe", {}, {"iss": "https://spire.example.org"}),
    "JOSE": ("spiffe", {"typ": "JOSE"}, {}),
}


@pytest.mark.parametrize("name", GOOD)
def test_other_good_tokens(gatekeeper: Gatekeeper, name: str) -> None:
    """Issuers say the same in different ways."""
    issuer, header, changes = GOOD[name]
    claims = {key: v() if callable(v) else v for key, v in changes.items()}

    assert named(gatekeeper, ISSUED[issuer].token(header, **claims)) is not None


ODD: Final[tuple[Any, ...]] = (
    *(None, True, 1, 1.5, -1, 2**70),
    *("", "x", [], [[]], [None], {}, {"a": 1}),
)
OTHER_ISSUERS: Final = (
    None,
    *ODD,
    GITHUB + "/",
    GITHUB.upper(),
    GITHUB + "\u200b",
    f" {GITHUB}",
    [GITHUB],
    {"iss": GITHUB},
    "https://evil.example",
    KEYCLOAK,
    SPIFFE,
)
OTHER_AUDIENCES: Final = (
    None,
    *ODD,
    AUDIENCE + "/",
    AUDIENCE.upper(),
    f"{AUDIENCE} x",
    [AUDIENCE, 7],
    [[AUDIENCE]],
    {AUDIENCE: True},
    ["x", "y"],
    "sts.amazonaws.com",
)


def wrong_parties() -> Iterator[str]:
    """Yield tokens of other issuers and for other audiences, signed by good keys."""
    for issuer in OTHER_ISSUERS:
        yield ISSUED["github"].token(iss=issuer)
    for audience in OTHER_AUDIENCES:
        for name in NAMES:
            yield ISSUED[name].token(aud=audience)


def keys_of_others() -> Iterator[str]:
    """Yield tokens that one issuer signs for each of the others, or a stranger."""
    strangers = (signer("RS256", 90), signer("ES256", 91), signer("EdDSA", 92))
    for made in ISSUED.values():
        others = [other.signer for other in ISSUED.values() if other is not made]
        for other in (*others, *strangers):
            for kid in ("kid-1", f"kid-{made.number}", None):
                header = {"alg": other.algorithm, "typ": "JWT"}
                named_key = header | ({"kid": kid} if kid else {})
                yield other.token_of(named_key, made.said())


def own_key_for_an_issuer() -> Iterator[str]:
    """Yield tokens of the server's own secret that claim to be of an issuer."""
    for made in ISSUED.values():
        roles = {"roles": ["Administrator"]}
        yield mint(made.said())
        yield mint({**made.said(), **roles})
        yield mint({**claims(), "iss": made.issuer})
        yield mint({**claims(), "sub": "spiffe://example.org/x"})


def issuer_for_an_own_token() -> Iterator[str]:
    """Yield tokens of issuers that claim to be the server's own."""
    for made in ISSUED.values():
        for header in ({"alg": made.algorithm}, {"alg": "HS256"}):
            yield made.signer.token_of(header, claims())
            yield made.signer.token_of(header, {**claims(), "iss": "server"})


def confused_algorithms() -> Iterator[str]:
    """Yield tokens whose header names another algorithm than that of the key."""
    for made in ISSUED.values():
        for key in public_forms(made.signer):
            for kid in (f"kid-{made.number}", None):
                header = {"alg": "HS256", "typ": "JWT"} | ({"kid": kid} if kid else {})
                yield mint(made.said(), header, secret=key)
        for alg in ("none", "None", "HS256", "HS384", "RS384", "PS256", "ES256", "", 7):
            if alg != made.algorithm:
                yield made.token({"alg": alg})
        body = b64url(json.dumps(made.said()).encode())
        for alg in ("none", "NONE", "nOnE"):
            head = b64url(json.dumps({"alg": alg, "typ": "JWT"}).encode())
            yield f"{head}.{body}."
            yield f"{head}.{body}.AAAA"


def public_forms(key: Signer) -> list[bytes]:
    """Return texts of a public key that somebody may take for a secret."""
    pem = key.pem().encode()
    public = load_pem_public_key(pem)
    assert public is not None
    made = ISSUED["github"].trust()
    return [pem, pem.rstrip(), public_key_set(made.keys)]


def smuggled_headers() -> Iterator[str]:
    """Yield tokens whose header brings a key, or is of another kind of token."""
    stranger = signer("ES256", 91)
    own_key = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}
    brought: tuple[dict[str, Any], ...] = (
        {"jwk": own_key},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"enc": "A256GCM"},
    )
    for made in ISSUED.values():
        for members in brought:
            yield made.token(members)
            header = {"alg": "ES256", "typ": "JWT", **members}
            yield stranger.token_of(header, made.said())
        kinds = (
            "id_token",
            "dpop+jwt",
            "logout+jwt",
            "secevent+jwt",
            "at jwt",
            7,
            None,
        )
        for kind in kinds:
            yield made.token({"typ": kind})
        for kid in ("other", "", 7, None, ["kid-1"], "kid-1\u0000", "../keys"):
            if kid != f"kid-{made.number}":
                yield made.token({"kid": kid})


LATER: Final = 2**40
BAD_VALUES: Final[dict[str, tuple[object, ...]]] = {
    "sub": (None, True, 1, [], {}, ["a"]),
    "exp": (None, True, "9999999999", -1, 1, 2**70, LATER, [], {}),
    "iat": (None, True, "1", -1, 1, 2**70, LATER, []),
    "nbf": (None, True, "1", -1, 2**70, LATER, []),
    "jti": (None, True, 7, "", "a\nb", "x" * 129, ["x"]),
    "cnf": (
        None,
        "x",
        [],
        {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
        {"jwk": {}},
        {"x5t#S256": 7},
        {"x5t#S256": "x"},
        {"x5t#S256": b64url(b"\7" * 32)},
    ),
}


def odd_claims() -> Iterator[str]:
    """Yield tokens with claims of odd types, which good keys have signed."""
    for made in ISSUED.values():
        for claim, values in BAD_VALUES.items():
            for value in values:
                yield signed_with(made, claim, value)
    for claim in ("repository", "environment", "repository_owner_id"):
        for value in (*ODD, 65, 65.0, {"65": 1}, "example/app2", "EXAMPLE/APP"):
            yield signed_with(ISSUED["github"], claim, value)
    for value in (*ODD, "true", [1], {"true": True}):
        if value is not True:
            yield signed_with(ISSUED["google"], "email_verified", value)
    for value in (*ODD, "build2", {"namespace": ["x"]}, {"namespace": {"build": 1}}):
        yield signed_with(ISSUED["kubernetes"], "kubernetes.io", value)


def signed_with(made: Issued, claim: str, value: object) -> str:
    """Return a token with a claim of any value, null included."""
    header = {"alg": made.algorithm, "kid": f"kid-{made.number}", **made.header}
    return made.signer.token_of(header, {**made.said(), claim: value})


def other_subjects() -> Iterator[str]:
    """Yield tokens of a trust domain for what is not in it, or is no SPIFFE ID."""
    for subject in (
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/ns/build/sa/",
        "spiffe://example.org/ns/build/sa/a/",
        "spiffe://example.org//ns/build/sa/a",
        "spiffe://example.org/ns/build/sa/../../../other",
        "spiffe://example.org/ns/build/sa/.",
        "spiffe://example.org/ns/build/sa/a b",
        "spiffe://example.org/ns/build/sa/a?x",
        "spiffe://example.org/ns/build/sa/a#x",
        "spiffe://example.org/ns/build/sa/%61",
        "spiffe://example.org/ns/build/sa/a\n",
        "spiffe://example.org:8443/ns/build/sa/a",
        "spiffe://user@example.org/ns/build/sa/a",
        "spiffe://EXAMPLE.org/ns/build/sa/a",
        "SPIFFE://example.org/ns/build/sa/a",
        "spiffe://example.org.evil.example/ns/build/sa/a",
        "spiffe://other.example/ns/build/sa/a",
        "https://example.org/ns/build/sa/a",
        "spiffe://example.org/ns/build/sa/" + "a" * 2048,
        "spiffe://example.org/ns/other/sa/a",
    ):
        yield ISSUED["spiffe"].token(sub=subject)
    for made in ISSUED.values():
        if made.issuer != SPIFFE:
            yield made.token(sub="spiffe://example.org/ns/build/sa/a", iss=None)
            yield ISSUED["spiffe"].token(iss=made.issuer)


def other_json() -> Iterator[str]:
    """Yield tokens whose payload reads in two ways, or is no object."""
    made = ISSUED["github"]
    whole = json.dumps(made.said())
    for text in (
        whole[:-1] + f', "iss": "{KEYCLOAK}"}}',
        f'{{"iss": "{KEYCLOAK}", ' + whole[1:],
        whole[:-1] + ', "aud": "x"}',
        whole[:-1] + ', "x": NaN}',
        whole[:-1] + ', "exp": 1e999}',
        whole + "x",
        "\ufeff" + whole,
        f"[{whole}]",
        json.dumps(whole),
        "null",
        "",
        "[" * 4000,
    ):
        kind = b64url(json.dumps({"alg": "RS256", "kid": "kid-2"}).encode())
        signed = f"{kind}.{b64url(text.encode())}"
        yield f"{signed}.{b64url(made.signer.sign(signed.encode()))}"
    token = made.token()
    head, body, signature = token.split(".")
    other = ISSUED["keycloak"].token().split(".")[1]
    yield f"{head}.{other}.{signature}"
    yield f"{head}.{body}.{signature[:-2]}"
    yield f"{head}.{body}.{signature}="
    yield f"{head}.{body}.{signature}.{body}.{body}"
    yield f"{head}..{signature}"
    yield sign_parts(b"{}", whole.encode())


ATTACKS: Final[dict[str, tuple[int, Callable[[], Iterator[str]]]]] = {
    "wrong issuer or audience": (180, wrong_parties),
    "keys of others": (250, keys_of_others),
    "own key for an issuer": (30, own_key_for_an_issuer),
    "issuer for an own token": (30, issuer_for_an_own_token),
    "confused algorithms": (150, confused_algorithms),
    "smuggled headers": (200, smuggled_headers),
    "odd claims": (400, odd_claims),
    "other subjects": (30, other_subjects),
    "other JSON": (15, other_json),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(gatekeeper: Gatekeeper, name: str) -> None:
    """None of the tokens is accepted, and all are refused in the same words."""
    least, make = ATTACKS[name]
    tokens = list(make())

    assert least <= len(tokens)
    assert [] == [token for token in tokens if named(gatekeeper, token)]


def test_published_attacks(gatekeeper: Gatekeeper) -> None:
    """The published attacks find nothing more beside other issuers."""
    tokens = [token for make in CLASSES.values() for token in list(make())[::9]]

    assert [] == [token for token in tokens if named(gatekeeper, token)]


def test_a_provider_grants_no_role_itself(gatekeeper: Gatekeeper) -> None:
    """Roles in the token are those of the issuer, and none of the HSM's."""
    found = named(gatekeeper, ISSUED["entra"].token(roles=["Hsm.Auditor", "Operator"]))

    assert found is not None
    assert {"Auditor"} == {role.value for role in found.roles}


def test_a_valid_token_without_a_rule(gatekeeper: Gatekeeper) -> None:
    """It names nobody: the issuer's word is not enough."""
    assert named(gatekeeper, ISSUED["github"].token(repository="example/b")) is None
    assert named(gatekeeper, ISSUED["keycloak"].token(realm_access={})) is None


def test_an_id_token_of_the_console_is_no_access_token() -> None:
    """What passes through a front end at sign-in is no bearer token."""
    made = ISSUED["keycloak"]
    policy = parse_policy(mapping_policy("keycloak").text.replace(AUDIENCE, "console"))
    console = OIDCSettings(
        issuer=KEYCLOAK,
        client_id="console",
        redirect_uri="https://hsm.example.com/ui/sign-in/oidc/answer",
        roles={},
    )
    own = TokenTrust.of_secret(SECRET, TokenRules())
    with memory_hsm(policy=policy) as hsm:
        for people in (None, IDTokens(console, (), time.time)):
            guarding = Gatekeeper(
                open_async(hsm),
                own,
                lambda: None,
                people=people,
                issuers=[made.trust()],
            )
            token = made.token(aud="console")
            assert (people is None) is (named(guarding, token) is not None)


def test_times(hsm: OpenHSM) -> None:
    """Tokens end with the leeway, and must not live longer than a day."""
    clock = SetClock(time.time())
    gatekeeper, _ = guard(hsm, "github", clock=clock)
    made, now = ISSUED["github"], int(clock.seconds)
    token = made.token(iat=now, exp=now + 300)

    assert named(gatekeeper, made.token(iat=now, exp=now + 86401)) is None
    assert named(gatekeeper, made.token(iat=None, exp=now + 86500)) is None
    assert named(gatekeeper, made.token(iat=now + 90, exp=now + 300)) is None
    assert named(gatekeeper, made.token(nbf=now + 90)) is None
    assert named(gatekeeper, token) is not None
    clock.seconds += 360
    assert named(gatekeeper, token) is None


def test_bound_to_a_certificate(gatekeeper: Gatekeeper) -> None:
    """A token that is bound to a certificate serves nobody without it."""
    bound = {"cnf": {"x5t#S256": b64url(b"\7" * 32)}}

    assert named(gatekeeper, ISSUED["github"].token(**bound)) is None


def test_keys_that_change(hsm: OpenHSM) -> None:
    """A withdrawn key ends its tokens and its vote; other issuers keep theirs."""
    gatekeeper, names = guard(hsm, "github", "gitlab")
    first, other = ISSUED["github"], ISSUED["gitlab"]
    assert named(gatekeeper, first.token())
    assert set(names.trusted()) > {*first.trust().names(), *other.trust().names()}
    gatekeeper.use_issuer(TokenTrust((), TokenRules(), GITHUB))

    assert named(gatekeeper, first.token()) is None
    assert named(gatekeeper, other.token())
    assert set(names.trusted()).isdisjoint(first.trust().names())
    gatekeeper.use(TokenTrust.of_secret(b"x" * 32, TokenRules()))
    assert named(gatekeeper, mint()) is None
    assert named(gatekeeper, other.token())


class TestApprovals:
    """People approve with tokens of their own issuers."""

    POLICY = parse_policy(
        mapping_policy("github", "entra", "okta").text.replace(
            "identities:",
            "rules:\n  - {name: asking, effect: require-approval, match: {operations: "
            "[CreateKey, Sign]}, approval: {roles: [Auditor, Operator]}}\nidentities:",
        )
    )

    def ask(self, hsm: OpenHSM, guarding: Gatekeeper) -> str:
        """Ask as the job in CI; return the approval that is missing, or nothing."""
        job = guarding.authenticate(Visitor(credential=ISSUED["okta"].token())).caller
        operation = ops.CreateKey(algorithm="ed25519", name="release")
        try:
            hsm.act_as(job).execute(operation)
        except ApprovalRequiredError as error:
            return str(error.facts["approval_id"])
        return ""

    def approve(self, hsm: OpenHSM, guarding: Gatekeeper, approval: str) -> None:
        """Approve as grace."""
        grace = guarding.authenticate(
            Visitor(credential=ISSUED["entra"].token())
        ).caller
        granted(hsm, grace, approval)

    @pytest.mark.parametrize("change", ["key", "rule", "nothing"])
    def test_trust_that_ends(self, change: str) -> None:
        """An approval ends with the issuer's key, or with the rule for the approver."""
        own = TokenTrust.of_secret(SECRET, TokenRules())
        names = TrustedNames(own)
        issuers = [ISSUED[name].trust() for name in ("github", "entra", "okta")]
        with memory_hsm(policy=self.POLICY, credential_keys=names) as hsm:
            guarding = Gatekeeper(
                open_async(hsm), own, lambda: None, names=names, issuers=issuers
            )
            approval = self.ask(hsm, guarding)
            self.approve(hsm, guarding, approval)
            if change == "key":
                guarding.use_issuer(TokenTrust((), TokenRules(), ENTRA))
            if change == "rule":
                text = self.POLICY.text.replace("Hsm.Auditor", "Hsm.Other")
                put_in_force(hsm, parse_policy(text))

            assert ("" if change == "nothing" else approval) == self.ask(hsm, guarding)

    def test_another_issuer_is_no_second_person(self) -> None:
        """Who is the same by name cannot approve with a token of another issuer."""
        text = self.POLICY.text.replace("principal: grace", "principal: Otto")
        own = TokenTrust.of_secret(SECRET, TokenRules())
        issuers = [ISSUED[name].trust() for name in ("entra", "okta")]
        with memory_hsm(policy=parse_policy(text)) as hsm:
            guarding = Gatekeeper(open_async(hsm), own, lambda: None, issuers=issuers)
            approval = self.ask(hsm, guarding)

            with pytest.raises(HSMError, match="own"):
                self.approve(hsm, guarding, approval)


def test_one_key_of_two_issuers_has_two_names() -> None:
    """What one issuer vouched for is not what another with the same key does."""
    (key,) = ISSUED["github"].trust().keys
    trusts = [TokenTrust((key,), TokenRules(), issuer) for issuer in ("", "a", "b")]

    assert 3 == len({name for trust in trusts for name in trust.names()})


def test_a_policy_withdraws_at_once() -> None:
    """The same token is refused as soon as the rule is gone, though it was known."""
    with memory_hsm(policy=mapping_policy("github")) as hsm:
        own, _ = guard(hsm, "github")
        token = ISSUED["github"].token()
        assert named(own, token)
        put_in_force(hsm, mapping_policy("gitlab"))
        assert named(own, token) is None


def test_keys_of_a_spiffe_bundle() -> None:
    """Keys for JWT-SVIDs count, and those for X.509-SVIDs do not."""
    (row,) = json.loads(public_key_set(ISSUED["spiffe"].trust().keys))["keys"]
    svid = {**row, "use": "jwt-svid"}
    del svid["alg"]
    others = [{"kty": "EC", "use": "x509-svid", "crv": "P-256", "x5c": ["AA"]}]
    bundle = {"keys": [*others, svid], "spiffe_sequence": 1, "spiffe_refresh_hint": 9}

    found = public_keys_of_set(json.dumps(bundle).encode())
    assert ISSUED["spiffe"].trust().keys == found


FILES: Final[dict[str, tuple[str, str]]] = {
    "no issuers": ("issuers: []", "issuers"),
    "unknown field": ("issuers: [{issuer: 'https://a.example', x: y}]", "x"),
    "no port": ("issuers: [{issuer: 'https://a:99999'}]", "[0].issuer: must be an"),
    "no host": ("issuers: [{issuer: 'https://\u00e4..b'}]", "[0].issuer: must be an"),
    "http": ("issuers: [{issuer: 'http://a.example'}]", "[0].issuer: must be an https"),
    "query": ("issuers: [{issuer: 'https://a.example?b'}]", "[0].issuer: must be"),
    "http keys": (
        "issuers: [{issuer: a, jwks_url: 'http://a.example/keys'}]",
        "[0].jwks_url: must be an https URL",
    ),
    "file and URL": (
        "issuers: [{issuer: a, jwks_file: b, jwks_url: 'https://a.example/keys'}]",
        "[0].jwks_file: can't be used with",
    ),
    "trust domain without keys": (
        "issuers: [{issuer: 'spiffe://example.org'}]",
        "[0].issuer: a trust domain requires jwks_file or jwks_url",
    ),
    "trust domain with a path": (
        "issuers: [{issuer: 'spiffe://example.org/a', jwks_file: b}]",
        "[0].issuer: a trust domain must be spiffe://NAME",
    ),
    "twice": (
        "issuers: [{issuer: a, jwks_file: b}, {issuer: a, jwks_file: c}]",
        "[1].issuer: is listed twice",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files(tmp_path: Path, name: str) -> None:
    """The message names file and field."""
    text, problem = FILES[name]
    path = tmp_path / "issuers.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_token_issuers(path)

    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


def test_a_good_file(tmp_path: Path) -> None:
    """Paths are relative to the file."""
    path = tmp_path / "issuers.yaml"
    path.write_text(
        "issuers:\n- {issuer: 'https://a.example', ca_bundle: ca.pem}\n"
        "- {issuer: 'spiffe://example.org', jwks_file: /etc/bundle.json}\n"
    )
    first, second = load_token_issuers(path)

    assert ("https://a.example", tmp_path / "ca.pem") == (first.issuer, first.ca_bundle)
    assert Path("/etc/bundle.json") == second.jwks_file
